"""The likelihood ratio to the behaviour policy, and the gain that is clipped in it."""

from __future__ import annotations

import torch
from torch import Tensor

from grao.objectives.likelihood import zero_masked
from grao.objectives.objective import Mean


def check_clip(clip_low: float, clip_high: float) -> None:
    """Raise a `ValueError` unless both are distances from a ratio of 1."""
    if not (0 <= clip_low <= 1 and clip_high >= 0):
        raise ValueError(
            f"clip_low is {clip_low} and clip_high {clip_high}; they are distances from a ratio of 1, "
            "so 0 ≤ clip_low ≤ 1 and clip_high ≥ 0"
        )


def likelihood_ratio(logprobs: Tensor, behaviour_logprobs: Tensor | None, mask: Tensor) -> Tensor:
    """r = π_θ / π_behaviour of every token, 1 where masked; differentiable.

    Without behaviour log-probs (one update follows each collection) it is 1 exactly, with the gradient of log π_θ.
    """
    constant = logprobs.detach() if behaviour_logprobs is None else behaviour_logprobs
    # Masked before exp, not after: its gradient there would be 0 · inf.
    return zero_masked(logprobs - constant, mask).exp()


def clipped_gain(
    ratio: Tensor, advantages: Tensor, mask: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, dict[str, Mean]]:
    """min(r Â, clip(r, 1−ε_low, 1+ε_high) Â) of every token (PPO, arXiv 1707.06347, Eq. 7), to be maximised.

    Returns:
        the gain, and under ``clip_ratio/…`` the share of tokens whose gain is clipped: low, high, either.
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
