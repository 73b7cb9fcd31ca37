"""Statistics over seeds: means with Student's interval, curves on common points, paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from grao.evaluation import Estimate, student_mean

Record = Mapping[str, Any]
POINTS = 13
"""Of a curve over compute: seeds have different points, so all are interpolated."""


def over_seeds(values: Sequence[float]) -> dict[str, Any] | None:
    """Return mean and Student's 95 % interval: no interval for one seed, None for none."""
    estimate = estimate_of(values)
    if estimate is not None:
        return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
    return {"value": values[0], "low": None, "high": None, "n": 1} if len(values) else None


def estimate_of(values: Sequence[float]) -> Estimate | None:
    """Return the same as an estimate, or None for fewer than two seeds."""
    return student_mean(values) if len(values) >= 2 else None


def at(records: Sequence[Record], axes: Mapping[str, str]) -> dict[int, Record]:
    """Return the records of these levels by seed, without diverged ones."""
    return {
        record["identity"]["seed"]: record
        for record in records
        if record["diverged"] is None
        and all(record["identity"]["axes"][axis] == label for axis, label in axes.items())
    }


def paired(
    first: Mapping[int, Record], second: Mapping[int, Record], effect: Callable[[Record, Record], float | None]
) -> dict[int, float]:
    """Return an effect of two records by seed. Seeds that lack a record or the effect are left out."""
    found = {seed: effect(first[seed], second[seed]) for seed in sorted(first) if seed in second}
    return {seed: value for seed, value in found.items() if value is not None}


def difference_of(metric: str) -> Callable[[Record, Record], float | None]:
    """Return the effect metric(first) − metric(second), None if one lacks it."""

    def effect(first: Record, second: Record) -> float | None:
        a, b = first["metrics"].get(metric), second["metrics"].get(metric)
        return None if a is None or b is None else a - b

    return effect


def curve_by_step(records: Sequence[Record], part: str, name: str, x_label: str) -> dict[str, Any] | None:
    """Return a curve over the steps that all seeds share, from `record[part]`, or None."""
    having = [record[part] for record in records if name in record.get(part, {})]
    if not having:
        return None
    steps = [step for step in having[0]["step"] if all(step in one["step"] for one in having)]
    columns = [[one[name][one["step"].index(step)] for one in having] for step in steps]
    return _curve(steps, [[value for value in column if value is not None] for column in columns], x_label)


def curve_by_compute(records: Sequence[Record], name: str, spent: str, x_label: str) -> dict[str, Any] | None:
    """Return a curve over compute, at equal distances up to the smallest total, linear between points."""
    having = [record["curve"] for record in records if name in record.get("curve", {})]
    if not having:
        return None
    points = np.linspace(0.0, min(one[spent][-1] for one in having), POINTS)
    values = [np.interp(points, one[spent], one[name]) for one in having]
    return _curve(points.tolist(), [[float(v) for v in column] for column in zip(*values, strict=True)], x_label)


def _curve(x: Sequence[float], columns: Sequence[Sequence[float]], x_label: str) -> dict[str, Any]:
    found = [(place, over_seeds(column)) for place, column in zip(x, columns, strict=True)]
    known = [(place, estimate) for place, estimate in found if estimate is not None]
    return {
        "x": [place for place, _ in known],
        **{key: [estimate[key] for _, estimate in known] for key in ("value", "low", "high")},
        "x_label": x_label,
    }
