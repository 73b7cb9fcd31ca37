"""Advantages: rewards relative to the group. Unscored members (NaN) are left out of every statistic.

Shapes: ``rewards_PN`` is [P, N], N members of each of P groups. A group with fewer than two scored members, or whose
rewards spread less than `tolerance`, gets zero advantages: nothing is ever divided by an epsilon.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-6
"""Rewards of one group that spread less than this (standard deviation) are equal."""


def standardise(rewards_PN: Tensor, *, tolerance: float = TOLERANCE, ddof: int = 0) -> Tensor:
    """Return Â_i = (R_i − μ) / σ over the scored members of each group.

    GRPO (arXiv 2402.03300) and GRAO (arXiv 2508.07750, Eq. 4). σ is the population's by default (`ddof=0`); then
    |Â| ≤ √(n − 1) for n scored members, with equality where all the others are equal.

    Returns:
        [P, N]; 0 for unscored members and for groups without spread.
    """
    return standardise_against(rewards_PN, rewards_PN, tolerance=tolerance, ddof=ddof)


def standardise_against(
    values_PN: Tensor, rewards_PK: Tensor, *, tolerance: float = TOLERANCE, ddof: int = 0
) -> Tensor:
    """Return (v − μ) / σ with μ, σ over *other* members, such as the reference by its samples' statistics.

    Args:
        values_PN: Values to standardise; NaN gives 0.
        rewards_PK: Members whose scored rewards give μ and σ.
        tolerance: A group with a smaller σ gives 0, for any v.
        ddof: 0 for the population's σ, 1 for the sample's.
    """
    mean_P1, std_P1, spread_P1 = _statistics(rewards_PK, tolerance, ddof)
    scaled_PN = (values_PN - mean_P1) / std_P1.where(spread_P1, torch.ones_like(std_P1))
    return scaled_PN.where(spread_P1 & ~values_PN.isnan(), torch.zeros_like(scaled_PN))


def centre(rewards_PN: Tensor, *, tolerance: float = TOLERANCE) -> Tensor:
    """Return Â_i = R_i − μ, without division by σ (Dr.GRPO, arXiv 2503.20783)."""
    mean_P1, _, spread_P1 = _statistics(rewards_PN, tolerance, ddof=0)
    centred_PN = rewards_PN - mean_P1
    return centred_PN.where(spread_P1 & ~rewards_PN.isnan(), torch.zeros_like(centred_PN))


def leave_one_out(rewards_PN: Tensor, *, tolerance: float = TOLERANCE) -> Tensor:
    """Return Â_i = R_i − mean_{j≠i} R_j = n/(n−1) · (R_i − μ): an unbiased baseline (RLOO, arXiv 2402.14740)."""
    n_P1 = (~rewards_PN.isnan()).sum(1, keepdim=True).to(rewards_PN.dtype)
    return centre(rewards_PN, tolerance=tolerance) * n_P1 / (n_P1 - 1).clamp(min=1)


def _statistics(rewards_PN: Tensor, tolerance: float, ddof: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, standard deviation and "has spread", each [P, 1], over the scored members."""
    scored_PN = ~rewards_PN.isnan()
    n_P1 = scored_PN.sum(1, keepdim=True).to(rewards_PN.dtype)
    mean_P1 = rewards_PN.nansum(1, keepdim=True) / n_P1.clamp(min=1)
    deviation_PN = (rewards_PN - mean_P1).where(scored_PN, torch.zeros_like(rewards_PN))
    std_P1 = (deviation_PN.square().sum(1, keepdim=True) / (n_P1 - ddof).clamp(min=1)).sqrt()
    return mean_P1, std_P1, (n_P1 >= 2) & (std_P1 > tolerance)
