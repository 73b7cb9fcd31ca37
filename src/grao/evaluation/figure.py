"""One figure of an evaluation: a value with its interval, what was left out, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from grao.evaluation.intervals import Estimate

Interval = Literal["wilson", "bootstrap", "jackknife"]
"""How an interval was found: `wilson` and `clustered_wilson`, `cluster_bootstrap`, `jackknife`."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95 % interval; a value or an interval that cannot be had is None, and `reason` says why.

    Example::

        Figure(value=0.62, low=0.52, high=0.71, n=100, unscored=3, interval="wilson")
        Figure(value=None, low=None, high=None, n=0, unscored=100, reason="no answer is scored")
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Prompts behind the value: they are what is resampled, however many answers each has."""
    unscored: int = 0
    """What was left out because a score is missing or not finite: answers, or pairs of them in a comparison."""
    interval: Interval | None = None
    reason: str | None = None
    """Why there is no value, or no interval."""

    @classmethod
    def of(cls, estimate: Estimate, interval: Interval, *, unscored: int = 0) -> Figure:
        """An estimate as a figure."""
        return cls(estimate.value, estimate.low, estimate.high, estimate.n, unscored, interval)

    @classmethod
    def missing(cls, reason: str, *, unscored: int = 0) -> Figure:
        """No value, and why."""
        return cls(None, None, None, 0, unscored, None, reason)
