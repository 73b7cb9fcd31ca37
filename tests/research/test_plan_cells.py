"""From a plan to cells: overrides in order, settings on top, steps counted out, and what is a cell's identity."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grao.configuration import build, with_values
from research.cell import Cell
from research.experiment_plan import Curves, ExperimentPlan
from research.plan_cells import cells_to_test, cells_to_tune, tuned_key
from research.seeded_task import SeededTask, TaskConfig

PLAN: dict[str, Any] = {
    "name": "small",
    "title": "",
    "description": "",
    "base": {
        "task": {"eps": 0.1, "n_train": 64},
        "objective": {"name": "grao"},
        "rollout": {"num_generations": 4},
        "trainer": {"max_steps": 10, "learning_rate": 1e-3},
    },
    "axes": {
        "method": [
            {"label": "base", "trained": False},
            {
                "label": "chain",
                "overrides": {"objective": [{"name": "sft", "learning_rate": 0.1}, {"name": "grpo"}]},
                "grid": {"objective.1.learning_rate": [0.2, 0.3]},
                "steps": 1.5,
            },
            {"label": "GRAO", "overrides": {"objective.beta": 0.2}, "grid": {"objective.beta": [0.5, 1.0]}},
        ],
        "regime": [{"label": "never", "overrides": {"task.eps": 0.0}}, {"label": "often"}],
    },
    "seeds": [0, 1],
    "tuning": {"per": ["method"], "seeds": [100]},
    "series": ["kl"],
    "curves": {"every": 5, "prompts": 8},
    "answers_at": {"regime": "often"},
}


def plan(*changes: tuple[str, Any]) -> ExperimentPlan:
    return build(ExperimentPlan, with_values(PLAN, changes))


def cell(name: str, cells: list[Cell]) -> Cell:
    return next(one for one in cells if one.name == name)


def test_every_combination_with_every_seed() -> None:
    """Oracle: 3 methods × 2 regimes × 2 seeds, with names of their own."""
    cells = cells_to_test(plan(), {})
    assert len({one.name for one in cells}) == len(cells) == 12
    assert [one.name for one in cells[:3]] == ["base--never--seed0", "base--never--seed1", "base--often--seed0"]
    assert [one.trained for one in cells] == [False] * 4 + [True] * 8


def test_tuning_tries_the_grid_at_the_first_level_of_other_axes() -> None:
    """Oracle: 2 methods × 2 settings × 1 seed, by hand; no curves, no answers: only the end counts."""
    cells = cells_to_tune(plan())
    assert [(one.name, one.setting) for one in cells] == [
        ("chain--never--seed100--setting0", {"objective.1.learning_rate": 0.2}),
        ("chain--never--seed100--setting1", {"objective.1.learning_rate": 0.3}),
        ("grao--never--seed100--setting0", {"objective.beta": 0.5}),
        ("grao--never--seed100--setting1", {"objective.beta": 1.0}),
    ]
    assert all((one.curves, one.series, one.keep_answers) == (None, (), False) for one in cells)
    assert cells_to_tune(plan(("tuning", None))) == []


def test_what_was_chosen_is_laid_over_the_level() -> None:
    """Oracle: by hand; the level's own value where nothing was chosen."""
    axes = {"method": "GRAO", "regime": "often"}
    key = tuned_key(plan(), axes)
    assert json.loads(key) == {"method": "GRAO"}
    chosen = cell("grao--often--seed0", cells_to_test(plan(), {key: {"objective.beta": 1.0}}))
    assert chosen.run["objective"] == {"name": "grao", "beta": 1.0}
    assert chosen.setting == {"objective.beta": 1.0}
    assert cell("grao--often--seed0", cells_to_test(plan(), {})).run["objective"]["beta"] == 0.2


def test_a_chain_divides_the_steps_of_its_level() -> None:
    """Oracle: 10 × 1.5 = 15 steps, 8 and 7; they are then nowhere else."""
    chain = cell("chain--never--seed0", cells_to_test(plan(), {}))
    assert [stage["steps"] for stage in chain.run["objective"]] == [8, 7]
    assert chain.run["trainer"] == {"learning_rate": 1e-3}
    said = plan(("axes.method.1.overrides.objective", [{"name": "sft", "steps": 3}, {"name": "grpo"}]))
    said_chain = cell("chain--never--seed0", cells_to_test(said, {}))
    assert [stage["steps"] for stage in said_chain.run["objective"]] == [3, 12]


