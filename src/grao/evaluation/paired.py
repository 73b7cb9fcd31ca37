"""Two lists of rewards for the same prompts, compared prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from grao.evaluation.intervals import Estimate, bootstrap_mean

Rewards = Sequence[float | None]
"""One reward a prompt; None = unscored."""


class WinTieLoss(NamedTuple):
    """How many prompts were answered better than, as well as, and worse than by the other side."""

    wins: int
    ties: int
    losses: int

    @property
    def n(self) -> int:
        """Prompts compared."""
        return sum(self)


def scored_pairs(a: Rewards, b: Rewards) -> list[tuple[float, float]]:
    """(a_i, b_i) of the prompts where both sides are scored: an unscored answer takes its pair out.

    Raises:
        ValueError: the lists differ in length, so they cannot be about the same prompts.
    """
    if len(a) != len(b):
        raise ValueError(
            f"{len(a)} rewards against {len(b)}: a paired comparison needs both sides on the same prompts, in the "
            "same order, with None where an answer is unscored"
        )
    return [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]


def compare(a: Rewards, b: Rewards) -> WinTieLoss:
    """How often a_i > b_i, a_i = b_i, a_i < b_i, over the scored pairs.

    Raises:
        ValueError: the lists differ in length.
    """
    return _counted(scored_pairs(a, b))


def compare_all(a: Rewards, b: Rewards) -> WinTieLoss:
    """How often a_i > b_j, a_i = b_j, a_i < b_j over all scored i and j: several answers of two models to one prompt.

    The lists may differ in length: nothing ties the i-th answer of one model to the i-th of the other.
    """
    return _counted([(x, y) for x in a if x is not None for y in b if y is not None])


def _counted(pairs: Sequence[tuple[float, float]]) -> WinTieLoss:
    wins, losses = sum(x > y for x, y in pairs), sum(x < y for x, y in pairs)
    return WinTieLoss(wins, len(pairs) - wins - losses, losses)


def paired_difference(
    a: Rewards, b: Rewards, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """How much more a earns than b on the same prompts: the mean of a_i − b_i over the n scored pairs.

    The interval is a percentile bootstrap that draws *prompts*, each with both of its rewards. What makes a prompt
    hard for both models falls out of the difference: two models whose own intervals overlap may well differ by this
    one. In units of the reward.

    Raises:
        ValueError: the lists differ in length, or no pair is scored on both sides.
    """
    differences = [x - y for x, y in some_pairs(a, b)]
    return bootstrap_mean(differences, confidence=confidence, resamples=resamples, seed=seed)


def some_pairs(a: Rewards, b: Rewards) -> list[tuple[float, float]]:
    """`scored_pairs`, at least one.

    Raises:
        ValueError: the lists differ in length, or no pair is scored on both sides.
    """
    pairs = scored_pairs(a, b)
    if not pairs:
        raise ValueError(f"none of {len(a)} prompts is scored on both sides: there is nothing to compare")
    return pairs
