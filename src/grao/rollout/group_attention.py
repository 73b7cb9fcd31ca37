"""Attention while groups are drawn: every row sees its prompt, kept once, and itself.

Suffixes: P prompts, N rows, W rows in the widest group, H key-value heads, R query heads that share one, S and L
columns of prompts and of samples, D dimensions of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from grao.compat.transformers_attention import (
    CAUSAL,
    AttentionRefusedError,
    check_attention_arguments,
    is_causal_rule,
    register_attention,
)
from grao.rollout.group_cache import GroupCache, Visibility

NAME = "grao_group"
"""Ours among transformers' attention functions."""


def visibility(*, mask_function: Callable[..., Any] = CAUSAL, use_vmap: bool = False, **_: Any) -> Visibility:
    """What transformers calls for a mask while `NAME` is the attention; registered there."""
    if use_vmap:
        raise AttentionRefusedError("its mask is made by a function of its own")
    return Visibility(None if is_causal_rule(mask_function) else mask_function)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    group_cache: GroupCache | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention in the signature of transformers' interface, which also keeps the keys and values; registered there.

        prefill:  o_t = softmax(s · q_t K_≤tᵀ) V_≤t           each prompt by itself
        a step:   o_n = softmax(s · q_n [K_prompt(n); K_n]ᵀ) [V_prompt(n); V_n]

    In a step, scores against a prompt are one product for all rows of its group; the softmax runs over prompt and
    sample together, so nothing is approximated.

    Args:
        module: the attention layer, by which keys and values are kept.
        query: [1, H·R, ΣS, D] of prompts side by side, or [N, H·R, 1, D] of the rows' newest tokens.
        key: [·, H, ·, D], of the same tokens.
        value: [·, H, ·, width of values].
        attention_mask: the `Visibility` of this layer.
        group_cache: where keys and values are kept.
        scaling: s; 1/√D by default.
        dropout: must be 0.
        softcap: scores x become cap · tanh(x / cap).
        sliding_window: a check only; the visibility holds it.
        is_causal: a check only.
        others: refused, unless known to change nothing.

    Returns:
        [·, tokens, H·R, width of values], and no attention weights.

    Raises:
        AttentionRefusedError: something that it cannot do exactly.
    """
    if not isinstance(attention_mask, Visibility) or group_cache is None:
        raise AttentionRefusedError("its layers are not handed the mask and the cache of groups")
    check_attention_arguments(dropout, is_causal, others)
    if attention_mask.sees is None and sliding_window is not None:
        raise AttentionRefusedError("its attention has a sliding window that its mask does not have")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if group_cache.prefilling:
        return _prefill(module, query, key, value, attention_mask, group_cache, scale, softcap), None
    N, heads, _, D = query.shape
    q_NHRD = (query * scale).view(N, key.shape[1], -1, D)
    out = attend_to_groups(module, q_NHRD, key[:, :, 0], value[:, :, 0], group_cache, attention_mask, softcap)
    return out.reshape(N, 1, heads, -1), None


register_attention(NAME, attend, visibility)


def _prefill(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Visibility,
    cache: GroupCache,
    scale: float,
    softcap: float | None,
) -> Tensor:
    """Each prompt attends to itself."""
    parts = [x.split(cache.prefilling, 2) for x in (query, key, value)]
    cache.add_prompts(module, [k[0] for k in parts[1]], [v[0] for v in parts[2]])
    outputs = [_causal(q, k, v, mask.sees, scale, softcap) for q, k, v in zip(*parts, strict=True)]
    return torch.cat(outputs, 2).transpose(1, 2)


def _causal(
    q: Tensor, k: Tensor, v: Tensor, sees: Callable[..., Tensor] | None, scale: float, softcap: float | None
) -> Tensor:
    length = q.shape[2]
    if sees is None and softcap is None and v.shape[-1] == q.shape[-1]:
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1])
    seen = torch.ones(length, length, dtype=torch.bool, device=q.device).tril()
    if sees is not None:
        place, zero = torch.arange(length, device=q.device), torch.zeros(1, dtype=torch.long, device=q.device)
        seen = seen & sees(zero, zero, place[:, None], place[None, :])
    shared = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(shared, 1) for x in (k, v))
    scores = _capped(q @ k.transpose(2, 3) * scale, softcap).masked_fill(~seen, -torch.inf)
    return scores.softmax(-1) @ v


def attend_to_groups(
    layer: nn.Module,
    q_NHRD: Tensor,
    key_NHD: Tensor,
    value_NHD: Tensor,
    cache: GroupCache,
    mask: Visibility,
    softcap: float | None = None,
) -> Tensor:
    """Each row's newest token, whose key and value are kept, attends to its prompt and to its row.

    Args:
        layer: by which keys and values are kept.
        q_NHRD: queries, scaled.
        key_NHD: the new keys.
        value_NHD: the new values.
        cache: of the groups.
        mask: what is visible in this layer.
        softcap: scores x become cap · tanh(x / cap).

    Returns:
        [N, H, R, width of values].
    """
    keys_NHLD, values_NHLD = cache.write(layer, key_NHD, value_NHD)
    kept, (H, R) = cache.layers[layer], q_NHRD.shape[1:3]
    P, S = kept.prompt_keys.shape[0], kept.prompt_keys.shape[2]

    def to_prompts(x_NHRX: Tensor) -> Tensor:
        """[N, H, R, X] as one matrix a prompt and head: [P, H, W·R, X]."""
        return cache.by_prompt(x_NHRX).transpose(1, 2).flatten(2, 3)

    def to_rows(x_PHWX: Tensor) -> Tensor:
        """And back."""
        return cache.by_row(x_PHWX.view(P, H, -1, R, x_PHWX.shape[-1]).transpose(1, 2))

    scores = torch.cat(
        [
            to_rows(to_prompts(q_NHRD) @ kept.prompt_keys.transpose(2, 3)),
            q_NHRD @ keys_NHLD.transpose(2, 3),
        ],
        -1,
    )
    scores = _capped(scores, softcap)
    hidden = cache.hidden(mask, scores)
    # Of half-precision scores, softmax is computed in float32 and rounded once.
    weights = (scores if hidden is None else scores + hidden).softmax(-1)
    return to_rows(to_prompts(weights[..., :S]) @ kept.prompt_values) + weights[..., S:] @ values_NHLD


def _capped(scores: Tensor, softcap: float | None) -> Tensor:
    return scores if softcap is None else torch.tanh(scores / softcap) * softcap
