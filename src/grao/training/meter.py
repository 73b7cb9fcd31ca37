"""Sums of metrics between two log lines, over micro-batches, steps and processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from grao.objectives import Mean

Totals = dict[str, tuple[float, float]]
"""Metric → (total, count)."""
Extremes = dict[str, tuple[str, float]]
"""Metric → ("min" or "max", value)."""


class Meter:
    """Collects means as (total, count) and extremes as they are; `merge_meters` turns them into one log line."""

    def __init__(self) -> None:
        self._means: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._extremes: dict[str, tuple[Callable[..., float], float]] = {}

    def add(self, metrics: dict[str, Mean]) -> None:
        """Add totals and counts. A NaN total is a bug upstream and stays visible."""
        for name, mean in metrics.items():
            self._means[name][0] += mean.total.item()
            self._means[name][1] += mean.count.item()

    def add_share(self, name: str, value: float, steps: float) -> None:
        """Add one part of a step's sum; `steps` is 1 for the last part of a step and 0 for the others."""
        self._means[name][0] += value
        self._means[name][1] += steps

    def add_value(self, name: str, value: float) -> None:
        """Add one value of a metric that is averaged over steps."""
        self._means[name][0] += value
        self._means[name][1] += 1

    def add_extreme(self, name: str, value: float, better: Callable[..., float]) -> None:
        """Keep the `min` or `max` of a metric."""
        known = self._extremes.get(name)
        self._extremes[name] = (better, value if known is None else better(known[1], value))

    def state(self) -> tuple[Totals, Extremes]:
        """Return plain numbers, ready to be gathered over processes."""
        extremes = {name: (better.__name__, value) for name, (better, value) in self._extremes.items()}
        return {name: (total, count) for name, (total, count) in self._means.items()}, extremes

    def clear(self) -> None:
        """Start over."""
        self._means.clear()
        self._extremes.clear()


def merge_meters(states: list[tuple[Totals, Extremes]]) -> dict[str, float]:
    """Return one number per metric from the states of all processes; leave out metrics without a count."""
    means: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    extremes: dict[str, float] = {}
    for totals, bounds in states:
        for name, (total, count) in totals.items():
            means[name][0] += total
            means[name][1] += count
        for name, (kind, value) in bounds.items():
            better = max if kind == "max" else min
            extremes[name] = better(extremes.get(name, value), value)
    merged = {name: total / count for name, (total, count) in means.items() if count > 0}
    return dict(sorted({**merged, **extremes}.items()))
