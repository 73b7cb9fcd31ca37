"""Which tokens may be drawn: top-k, top-p and min-p, as masks on the logits.

Suffixes: N rows, V tokens of the vocabulary. Each function takes logits [N, V], where -inf marks what an earlier
one removed, and returns them with more of them at -inf. The order of the vocabulary is kept: two tokens of nearly
equal probability then never swap places in the cumulative distribution because of round-off.
"""

from __future__ import annotations

import math

from torch import Tensor

from grao.rollout.engine import SamplingParams


def truncate(logits_NV: Tensor, params: SamplingParams) -> Tensor:
    """Apply top-k, then top-p, then min-p, each to what the one before left."""
    if params.top_k:
        logits_NV = top_k(logits_NV, params.top_k)
    if params.top_p < 1:
        logits_NV = top_p(logits_NV, params.top_p)
    if params.min_p:
        logits_NV = min_p(logits_NV, params.min_p)
    return logits_NV


def top_k(logits_NV: Tensor, k: int) -> Tensor:
    """Keep the k most likely tokens, and those that tie with the k-th."""
    k = min(k, logits_NV.shape[-1])
    kth_N1 = logits_NV.topk(k).values[:, -1:]
    return logits_NV.masked_fill(logits_NV < kth_N1, -math.inf)


def top_p(logits_NV: Tensor, p: float) -> Tensor:
    """Keep the smallest set of most likely tokens whose probability reaches p; among equals, the lower id first.

    A token stays where the tokens before it, in falling order, hold less than p. So the likeliest always stays.
    """
    sorted_NV, order_NV = logits_NV.sort(stable=True, dim=-1, descending=True)
    probs_NV = sorted_NV.softmax(-1)
    before_NV = probs_NV.cumsum(-1) - probs_NV
    dropped_NV = before_NV >= p
    return logits_NV.masked_fill(dropped_NV.scatter(-1, order_NV, dropped_NV), -math.inf)


def min_p(logits_NV: Tensor, p: float) -> Tensor:
    """Drop tokens less likely than p times the likeliest: ℓ < max ℓ + log p."""
    return logits_NV.masked_fill(logits_NV < logits_NV.amax(-1, keepdim=True) + math.log(p), -math.inf)
