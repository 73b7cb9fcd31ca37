"""From logits to a token and its log-probability.

Suffixes: N rows, V tokens of the vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from grao.rollout.engine import SamplingParams
from grao.rollout.truncation import truncate


def sample_tokens(
    logits_NV: Tensor, u_N: Tensor, params: SamplingParams, unknown_V: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Draw one token per row; return it with its log-probability.

        ids = F⁻¹(u),  F the distribution softmax(ℓ/τ) truncated by top-k, top-p and min-p;  argmax ℓ where τ = 0
        logprobs = ℓ_id/τ − log Σ_v exp(ℓ_v/τ)

    Log-probabilities are over the *full* vocabulary, before truncation and with `unknown_V`, as a trainer computes
    them from the same logits. At temperature 0 they are those of temperature 1.

    Args:
        logits_NV: [N, V], any float type.
        u_N: [N] in [0, 1), one uniform number per row.
        params: temperature and truncation.
        unknown_V: bool [V], True on ids that must not be drawn, such as the padding of the embedding matrix.

    Returns:
        int64 [N] ids and [N] log-probs in nats, float32 (float64 where the logits are).
    """
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    if params.temperature > 0:
        logits_NV = logits_NV / params.temperature
    allowed_NV = logits_NV if unknown_V is None else logits_NV.masked_fill(unknown_V, -math.inf)
    greedy = params.temperature == 0
    ids_N = allowed_NV.argmax(-1) if greedy else inverse_cdf(truncate(allowed_NV, params), u_N)
    return ids_N, logits_NV.gather(-1, ids_N[:, None])[:, 0] - logits_NV.logsumexp(-1)


def inverse_cdf(logits_NV: Tensor, u_N: Tensor) -> Tensor:
    """Return the token at which the cumulative distribution passes u.

        w_v = ⌊2ˢ · exp(ℓ_v − max ℓ)⌋,   id = min { i : Σ_{v ≤ i} w_v > ⌊u · Σ_v w_v⌋ }

    The weights are integers, so their sums are exact in whatever order a device adds them: the draw depends on
    round-off only through exp, and a token of weight zero is never drawn. s is the largest that cannot
    overflow, 62 − ⌈log₂ V⌉ bits (45 for 2¹⁷ tokens); what is lost are tokens 2⁻ˢ times as likely as the likeliest.

    Returns:
        int64 [N].
    """
    bits = 62 - (logits_NV.shape[-1] - 1).bit_length()
    probs_NV = (logits_NV - logits_NV.amax(-1, keepdim=True)).exp()
    cdf_NV = (probs_NV * 2.0**bits).long().cumsum(-1)
    total_N = cdf_NV[:, -1]
    # u · total rounds, at most up to total itself, where no token lies.
    target_N = torch.minimum((u_N * total_N.to(u_N.dtype)).long(), total_N - 1)
    # Only NaN logits leave the range; the sampling loop reports them.
    return torch.searchsorted(cdf_NV, target_N[:, None], right=True)[:, 0].clamp(0, logits_NV.shape[-1] - 1)
