"""Tuning: every setting of a grid with every tuning seed on validation prompts; the best mean is chosen."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from research.experiment_plan import ExperimentPlan
from research.plan_cells import tuned_key

Record = Mapping[str, Any]


def tuning_table(plan: ExperimentPlan, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the settings tried for every tuned combination, and the chosen one.

    A setting's value is the mean of the metric over the tuning seeds; a run that diverged takes the setting out (its
    value is None). Of equal values the setting that the grid lists first is chosen.

    Args:
        plan: of the records.
        records: of all tuning cells.

    Raises:
        ValueError: every setting of a method diverged.
    """
    assert plan.tuning is not None
    found: dict[str, dict[int, list[float | None]]] = {}
    for record in records:
        identity = record["identity"]
        key = tuned_key(plan, identity["axes"])
        settings = plan.tuned_settings(identity["axes"][plan.tuning.per[0]])
        value = record["metrics"].get(plan.tuning.metric)
        found.setdefault(key, {}).setdefault(settings.index(identity["setting"]), []).append(value)
    return [
        _row(plan, axes, found[key])
        for axes in plan.combinations(plan.tuning.per)
        if (key := tuned_key(plan, axes)) in found
    ]


def _row(plan: ExperimentPlan, axes: Mapping[str, str], values: Mapping[int, list[float | None]]) -> dict[str, Any]:
    assert plan.tuning is not None
    settings = plan.tuned_settings(axes[plan.tuning.per[0]])
    grid: list[dict[str, Any]] = [
        {"setting": setting, "value": _mean(values[number]), "values": values[number]}
        for number, setting in enumerate(settings)
    ]
    best = max(grid, key=lambda tried: -math.inf if tried["value"] is None else tried["value"])
    if best["value"] is None:
        raise ValueError(
            f"all settings of {', '.join(axes.values())} diverged while tuning: use smaller learning rates in its grid"
        )
    return {"axes": dict(axes), "grid": grid, "chosen": best["setting"]}


def chosen_settings(plan: ExperimentPlan, table: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the chosen setting by `tuned_key`."""
    return {tuned_key(plan, row["axes"]): row["chosen"] for row in table}


def sha256(content: bytes) -> str:
    """Return the SHA-256 of a file's bytes."""
    return hashlib.sha256(content).hexdigest()


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
