"""The claims table: the effect of each claim, computed from the records, and its verdict."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import linear_regression
from typing import Any

from research.claim import Claim
from research.experiment_plan import ExperimentPlan
from research.seed_statistics import at, difference_of, estimate_of, over_seeds, paired

Record = Mapping[str, Any]
Labels = dict[str, str]


def claims_table(plan: ExperimentPlan, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return one row per claim and combination of levels of its `each`, in the plan's order."""
    return [_row(plan, claim, here, records) for claim in plan.claims for here in _each(plan, claim)]


def claims_lines(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return lines for a terminal: verdict, claim, effect with interval and n."""
    return [f"{row['verdict']:15s} {row['id']}: {row['claim']}; {_shown(row['effect'])}" for row in table]


def _shown(effect: Mapping[str, Any]) -> str:
    if effect["value"] is None:
        return "no seed has it"
    interval = "" if effect["low"] is None else f" [{effect['low']:.3g}, {effect['high']:.3g}]"
    return f"{effect['value']:.3g}{interval} (n={effect['n']})"


def effects_of(claim: Claim, here: Mapping[str, str], records: Sequence[Record]) -> dict[int, float]:
    """Return a claim's effect by seed at the levels `here`. Seeds without a cell or the metric are left out."""
    of: Labels = {**here, **claim.of}
    less: Labels = {**of, **claim.less}
    if claim.kind == "value":
        found = {seed: record["metrics"].get(claim.metric) for seed, record in at(records, of).items()}
        return {seed: value for seed, value in sorted(found.items()) if value is not None}
    if claim.kind == "speed":
        return paired(at(records, of), at(records, less), _speed(claim.metric))
    if claim.kind == "slope":
        return _slopes(records, of, claim)
    difference = difference_of(claim.metric)
    if claim.kind == "difference":
        return paired(at(records, of), at(records, less), difference)
    gain, other = (
        paired(at(records, {**of, **where}), at(records, {**less, **where}), difference)
        for where in (claim.at, claim.than)
    )
    return {seed: gain[seed] - other[seed] for seed in gain if seed in other}


def _row(plan: ExperimentPlan, claim: Claim, here: Mapping[str, str], records: Sequence[Record]) -> dict[str, Any]:
    effects = list(effects_of(claim, here, records).values())
    nothing = {"value": None, "low": None, "high": None, "n": 0}
    where = f" ({', '.join(f'{axis} {label}' for axis, label in here.items())})" if here else ""
    return {
        "id": "/".join([claim.id, *(plan.level(axis, label).slug for axis, label in here.items())]),
        "claim": f"{claim.claim}{where}",
        "source": claim.source,
        "verdict": claim.verdict(estimate_of(effects)),
        "effect": over_seeds(effects) or nothing,
        "unit": claim.unit,
        "plan": plan.name,
        "rule": claim.rule,
    }


def _each(plan: ExperimentPlan, claim: Claim) -> list[Labels]:
    labels = [[level.label for level in plan.axes[axis]] for axis in claim.each]
    return [dict(zip(claim.each, chosen, strict=True)) for chosen in itertools.product(*labels)]


def _speed(metric: str) -> Callable[[Record, Record], float | None]:
    """Return the first record's steps until it reaches the second's final value, over the second's own steps to it.

    Measured points count. If the first never reaches the value, it counts as reaching it one point after its last,
    which favours it. None if the second did not rise, or a record has no curve.
    """

    def ratio(first: Record, second: Record) -> float | None:
        if "curve" not in first or "curve" not in second:
            return None
        steps, values = first["curve"]["step"], first["curve"][metric]
        target = second["curve"][metric][-1]
        needed = _reached(second["curve"]["step"], second["curve"][metric], target)
        if not needed:
            return None
        own = _reached(steps, values, target)
        return (steps[-1] + steps[-1] - steps[-2] if own is None else own) / needed

    return ratio


def _slopes(records: Sequence[Record], of: Mapping[str, str], claim: Claim) -> dict[int, float]:
    """Return the least-squares slope of log metric over log steps by seed, for seeds with two lengths or more."""
    points: dict[int, list[tuple[float, float]]] = {}
    labels = dict.fromkeys(record["identity"]["axes"][claim.over] for record in records)
    for label in labels:
        for seed, record in at(records, {**of, str(claim.over): label}).items():
            if record["metrics"].get(claim.metric):
                point = (math.log(record["metrics"]["steps"]), math.log(record["metrics"][claim.metric]))
                points.setdefault(seed, []).append(point)
    return {
        seed: linear_regression(*zip(*own, strict=True)).slope
        for seed, own in sorted(points.items())
        if len({x for x, _ in own}) > 1
    }


def _reached(steps: Sequence[int], values: Sequence[float], target: float) -> int | None:
    """Return the first measured step at which the curve reaches the target, or None."""
    return next((step for step, value in zip(steps, values, strict=True) if value >= target), None)
