"""Transformers' attention interface, as those use it who lay tokens out in another way than padded rows.

A model looks its attention function up by the name in its config, and asks a function of the same name for its masks.
Whoever registers both decides what a query sees, for all families that go through the interface.
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
"""Arguments of attention that change nothing here: what they say is in the tensors already, or is about outputs."""
_CAUSAL: Any = causal_mask_function


class AttentionRefusedError(ValueError):
    """A model, or one of its forwards, that cannot be computed exactly in this way. The message is the reason."""


def register(name: str, attention: Callable[..., Any], mask: Callable[..., Any]) -> None:
    """Make an attention function known to transformers under this name, with the function that makes its masks."""
    ALL_ATTENTION_FUNCTIONS.register(name, attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, mask)


@contextmanager
def replaced(config: PretrainedConfig, name: str) -> Iterator[None]:
    """Within, attention of this config's model is the one registered under this name."""
    former = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = former


def is_causal_rule(sees: Callable[..., Any]) -> bool:
    """Whether a mask function of transformers is plain causality: nothing is hidden but what comes later."""
    return sees is _CAUSAL


def check_replaceable(model: PreTrainedModel) -> None:
    """Look at what a model says of itself.

    Raises:
        AttentionRefusedError: it has layers that are not attention to a sequence's tokens, or an attention outside
            the interface.
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
        # Llama 4: by what it counts in its own cache; within the first 8192 tokens, all are scaled by 1.
        raise AttentionRefusedError("it scales attention by places that it counts itself (attn_temperature_tuning)")


def refuse_what_changes_attention(dropout: float, is_causal: bool | None, others: dict[str, Any]) -> None:
    """Refuse the arguments of an attention call that would be ignored.

    Raises:
        AttentionRefusedError: dropout of attention weights, attention that is not causal, or an unknown argument.
    """
    unknown = sorted(k for k, v in others.items() if k not in HARMLESS and v is not None and v is not False)
    if unknown:
        raise AttentionRefusedError(f"its attention takes arguments that are unknown here: {', '.join(unknown)}")
    if dropout > 0:
        raise AttentionRefusedError(f"it drops attention weights out in training (p = {dropout:g})")
    if is_causal is False:
        raise AttentionRefusedError("its attention is not causal")
