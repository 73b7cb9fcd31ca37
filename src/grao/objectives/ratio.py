"""Likelihood ratios: to the behaviour policy, to the frozen policy, and to the engine that drew the samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from grao.groups import GroupBatch
from grao.objectives.likelihood import zero_masked
from grao.objectives.objective import Mean

LOG_RATIO_BOUND = 20.0
"""Nats. Log-ratios are clamped to ± this before `exp`, so that no ratio is infinite: e²⁰ ≈ 4.9e8."""


def check_clip(clip_low: float, clip_high: float) -> None:
    """Raise a `ValueError` unless both are distances from a ratio of 1."""
    if not (0 <= clip_low <= 1 and clip_high >= 0):
        raise ValueError(
            f"clip_low is {clip_low} and clip_high {clip_high}; they are distances from a ratio of 1, "
            "so 0 ≤ clip_low ≤ 1 and clip_high ≥ 0"
        )


def check_sampling_cap(cap: float | None) -> None:
    """Raise a `ValueError` unless the cap leaves samples of an exact engine alone, whose ratio is 1."""
    if cap is not None and not 1 <= cap < math.inf:
        raise ValueError(f"sampling_cap is {cap}; give a number of 1 or more, or null for no correction")


def likelihood_ratio(logprobs: Tensor, behaviour_logprobs: Tensor | None, mask: Tensor) -> Tensor:
    """Return r = π_θ / π_behaviour of every token, 1 where masked; differentiable within `LOG_RATIO_BOUND`.

    Without behaviour log-probs (one update follows each rollout) it is 1 exactly, with the gradient of log π_θ.
    """
    constant = logprobs.detach() if behaviour_logprobs is None else behaviour_logprobs
    # Masked before exp, not after: its gradient there would be 0 · inf.
    return zero_masked(logprobs - constant, mask).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp()


def clipped_gain(
    ratio: Tensor, advantages: Tensor, mask: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, dict[str, Mean]]:
    """Return min(r Â, clip(r, 1−ε_low, 1+ε_high) Â) of every token (PPO, arXiv 1707.06347, Eq. 7), to be maximised.

    Returns:
        The gain, and under ``clip_ratio/…`` the share of tokens whose gain is clipped: low, high, either.
    """
    gain = torch.minimum(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)
    low = (ratio < 1 - clip_low) & (advantages < 0) & mask
    high = (ratio > 1 + clip_high) & (advantages > 0) & mask
    tokens = mask.sum()
    metrics = {
        "clip_ratio/low_mean": Mean(low.sum(), tokens),
        "clip_ratio/high_mean": Mean(high.sum(), tokens),
        "clip_ratio/region_mean": Mean((low | high).sum(), tokens),
    }
    return gain, metrics


def sampling_weight(
    batch: GroupBatch, logprobs_PMT: Tensor, mask_PGT: Tensor, cap: float | None
) -> tuple[Tensor | None, dict[str, Mean]]:
    """Return w = min(π_behaviour / π_engine, cap) of every sample token, constant: truncated importance sampling.

    An engine with its own numerics draws from π_engine, not from the policy. w corrects expectations over samples for
    that (Ionides 2008; for language models F. Yao et al., "Your efficient RL framework secretly brings you off-policy
    RL training", 2025). π_behaviour is the policy itself where the batch holds no behaviour log-probs.

    Args:
        batch: Its `sampling_logprobs_PMT` are log π_engine.
        logprobs_PMT: log π_θ.
        mask_PGT: bool, the tokens that count in the metrics.
        cap: Largest weight; None = no correction.

    Returns:
        w [P, G, T], or None where nothing is to be corrected: an exact engine, no log-probs of it, or no cap. And the
        metrics `sampling/weight`, its mean, and `sampling/cap_ratio`, the share of tokens whose ratio was cut.
    """
    if cap is None or batch.sampling_is_exact or batch.sampling_logprobs_PMT is None:
        return None, {}
    behaviour_PMT = logprobs_PMT if batch.behaviour_logprobs_PMT is None else batch.behaviour_logprobs_PMT
    engine_PGT = batch.samples(batch.sampling_logprobs_PMT).to(logprobs_PMT.dtype)
    ratio_PGT = likelihood_ratio(batch.samples(behaviour_PMT.detach()), engine_PGT, mask_PGT)
    weight_PGT, tokens = ratio_PGT.clamp(max=cap), mask_PGT.sum()
    metrics = {
        "sampling/weight": Mean(zero_masked(weight_PGT, mask_PGT).sum(), tokens),
        "sampling/cap_ratio": Mean(((ratio_PGT > cap) & mask_PGT).sum(), tokens),
    }
    return weight_PGT, metrics


def k3(logprobs: Tensor, frozen_logprobs: Tensor) -> Tensor:
    """Return k3 = π_f/π − log(π_f/π) − 1 ≥ 0 per token, in nats. Its mean over samples of π is KL(π ‖ π_f).

    Above `LOG_RATIO_BOUND` it continues along its tangent: finite, and its gradient still pulls towards π_f.
    Source: J. Schulman, "Approximating KL divergence" (2020); GRPO's Eq. 4.
    """
    log_ratio = frozen_logprobs - logprobs
    bounded = log_ratio.clamp(max=LOG_RATIO_BOUND)
    return bounded.exp() * (1 + (log_ratio - bounded)) - log_ratio - 1
