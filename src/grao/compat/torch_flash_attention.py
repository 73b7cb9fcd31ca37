"""Attention with its normalisers, and its backward pass from given normalisers: what a softmax in two parts needs.

On a CPU by torch's fused kernels, which hold no scores. Elsewhere by plain operations on blocks of queries, which any
device runs.

Relies on `torch.ops.aten._scaled_dot_product_flash_attention_for_cpu` and its `_backward`: their signatures, on
natural logarithms as normalisers, and on a backward pass that reads nothing of the forward but what it is given.
"""

from __future__ import annotations

import torch
from torch import Tensor

FUSED = {"cpu"}
"""Device types with fused kernels here."""
BLOCK_SCORES = 2**24
"""Scores held at a time by the plain operations, per call."""


def attend(query: Tensor, key: Tensor, value: Tensor, causal: bool, scaling: float | None) -> tuple[Tensor, Tensor]:
    """o = softmax(s · q kᵀ) v, and ℓ = log Σ exp(s · q kᵀ).

    Args:
        query: [1, heads, N, width].
        key: [1, key heads, L, width]; each serves heads / key heads queries.
        value: [1, key heads, L, width].
        causal: Token t sees keys up to place t; then N = L.
        scaling: s; 1/√width by default.

    Returns:
        o [1, heads, N, width]; ℓ [1, heads, N], in float32 (float64 for float64).
    """
    if query.device.type in FUSED:
        out, normaliser = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, is_causal=causal, scale=scaling
        )
        return out, normaliser
    k, v = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    outputs, normalisers = [], []
    for rows in _blocks(query, key):
        scores = _scores(query[:, :, rows], k, rows.start, causal, scaling)
        normalisers.append(scores.logsumexp(-1))
        outputs.append((scores - normalisers[-1][..., None]).exp().to(v.dtype) @ v)
    return torch.cat(outputs, 2), torch.cat(normalisers, 2)


def attend_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    normaliser: Tensor,
    causal: bool,
    scaling: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """∂L/∂q, ∂L/∂k and ∂L/∂v from ∂L/∂o, for the weights w = exp(s · q kᵀ − ℓ).

    ∂L/∂(q kᵀ) = s · w ⊙ (∂L/∂o vᵀ − Σ ∂L/∂o ⊙ o). Where ℓ and o are those of a softmax over more keys than these, the
    result is these keys' share of its gradient.
    """
    if query.device.type in FUSED:
        q, k, v = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            gradient, query, key, value, out, normaliser, 0.0, causal, scale=scaling
        )
        return q, k, v
    k, v = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    of_query = torch.empty_like(query)
    of_key, of_value = (torch.zeros_like(x, dtype=normaliser.dtype) for x in (k, v))
    for rows in _blocks(query, key):
        g, q = gradient[:, :, rows], query[:, :, rows]
        weights = (_scores(q, k, rows.start, causal, scaling) - normaliser[:, :, rows, None]).exp()
        shift = (g * out[:, :, rows]).sum(-1, keepdim=True, dtype=normaliser.dtype)
        of_scores = weights * (g @ v.transpose(2, 3) - shift) * _scale(query, scaling)
        of_query[:, :, rows] = of_scores.to(k.dtype) @ k
        of_key += of_scores.to(q.dtype).transpose(2, 3) @ q
        of_value += weights.to(g.dtype).transpose(2, 3) @ g
    of_key, of_value = (x.unflatten(1, (key.shape[1], -1)).sum(2).to(key.dtype) for x in (of_key, of_value))
    return of_query, of_key, of_value


def _scores(query: Tensor, key: Tensor, first: int, causal: bool, scaling: float | None) -> Tensor:
    """s · q kᵀ in float32 at least, −∞ for keys behind the queries' places, which start at `first`."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    scores = (query @ key.transpose(2, 3)).to(dtype) * _scale(query, scaling)
    if not causal:
        return scores
    places = torch.arange(key.shape[2], device=key.device)
    return scores.masked_fill(places > first + torch.arange(query.shape[2], device=key.device)[:, None], -torch.inf)


def _scale(query: Tensor, scaling: float | None) -> float:
    return query.shape[-1] ** -0.5 if scaling is None else scaling


def _blocks(query: Tensor, key: Tensor) -> list[slice]:
    rows = max(1, BLOCK_SCORES // (query.shape[1] * key.shape[2]))
    return [slice(start, min(start + rows, query.shape[2])) for start in range(0, query.shape[2], rows)]
