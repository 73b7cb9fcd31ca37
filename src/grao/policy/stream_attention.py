"""Attention over a token stream: every member sees its prompt and itself, and nothing else.

A stream (`grao.policy.token_layout.TokenStream`) holds a group's prompt once. Everything in a transformer except
attention treats tokens one by one, so only attention is replaced, through transformers' own interface. What is visible
is the model's own rule: the mask function that it builds for its layers (causal, sliding window, chunks) is evaluated
at positions within a sequence, prompt and member side by side, as in a padded row.

The segments travel as an argument of `forward` down to the attention. A layer that activation checkpointing runs again
in the backward pass, on any thread, therefore attends as before. The config of the model names our attention only
during a forward, or such a layer, that is given segments.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import PretrainedConfig, PreTrainedModel

from grao.compat.transformers_attention import (
    CAUSAL,
    AttentionRefusedError,
    check_attention_arguments,
    check_replaceable,
    is_causal_rule,
    register_attention,
    use_attention,
)
from grao.policy.shared_prompt_attention import attend_to_shared_prompts
from grao.policy.token_layout import Segments

NAME = "grao_stream"
"""The name of `attend_stream` among transformers' attention functions."""

DROPOUTS = ("attention_dropout", "attn_pdrop", "attn_dropout", "attention_probs_dropout_prob")
"""Names of the dropout of attention weights in configs."""


class Longest(NamedTuple):
    """Sizes, in tokens, that the masks of a stream must cover."""

    prompt: int
    rows: int
    """The longest part that needs a mask: a member or, where prompts need one too, any part."""
    whole: int
    """The longest prompt and member together."""

    @classmethod
    def of(cls, segments: Segments) -> Longest:
        """Return the sizes for members that need a mask and prompts that do not."""
        return cls(
            prompt=max(prompt for prompt, _ in segments),
            rows=max((length for _, members in segments for length in members), default=1),
            whole=max(prompt + max(members, default=0) for prompt, members in segments),
        )


