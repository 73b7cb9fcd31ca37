"""One figure of an evaluation: a value with its interval, what was left out, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from grao.evaluation.intervals import Estimate, cluster_bootstrap, clustered_wilson

Interval = Literal["wilson", "bootstrap", "jackknife"]
"""How an interval was found: `clustered_wilson`, `cluster_bootstrap`, `jackknife` (`grao.evaluation.intervals`)."""

ONE_PROMPT = "no interval: one prompt has no spread"


@dataclass(frozen=True, slots=True)
class Metric:
    """A value with its 95 % interval; a value or an interval that cannot be had is None, and `reason` says why.

    Example::

        Metric(value=0.62, low=0.52, high=0.71, n=100, unscored=3, interval="wilson")
        Metric(value=None, low=None, high=None, n=0, unscored=100, reason="no answer is scored")
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Prompts behind the value: they are what is resampled, however many answers each has."""
    unscored: int = 0
    """Answers that do not enter the value because something that it needs is missing or not finite."""
    interval: Interval | None = None
    reason: str | None = None
    """Why there is no value, or no interval."""

    @classmethod
    def of(cls, estimate: Estimate, interval: Interval, unscored: int = 0) -> Metric:
        """An estimate as a figure."""
        return cls(estimate.value, estimate.low, estimate.high, estimate.n, unscored, interval)

    @classmethod
    def missing(cls, reason: str, unscored: int = 0) -> Metric:
        """No value, and why."""
        return cls(None, None, None, 0, unscored, None, reason)

    @classmethod
    def bare(cls, value: float, n: int, reason: str, unscored: int = 0) -> Metric:
        """A value without an interval, and why."""
        return cls(value, None, None, n, unscored, None, reason)


def proportion(
    successes: Sequence[float],
    sizes: Sequence[float] | None = None,
    *,
    units: int | None = None,
    unscored: int = 0,
    empty: str,
) -> Metric:
    """Σ successes / Σ sizes over prompts, with Wilson's interval, clustered where prompts have several answers.

    Args:
        successes: of each prompt; shares in [0, 1] where `sizes` is None, then prompts weigh alike.
        sizes: units of each prompt.
        units: answers behind the shares.
        unscored: for the figure.
        empty: the reason if there are no prompts.
    """
    if not len(successes):
        return Metric.missing(empty, unscored)
    sizes = [1.0] * len(successes) if sizes is None else sizes
    return Metric.of(clustered_wilson(successes, sizes, units=units), "wilson", unscored)


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How bootstraps draw."""

    resamples: int = 2000
    seed: int = 0

    def mean(
        self, sums: Sequence[float], sizes: Sequence[float] | None = None, *, unscored: int = 0, empty: str
    ) -> Metric:
        """Σ sums / Σ sizes over prompts; the mean of prompts' values where `sizes` is None. As `proportion`."""
        if not len(sums):
            return Metric.missing(empty, unscored)
        sizes = [1.0] * len(sums) if sizes is None else sizes
        if len(sums) == 1:
            return Metric.bare(sums[0] / sizes[0], 1, ONE_PROMPT, unscored)
        estimate = cluster_bootstrap(sums, sizes, resamples=self.resamples, seed=self.seed)
        return Metric.of(estimate, "bootstrap", unscored)
