"""One metric of an evaluation: a value with its interval, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from grao.evaluation.intervals import cluster_bootstrap, clustered_wilson

Interval = Literal["wilson", "bootstrap", "jackknife"]
"""The kind of interval: `clustered_wilson`, `cluster_bootstrap` or `jackknife` of `grao.evaluation.intervals`."""

ONE_PROMPT = "no interval: one prompt has no spread"


@dataclass(frozen=True, slots=True)
class Metric:
    """A value with its 95 % interval. A missing value or interval is None, and `reason` says why.

    Example::

        Metric(value=0.62, low=0.52, high=0.71, n=100, unscored=3, interval="wilson")
        Metric(value=None, low=None, high=None, n=0, unscored=100, reason="no answer is scored")
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Prompts behind the value. Intervals are over prompts, however many answers each has."""
    unscored: int = 0
    """Answers left out because something that the value needs is missing or not finite."""
    interval: Interval | None = None
    reason: str | None = None
    """Why there is no value, or no interval."""

    @classmethod
    def missing(cls, reason: str, unscored: int = 0) -> Metric:
        """Make a metric without a value."""
        return cls(None, None, None, 0, unscored, None, reason)

    @classmethod
    def without_interval(cls, value: float, n: int, reason: str, unscored: int = 0) -> Metric:
        """Make a metric that has only a value."""
        return cls(value, None, None, n, unscored, None, reason)


def proportion(
    successes: Sequence[float],
    sizes: Sequence[float] | None = None,
    *,
    units: int | None = None,
    unscored: int = 0,
    empty: str,
) -> Metric:
    """Return Σ successes / Σ sizes over prompts, with Wilson's interval for clusters.

    Args:
        successes: per prompt; shares in [0, 1] if `sizes` is None, then all prompts have the same weight.
        sizes: units per prompt.
        units: answers behind the shares.
        unscored: of the metric.
        empty: reason if there are no prompts.
    """
    if not len(successes):
        return Metric.missing(empty, unscored)
    found = clustered_wilson(successes, sizes, units=units)
    return Metric(found.value, found.low, found.high, found.n, unscored, "wilson")


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Settings of all bootstraps of a summary."""

    resamples: int = 2000
    seed: int = 0

    def mean(
        self, sums: Sequence[float], sizes: Sequence[float] | None = None, *, unscored: int = 0, empty: str
    ) -> Metric:
        """Return Σ sums / Σ sizes over prompts, or the mean of `sums` if `sizes` is None. See `proportion`."""
        if not len(sums):
            return Metric.missing(empty, unscored)
        if len(sums) == 1:
            return Metric.without_interval(sums[0] / (sizes[0] if sizes else 1), 1, ONE_PROMPT, unscored)
        found = cluster_bootstrap(sums, sizes, resamples=self.resamples, seed=self.seed)
        return Metric(found.value, found.low, found.high, found.n, unscored, "bootstrap")