@dataclass(eq=False, slots=True)
class StreamMask:
    """What one kind of layer may see: the model's own rule, instead of a mask over the whole stream.

    Made once per forward and shared by all layers of the kind, which is why it keeps what it has computed.
    """

    sees: Callable[..., Tensor]
    """(batch, head, query, key) to whether the query sees the key; index tensors that broadcast."""
    _plain: dict[Any, bool] = field(default_factory=dict)
    _tables: dict[Any, Tensor] = field(default_factory=dict)

    def is_plain(self, length: int, device: torch.device) -> bool:
        """Return whether the rule is plain causality in sequences of this length.

        Raises:
            AttentionRefusedError: Tokens look ahead.
        """
        if is_causal_rule(self.sees):
            return True
        if (length, device) not in self._plain:
            self._plain[length, device] = self._compare(torch.arange(length, device=device))
        return self._plain[length, device]

    def mask(self, start: int, length: int, longest: Longest, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return [length, start + length]: 0 where one of `length` tokens behind `start` others sees a key, else −∞.

        The result is a view. For plain causality the table has as many rows as the longest part has tokens: row t
        sees keys up to place `longest.prompt` + t, and a part with fewer tokens before it starts further right.
        """
        plain = self.is_plain(longest.whole, device)
        key = (plain, longest, dtype, device)
        if key not in self._tables:
            if plain:
                places = torch.arange(longest.prompt + longest.rows, device=device)
                seen = places <= longest.prompt + places[: longest.rows, None]
            else:
                places = torch.arange(longest.whole, device=device)
                seen = self._rule(places, places)
            self._tables[key] = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill(~seen, -torch.inf)
        if plain:
            return self._tables[key][:length, longest.prompt - start : longest.prompt + length]
        return self._tables[key][start : start + length, : start + length]

    def _compare(self, places: Tensor) -> bool:
        plain = True
        for queries in places.split(1024):  # so that a long context needs no square of its length
            seen, causal = self._rule(queries, places), places <= queries[:, None]
            if bool((seen & ~causal).any()):
                raise AttentionRefusedError("its prompts look ahead at their members, so members cannot share them")
            plain = plain and bool((seen == causal).all())
        return plain

    def _rule(self, queries: Tensor, keys: Tensor) -> Tensor:
        zero = torch.zeros(1, dtype=torch.long, device=keys.device)
        return self.sees(zero, zero, queries[:, None], keys[None, :]).expand(len(queries), len(keys))


def stream_mask(*, mask_function: Callable[..., Any] = CAUSAL, use_vmap: bool = False, **_: Any) -> StreamMask:
    """Make a layer's mask, in the signature of transformers' interface."""
    if use_vmap:
        raise AttentionRefusedError("its mask is made by a function of its own")
    return StreamMask(mask_function)


def attend_stream(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    stream_segments: Segments | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend over a stream, in the signature of transformers' interface.

    Plainly causal layers attend prompt and member apart (`grao.policy.shared_prompt_attention`); windows, chunks and
    capped scores take one call per prompt and member.

    Args:
        module: The attention layer.
        query: [1, heads, N, width].
        key: [1, key heads, N, width]; each serves heads / key heads queries.
        value: [1, key heads, N, width of values].
        attention_mask: The `StreamMask` of this layer.
        stream_segments: Lengths of the stream's parts.
        scaling: Of the scores; 1/√width by default.
        dropout: Must be 0.
        softcap: Scores s become cap · tanh(s / cap).
        sliding_window: Checked only; the mask holds it.
        is_causal: Checked only.
        others: Refused, unless known to change nothing.

    Returns:
        [1, N, heads, width of values], and no attention weights.

    Raises:
        AttentionRefusedError: The call asks for what cannot be done exactly.
    """
    if not isinstance(attention_mask, StreamMask) or stream_segments is None:
        raise AttentionRefusedError("its layers are not handed the mask and the segments of the stream")
    check_attention_arguments(dropout, is_causal, others)
    longest = Longest.of(stream_segments).whole
    plain = attention_mask.is_plain(longest, query.device)
    if plain and sliding_window is not None and sliding_window < longest:
        raise AttentionRefusedError("its attention has a sliding window that its mask does not have")

    if plain and softcap is None:
        return _attend_plain(query, key, value, stream_segments, scaling), None
    return attend_one_by_one(query, key, value, stream_segments, attention_mask, scaling, softcap), None


register_attention(NAME, attend_stream, stream_mask)


def _attend_plain(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scaling: float | None) -> Tensor:
    dtype, width = _compute_dtype(query), value.shape[-1]
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if width < query.shape[-1]:  # MLA: fused kernels want one width; zeros change nothing
        value = pad(value, (0, query.shape[-1] - width))
    return attend_to_shared_prompts(query, key, value, segments, scaling)[..., :width]


def attend_one_by_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    rule: StreamMask,
    scaling: float | None,
    softcap: float | None,
) -> Tensor:
    """Attend in one call per prompt and per member, under any rule; returns [1, N, heads, width of values]."""
    longest = Longest.of(segments)
    causal = softcap is None and rule.is_plain(longest.whole, query.device)
    if not causal:
        longest = longest._replace(rows=max(longest.rows, longest.prompt))

    def mask(start: int, length: int) -> Tensor:
        return rule.mask(start, length, longest, _compute_dtype(query), query.device)

    lengths = [length for prompt, members in segments for length in (prompt, *members)]
    parts = zip(*(x.split(lengths, 2) for x in (query, key, value)), strict=True)
    outputs = []
    for prompt, members in segments:
        q, prompt_k, prompt_v = next(parts)
        prompt_mask = None if causal else mask(0, prompt)
        outputs.append(_scores_to_values(q, prompt_k, prompt_v, prompt_mask, scaling, softcap))
        for length in members:
            q, k, v = next(parts)
            k, v = torch.cat([prompt_k, k], 2), torch.cat([prompt_v, v], 2)
            outputs.append(_scores_to_values(q, k, v, mask(prompt, length), scaling, softcap))
    return torch.cat(outputs, 2).transpose(1, 2)


def _scores_to_values(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float | None, softcap: float | None
) -> Tensor:
    """softmax(cap(scaling · q kᵀ) + mask) v; without a mask causal, and then q and k are equally long."""
    if softcap is not None:
        assert mask is not None
        return _capped(q, k, v, mask, scaling, softcap)
    shares_keys = q.shape[1] != k.shape[1]
    if shares_keys and q.device.type != "cpu":  # fused kernels elsewhere take a mask or shared keys, not both
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
        shares_keys = False
    width = v.shape[-1]
    if width < q.shape[-1]:  # MLA: fused kernels want one width; zeros change nothing
        v = pad(v, (0, q.shape[-1] - width))
    out = scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=shares_keys
    )
    return out[..., :width]


def _capped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scaling: float | None, softcap: float) -> Tensor:
    """Attend with capped scores, which no fused kernel offers; softmax in float32 at least."""
    shared = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(shared, 1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap + mask
    return scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype) @ v


def _compute_dtype(query: Tensor) -> torch.dtype:
    """Return the dtype that attention computes in: a mask of another dtype would be copied at every call."""
    kind = query.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype


def attention_over(config: PretrainedConfig, segments: Segments | None) -> AbstractContextManager[None]:
    """Return a context in which this config's model attends over a stream, if there are segments."""
    return nullcontext() if segments is None else use_attention(config, NAME)


def check_streamable(model: PreTrainedModel) -> None:
    """Check what a model says of itself.

    Raises:
        AttentionRefusedError: It has layers, or an attention, that the stream cannot compute exactly.
    """
    check_replaceable(model)
    for name in DROPOUTS:
        p = getattr(model.config, name, None)
        if p:
            raise AttentionRefusedError(f"it drops attention weights out in training ({name} = {p:g})")
