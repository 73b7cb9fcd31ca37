"""summary.json: everything a report shows of an experiment, computed from the records of its cells."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from research.claim_effects import claims_table
from research.experiment_plan import ExperimentPlan
from research.seed_statistics import (
    at,
    curve_by_compute,
    curve_by_step,
    difference_of,
    over_seeds,
    paired,
)

Record = Mapping[str, Any]

METRICS: dict[str, tuple[str, str, str]] = {
    "score": ("score", "rubric points", "higher"),
    "ras": ("RAS", "share of prompts", "higher"),
    "ras_ties_half": ("RAS, ties half", "share of prompts", "higher"),
    "nag": ("NAG", "net share of prompts", "higher"),
    "nag_win": ("NAG, wins", "share of prompts", "higher"),
    "verdict": ("verdict", "mean of 1, 0, −1", "higher"),
    "win_rate": ("wins", "share of prompts", "higher"),
    "tie_rate": ("ties", "share of prompts", "none"),
    "loss_rate": ("losses", "share of prompts", "lower"),
    "kl": ("KL to the base", "nats an answer", "none"),
    "length": ("length", "tokens an answer", "none"),
    "tokens_sampled": ("tokens sampled", "tokens", "lower"),
    "tokens_trained": ("tokens trained on", "tokens", "lower"),
    "flops": ("compute", "FLOPs, approximate", "lower"),
    "cpu_seconds": ("processor time", "s", "lower"),
}
"""Name → label, unit, which way is better. Other metrics are their own label."""

COMPARED = ("score", "ras", "nag", "kl")
"""Metrics with differences between all pairs of methods."""


def summarise(
    plan: ExperimentPlan,
    records: Sequence[Record],
    *,
    tuning: Sequence[Mapping[str, Any]],
    seconds: Mapping[str, float],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the summary as plain data; docs/experiments.md describes it.

    Args:
        plan: what was run.
        records: of all cells.
        tuning: the table of `tuning_table`; empty where nothing was tuned.
        seconds: processor time by name of the cell, as far as known.
        provenance: what made the records.
    """
    aggregates = [_aggregate(plan, axes, records, seconds) for axes in plan.combinations()]
    names = dict.fromkeys(name for one in aggregates for name in one["metrics"])
    return {
        "plan": {
            "name": plan.name,
            "title": plan.title,
            "description": plan.description,
            "base": plan.base,
            "axes": {
                axis: [plan.shown({axis: level.label})[axis] for level in levels] for axis, levels in plan.axes.items()
            },
            "compared": plan.compared,
            "seeds": plan.seeds,
            "metrics": {name: _described(plan, name) for name in names},
        },
        "aggregates": aggregates,
        "differences": _differences(plan, records),
        "claims": claims_table(plan, records),
        "tuning": list(tuning),
        "answers": _answers(plan, records),
        "provenance": dict(provenance),
    }


def _described(plan: ExperimentPlan, name: str) -> dict[str, str]:
    if name.startswith("steps_to_"):
        reached = name.removeprefix("steps_to_")
        label = f"steps to {METRICS[reached][0]} {plan.curves.thresholds[reached]:g}"
        return {"label": label, "unit": "steps", "better": "lower"}
    label, unit, better = METRICS.get(name, (name.replace("_", " "), "", "none"))
    return {"label": label, "unit": unit, "better": better}


def _aggregate(
    plan: ExperimentPlan, axes: Mapping[str, str], records: Sequence[Record], seconds: Mapping[str, float]
) -> dict[str, Any]:
    found = list(at(records, axes).values())
    metrics = _over_records([record["metrics"] for record in found])
    times = [seconds[record["name"]] for record in found if record["name"] in seconds]
    if found and times and "tokens_trained" in metrics:
        metrics["cpu_seconds"] = over_seeds(times)
    categories = dict.fromkeys(category for record in found for category in record["by_category"])
    return {
        "axes": plan.shown(axes),
        "n": len(found),
        "diverged": len(plan.seeds) - len(found),
        "metrics": metrics,
        "by_category": {
            category: _over_records([_scores(record["by_category"][category]) for record in found])
            for category in categories
        },
        "rewards": {
            key: sum(record["rewards"][key] for record in found) / len(found)
            for key in (found[0]["rewards"] if found else ())
        },
        "curves": _curves(found),
    }


def _scores(category: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in category.items() if name != "n"}


def _over_records(mappings: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return each key over the records that have it, in order of appearance."""
    names = dict.fromkeys(name for mapping in mappings for name in mapping)
    return {name: over_seeds([m[name] for m in mappings if name in m]) for name in names}


def _curves(records: Sequence[Record]) -> dict[str, Any]:
    """Return held-out score, RAS and verdict by step and compute, and training metrics by step."""
    curves: dict[str, Any] = {}
    for name in ("score", "ras", "verdict"):
        curves[name] = curve_by_step(records, "curve", name, "steps")
        curves[f"{name}_by_compute"] = curve_by_compute(records, name, "flops", "FLOPs, approximate")
    kept = dict.fromkeys(name for record in records for name in record.get("series", {}) if name != "step")
    curves |= {name: curve_by_step(records, "series", name, "steps") for name in kept}
    return {name: curve for name, curve in curves.items() if curve is not None}


def _differences(plan: ExperimentPlan, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return differences of each level to each earlier one, paired by seed, per combination of other axes."""
    rows = []
    labels = [level.label for level in plan.axes[plan.compared]]
    for others in plan.combinations([axis for axis in plan.axes if axis != plan.compared]):
        for less, of in itertools.combinations(labels, 2):
            first, second = (at(records, {**others, plan.compared: label}) for label in (of, less))
            for metric in COMPARED:
                effect = over_seeds(list(paired(first, second, difference_of(metric)).values()))
                if effect is not None:
                    rows.append({"axes": others, "metric": metric, "of": of, "less": less, **effect})
    return rows


def _answers(plan: ExperimentPlan, records: Sequence[Record]) -> dict[str, Any] | None:
    """Return the answers of each compared level, for the one seed that has them."""
    kept = [record for record in records if "answers" in record]
    if not kept:
        return None
    shared = ("prompts", "categories", "references", "reference_scores")
    first = kept[0]
    return {
        "axes": {axis: label for axis, label in first["identity"]["axes"].items() if axis != plan.compared},
        "seed": first["identity"]["seed"],
        **{key: first["answers"][key] for key in shared},
        "methods": {
            record["identity"]["axes"][plan.compared]: {key: record["answers"][key] for key in ("answers", "scores")}
            for record in kept
        },
    }