def test_the_task_is_the_levels() -> None:
    """Oracle: by hand."""
    cells = cells_to_test(plan(), {})
    assert cell("grao--never--seed1", cells).task == TaskConfig(eps=0.0, n_train=64)
    assert cell("grao--often--seed1", cells).task == TaskConfig(eps=0.1, n_train=64)


def test_answers_are_kept_for_the_first_seed_where_the_plan_says() -> None:
    """Oracle: `answers_at` by hand; the first level where it says nothing."""
    assert [one.name for one in cells_to_test(plan(), {}) if one.keep_answers] == [
        "base--often--seed0",
        "chain--often--seed0",
        "grao--often--seed0",
    ]
    first = cells_to_test(plan(("answers_at", {})), {})
    assert next(one.name for one in first if one.keep_answers) == "base--never--seed0"


def test_a_cell_is_an_ordinary_run(tmp_path: Path) -> None:
    """Oracle: its configuration, by hand: its seeded, its seed, no checkpoints, curves as evaluation."""
    one = cell("grao--often--seed1", cells_to_test(plan(), {}))
    seeded = SeededTask(tmp_path / "w", one.task, 1)
    config = one.config(seeded, tmp_path / "run")
    assert config.model.path == str(tmp_path / "w" / "base")
    assert config.data.source == str(tmp_path / "w" / "train.jsonl")
    assert [reward.path for reward in config.rewards] == ["grao.demo.dialogue.judge"]
    assert config.evaluation is not None
    held_out = config.evaluation.data
    assert (held_out.source, held_out.limit) == (str(tmp_path / "w" / "validation.jsonl"), 8)
    assert config.evaluation.every == 5
    assert (config.trainer["seed"], config.trainer["save_strategy"]) == (1, "no")
    assert config.run_directory == tmp_path / "run"
    assert replace(one, curves=None).config(seeded, tmp_path / "run").evaluation is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("base.trainer.seed", 3), "a plan cannot set trainer.seed: the plan's seeds are the runs'"),
        (("base.data", {"source": "x"}), "a plan cannot set data: the task's rows are the data"),
        (("axes.method.2.overrides", {"model.path": "x"}), "a plan cannot set model.path"),
        (("axes.method.2.grid", {"trainer.output_dir": ["x", "y"]}), "a plan cannot set trainer.output_dir"),
        (("base.trainer", {}), "base.trainer.max_steps is missing: set the number of steps"),
        (("base.trainer.max_steps", 1), "1 steps cannot be divided among 2 stages: give at least 2"),
        (("base.task.epz", 1), "task.epz: unknown key; did you mean task.eps"),
        (("base.task.eps", 2.0), "eps is 2.0; a share lies between 0 and 1"),
    ],
)
def test_what_a_plan_cannot_say(change: tuple[str, Any], message: str) -> None:
    """Oracle: the sentence."""
    changed = plan(change, ("axes.method.1.steps", 1.0))

    def cells() -> list[Cell]:
        return [*cells_to_tune(changed), *cells_to_test(changed, {})]

    with pytest.raises(ValueError, match=message):
        cells()


def test_identity_changes_with_everything_that_can_change_a_number(tmp_path: Path) -> None:
    """Oracle: one change at a time, each giving another identity; the same cell gives the same one."""
    one = cell("grao--often--seed0", cells_to_test(plan(), {}))
    seeded = SeededTask(tmp_path, one.task, 0)
    identity = one.identity(seeded, "code", {"torch": "2"})
    assert json.loads(json.dumps(identity)) == identity
    assert one.identity(seeded, "code", {"torch": "2"}) == identity
    others = [
        replace(one, seed=1),
        replace(one, run={**one.run, "rollout": {"num_generations": 8}}),
        replace(one, task=TaskConfig(eps=0.2)),
        replace(one, curves=Curves(every=1)),
        replace(one, series=()),
        replace(one, bounds=True),
        replace(one, purpose="tuning"),
        replace(one, axes={"method": "x"}),
    ]
    assert all(other.identity(seeded, "code", {"torch": "2"}) != identity for other in others)
    assert one.identity(seeded, "other", {"torch": "2"}) != identity
    assert one.identity(seeded, "code", {"torch": "3"}) != identity
    (tmp_path / "digests.json").write_text('{"train.jsonl": "0"}', encoding="utf-8")
    assert one.identity(seeded, "code", {"torch": "2"}) != identity
