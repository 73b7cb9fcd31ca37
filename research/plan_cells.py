"""From a plan to its cells: levels and settings applied to the base configuration, and steps divided."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from grao.configuration import build, with_values
from grao.demo.run_demo import divide
from research.cell import Cell, Purpose
from research.experiment_plan import ExperimentPlan
from research.seeded_task import TaskConfig

OWN = {
    "data": "the task's rows are the data",
    "rewards": "the task has its own reward",
    "evaluation": "set curves.every and curves.prompts instead",
    "model.path": "the base model is trained for the task",
    "trainer.output_dir": "the runner sets it",
    "trainer.logging_steps": "every step is logged, to count the compute",
    "trainer.seed": "the plan's seeds are the runs' seeds",
}
"""Keys that a plan cannot set, with the reason."""


def cells_to_test(plan: ExperimentPlan, chosen: Mapping[str, Mapping[str, Any]]) -> list[Cell]:
    """Return every combination of levels with every seed.

    Args:
        chosen: Chosen settings by `tuned_key`; empty if nothing was tuned.
    """
    return [
        _cell(plan, "test", axes, seed, dict(chosen.get(tuned_key(plan, axes), {})), "")
        for axes in plan.combinations()
        for seed in plan.seeds
    ]


def cells_to_tune(plan: ExperimentPlan) -> list[Cell]:
    """Return every setting of every tuned combination with every tuning seed."""
    if plan.tuning is None:
        return []
    first = {axis: levels[0].label for axis, levels in plan.axes.items()}
    return [
        _cell(plan, "tuning", {**first, **axes}, seed, setting, f"--setting{number}")
        for axes in plan.combinations(plan.tuning.per)
        for number, setting in enumerate(plan.tuned_settings(axes[plan.tuning.per[0]]))
        for seed in plan.tuning.seeds
    ]


def tuned_key(plan: ExperimentPlan, axes: Mapping[str, str]) -> str:
    """Return the levels of the tuned axes as text: the key of a combination's tuning."""
    names = [] if plan.tuning is None else plan.tuning.per
    return json.dumps({name: axes[name] for name in names}, ensure_ascii=False)


def _cell(
    plan: ExperimentPlan, purpose: Purpose, axes: dict[str, str], seed: int, setting: dict[str, Any], tail: str
) -> Cell:
    levels = [plan.level(axis, label) for axis, label in axes.items()]
    changes = [change for level in levels for change in level.overrides.items()]
    whole = with_values(plan.base, [*changes, *setting.items()])
    _refuse_own(plan.base, [*dict(changes), *setting])
    task = build(TaskConfig, whole.pop("task", {}), "task")
    factor = 1.0
    for level in levels:
        factor *= level.steps
    others = {axis: levels[0].label for axis, levels in plan.axes.items()} | plan.answers_at
    shown = all(axes[axis] == label for axis, label in others.items() if axis != plan.compared)
    return Cell(
        purpose=purpose,
        axes=axes,
        seed=seed,
        setting=setting,
        name="--".join([*(level.slug for level in levels), f"seed{seed}"]) + tail,
        task=task,
        run=_with_steps(whole, factor),
        trained=all(level.trained for level in levels),
        curves=plan.curves if purpose == "test" else None,
        series=tuple(plan.series) if purpose == "test" else (),
        bounds=plan.bounds and purpose == "test",
        keep_answers=purpose == "test" and shown and seed == plan.seeds[0],
    )


def _refuse_own(base: Mapping[str, Any], keys: Iterable[str]) -> None:
    given = {*base, *keys} | {
        f"{section}.{key}" for section, below in base.items() if isinstance(below, dict) for key in below
    }
    for key, why in OWN.items():
        if any(one == key or one.startswith(f"{key}.") for one in given):
            raise ValueError(f"a plan cannot set {key}: {why}")


def _with_steps(run: dict[str, Any], factor: float) -> dict[str, Any]:
    """Multiply the run's steps by `factor`. Stages of a chain without steps share what is left."""
    trainer = dict(run.get("trainer", {}))
    if "max_steps" not in trainer:
        raise ValueError("base.trainer.max_steps is missing: set the number of steps of every method")
    steps = round(trainer["max_steps"] * factor)
    objective = run.get("objective")
    if not isinstance(objective, list):
        return {**run, "trainer": {**trainer, "max_steps": steps}}
    del trainer["max_steps"]
    left = steps - sum(stage.get("steps", 0) for stage in objective)
    shares = iter(divide(left, sum("steps" not in stage for stage in objective)))
    stages = [stage if "steps" in stage else {**stage, "steps": next(shares)} for stage in objective]
    return {**run, "objective": stages, "trainer": trainer}
