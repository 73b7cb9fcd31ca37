"""The attention interface of transformers: choose the attention function and its mask for models of any family.

A model looks up its attention function by the name in its config, and asks a function of the same name for its masks.
Registering both decides what a query sees, for every family that uses the interface.

Relies on:
- `config._attn_implementation`, which attention layers read at each call;
- `PreTrainedModel._supports_attention_backend`, True for families that use the interface;
- `ALL_ATTENTION_FUNCTIONS` and `ALL_MASK_ATTENTION_FUNCTIONS`, and the keywords that mask functions are called with;
- that sdpa attention ignores `softcap`, and eager attention does not;
- the identity of `causal_mask_function`, the rule that plain causal layers pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, causal_mask_function
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

KNOWN_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
HARMLESS = {"position_ids", "use_cache", "position_embeddings", "cache_position", "output_router_logits"}
"""Arguments of attention that change nothing here: the tensors hold them already, or they concern outputs."""

CAUSAL: Callable[..., Any] = causal_mask_function
"""The mask rule of a plainly causal layer: a query sees every key up to its own."""


class AttentionRefusedError(ValueError):
    """A model, or one of its forwards, that cannot be computed exactly in this way. The message is the reason."""


def register_attention(name: str, attention: Callable[..., Any], mask: Callable[..., Any]) -> None:
    """Register an attention function, and the function that makes its masks, under a name."""
    ALL_ATTENTION_FUNCTIONS.register(name, attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, mask)


@contextmanager
def use_attention(config: PretrainedConfig, name: str) -> Iterator[None]:
    """Make the model of this config use the attention registered under `name` within the context."""
    former = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = former


def attention_layers(model: PreTrainedModel) -> list[Any]:
    """Return the modules that may look up the attention function in their config."""
    return [m for m in model.modules() if hasattr(m, "config") and not isinstance(m, PreTrainedModel)]


def use_attention_with_keyword(model: PreTrainedModel, name: str, keyword: str) -> None:
    """Make each attention layer use the attention `name` whenever it is called with `keyword`.

    Activation checkpointing runs layers again in the backward pass, after the model's forward, and with it
    `use_attention`, has ended.
    """
    former: dict[Any, str] = {}

    # Plain functions, not bound methods: a deep copy of the model shares them without a reference to the original.
    def enter(layer: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs.get(keyword) is not None:
            former[layer] = layer.config._attn_implementation
            layer.config._attn_implementation = name

    def leave(layer: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if kwargs.get(keyword) is not None:
            layer.config._attn_implementation = former.pop(layer)

    for layer in attention_layers(model):
        layer.register_forward_pre_hook(enter, with_kwargs=True)
        layer.register_forward_hook(leave, with_kwargs=True, always_call=True)


def is_causal_rule(sees: Callable[..., Any]) -> bool:
    """Return whether a mask function of transformers is plain causality: only later tokens are hidden."""
    return sees is CAUSAL


def check_replaceable(model: PreTrainedModel) -> None:
    """Check what a model says of its own attention.

    Raises:
        AttentionRefusedError: It has layers other than attention over a sequence's tokens, or does not use the
            attention interface.
    """
    config = model.config
    if config.get_text_config() is not config:
        raise AttentionRefusedError("it is made of several models")
    if not getattr(model, "_supports_attention_backend", False):
        raise AttentionRefusedError("its attention is outside transformers' attention interface")
    other = sorted(set(getattr(config, "layer_types", None) or ()) - KNOWN_LAYERS)
    if other:
        raise AttentionRefusedError(
            f"it has layers of kind {', '.join(other)}, which are not attention to a sequence's tokens"
        )
    if getattr(config, "attn_temperature_tuning", False):
        # Llama 4: the scale depends on positions counted in its own cache; it is 1 within the first 8192 tokens.
        raise AttentionRefusedError("it scales attention by places that it counts itself (attn_temperature_tuning)")


def avoid_uncapped_attention(model: PreTrainedModel) -> None:
    """Switch a model that caps its attention scores from sdpa to eager attention: sdpa silently ignores the cap.

    transformers 5.17 loads Gemma 2 with sdpa unless told otherwise; 5.23 no longer does.
    """
    config = model.config
    if getattr(config, "attn_logit_softcapping", None) is not None and config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")


def check_attention_arguments(dropout: float, is_causal: bool | None, others: dict[str, Any]) -> None:
    """Refuse arguments of an attention call that would be ignored.

    Raises:
        AttentionRefusedError: Dropout of attention weights, attention that is not causal, or an unknown argument.
    """
    unknown = sorted(k for k, v in others.items() if k not in HARMLESS and v is not None and v is not False)
    if unknown:
        raise AttentionRefusedError(f"its attention takes arguments that are unknown here: {', '.join(unknown)}")
    if dropout > 0:
        raise AttentionRefusedError(f"it drops attention weights out in training (p = {dropout:g})")
    if is_causal is False:
        raise AttentionRefusedError("its attention is not causal")
