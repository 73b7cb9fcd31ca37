"""The head and its softmax as one operation, in tiles of the vocabulary: few passes, one gradient of the weights.

Without autograd's graph in between, the backward pass makes the softmax's gradient in the tile that holds the logits,
and writes each part of the weights' gradient once. Chunks of tokens under autograd make several copies of the logits,
and a gradient of all the weights for each chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

ROWS = 2048
"""Tokens per tile at most. The fewer, the more often all the weights are read."""


def tiled_head(
    hidden_KD: Tensor,
    weight_VD: Tensor,
    ids_K: Tensor,
    slope: float,
    tile_logits: int,
    entropy_grad: bool = False,
) -> tuple[Tensor, Tensor]:
    """log softmax(slope · W h)[id] of every token, and the entropy H of the softmax.

    Half-precision products are made in half precision, as by `nn.Linear`; everything after them in float32.

    Args:
        hidden_KD: Hidden states; differentiable.
        weight_VD: Of the head, in the same dtype; differentiable.
        ids_K: The tokens.
        slope: Of the logits.
        tile_logits: Logits held at a time, about.
        entropy_grad: Make the entropy differentiable.

    Returns:
        log-probs [K], differentiable once; entropy [K], constant unless `entropy_grad`; in nats, float32 (float64 for
        float64).
    """
    return _TiledHead.apply(hidden_KD, weight_VD, ids_K, slope, tile_logits, entropy_grad)


class _TiledHead(torch.autograd.Function):
    """Saves the normaliser of each token, so that the backward pass needs no sum over the vocabulary."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_KD: Tensor,
        weight_VD: Tensor,
        ids_K: Tensor,
        slope: float,
        tile_logits: int,
        entropy_grad: bool,
    ) -> tuple[Tensor, Tensor]:
        parts = []
        with torch.autocast(hidden_KD.device.type, enabled=False):
            for rows in _ranges(len(hidden_KD), ROWS):
                parts.append(_score_rows(hidden_KD[rows], weight_VD, ids_K[rows], slope, tile_logits))
        logprobs_K, entropy_K, normaliser_K = (torch.cat(part) for part in zip(*parts, strict=True))
        ctx.save_for_backward(hidden_KD, weight_VD, ids_K, normaliser_K, *([entropy_K] if entropy_grad else []))
        ctx.slope, ctx.tile_logits = slope, tile_logits
        if not entropy_grad:
            ctx.mark_non_differentiable(entropy_K)
        return logprobs_K, entropy_K

    @staticmethod
    def backward(ctx: Any, gradient_K: Tensor, of_entropy_K: Tensor) -> tuple[Tensor | None, ...]:
        """∂L/∂z_v = slope · [g (1[v = id] − p_v) − g_H p_v (log p_v + H)] for the products z = W h, with g
        = ∂L/∂logprob and g_H = ∂L/∂H. Then ∂L/∂h = Wᵀ ∂L/∂z and ∂L/∂W = ∂L/∂z hᵀ."""
        if torch.is_grad_enabled():  # create_graph=True: the result would be taken for a constant
            raise NotImplementedError("log-probs of a tiled head have no second derivative (create_graph=True)")
        hidden_KD, weight_VD, ids_K, normaliser_K, *entropy = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        # Sums over tiles, so in float32 at least.
        of_hidden = torch.zeros_like(hidden_KD, dtype=gradient_K.dtype) if wants_hidden else None
        of_weight = torch.empty_like(weight_VD) if wants_weight else None
        with torch.autocast(hidden_KD.device.type, enabled=False):
            for rows in _ranges(len(hidden_KD), ROWS):
                hidden = hidden_KD[rows]
                gradient = ctx.slope * gradient_K[rows, None]
                for words in _ranges(len(weight_VD), ctx.tile_logits // len(hidden)):
                    tile = _logits(hidden, weight_VD[words], ctx.slope)
                    tile.sub_(normaliser_K[rows, None])
                    if entropy:
                        of_entropy = ctx.slope * of_entropy_K[rows, None]
                        weights = (tile + entropy[0][rows, None]).mul_(of_entropy).add_(gradient)
                        tile.exp_().mul_(weights.neg_())
                    else:
                        tile.exp_().mul_(-gradient)
                    place, inside = _place(ids_K[rows], words)
                    tile.scatter_(1, place, tile.gather(1, place) + gradient * inside)
                    tile = tile.to(hidden.dtype)
                    if of_hidden is not None:
                        of_hidden[rows] += tile @ weight_VD[words]
                    if of_weight is not None:
                        part, beta = of_weight[words], float(rows.start > 0)  # 0 ignores uninitialised memory
                        torch.addmm(part, tile.T, hidden, beta=beta, out=part)
        return None if of_hidden is None else of_hidden.to(hidden_KD.dtype), of_weight, None, None, None, None


def _score_rows(
    hidden: Tensor, weight_VD: Tensor, ids: Tensor, slope: float, tile_logits: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probs, entropy and normaliser log Σ exp(logits), from sums relative to the largest logit so far.

    With m the largest, s = Σ exp(x − m) and t = Σ exp(x − m)(x − m): the normaliser is m + log s, the entropy
    log s − t/s. Where m grows by d, s becomes e⁻ᵈ s and t becomes e⁻ᵈ (t − d s).
    """
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    largest = hidden.new_full((len(hidden),), torch.finfo(dtype).min / 2, dtype=dtype)  # −∞ would give 0 · ∞ below
    total, moment, chosen = (torch.zeros_like(largest) for _ in range(3))
    for words in _ranges(len(weight_VD), tile_logits // len(hidden)):
        tile = _logits(hidden, weight_VD[words], slope)
        place, inside = _place(ids, words)
        chosen = torch.where(inside[:, 0], tile.gather(1, place)[:, 0], chosen)
        grown = torch.maximum(largest, tile.amax(1))
        shift = largest - grown
        tile.sub_(grown[:, None])
        powers = tile.exp()
        moment = shift.exp() * (moment + shift * total) + tile.mul_(powers).sum(1)
        total = shift.exp() * total + powers.sum(1)
        largest = grown
    spread = total.log()
    return chosen - largest - spread, spread - moment / total, largest + spread


def _logits(hidden: Tensor, weight: Tensor, slope: float) -> Tensor:
    """Return slope · W h in float32 at least, in memory of its own."""
    logits = (hidden @ weight.T).to(torch.promote_types(hidden.dtype, torch.float32))
    return logits if slope == 1.0 else logits.mul_(slope)


def _place(ids: Tensor, words: slice) -> tuple[Tensor, Tensor]:
    """Return where in a tile each token's logit is, and whether it is in this tile: [rows, 1] both."""
    place = ids[:, None] - words.start
    size = words.stop - words.start
    return place.clamp(0, size - 1), (place >= 0) & (place < size)


def _ranges(length: int, size: int) -> Iterator[slice]:
    """Return 0 … length in parts of at most `size`."""
    size = max(size, 1)
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
