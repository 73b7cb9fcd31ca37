"""Plans: how they are read, what is refused, what the short form leaves, and that the built-in ones are fair."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from grao.configuration import build, with_values
from research.experiment_plan import ExperimentPlan, Level, built_in_plans, load_plan, quick_form
from research.plan_cells import cells_to_test, cells_to_tune
from research.seeded_task import seeded_task

SMALL: dict[str, Any] = {
    "name": "small",
    "title": "A small plan",
    "description": "For tests.",
    "base": {"task": {"eps": 0.1}, "objective": {"name": "grao"}, "trainer": {"max_steps": 10, "learning_rate": 1e-3}},
    "axes": {
        "method": [
            {"label": "base", "trained": False},
            {"label": "GRPO", "overrides": {"objective": {"name": "grpo"}}, "grid": {"objective.kl": [0.0, 0.1]}},
            {"label": "GRAO (paper)", "grid": {"trainer.learning_rate": [1e-3, 3e-3]}},
        ],
        "regime": [{"label": "never", "overrides": {"task.eps": 0.0}}, {"label": "often"}],
    },
    "seeds": [0, 1],
    "tuning": {"per": ["method"], "seeds": [100]},
    "claims": [
        {
            "id": "gain",
            "claim": "GRAO beats GRPO",
            "source": "a test",
            "metric": "score",
            "of": {"method": "GRAO (paper)"},
            "less": {"method": "GRPO"},
            "above": 0,
            "each": ["regime"],
        }
    ],
}


def plan(*changes: tuple[str, Any]) -> ExperimentPlan:
    return build(ExperimentPlan, with_values(SMALL, changes))


def test_combinations_have_the_first_axis_slowest() -> None:
    """Oracle: by hand."""
    assert [tuple(axes.values()) for axes in plan().combinations()] == [
        ("base", "never"),
        ("base", "often"),
        ("GRPO", "never"),
        ("GRPO", "often"),
        ("GRAO (paper)", "never"),
        ("GRAO (paper)", "often"),
    ]
    assert plan().compared == "method"


def test_a_grid_is_every_combination_of_its_values() -> None:
    """Oracle: by hand; the last key is the fastest, and no grid is one empty setting."""
    level = Level("x", grid={"a": [1, 2], "b": [3, 4]})
    assert level.settings() == [{"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4}]
    assert Level("x").settings() == [{}]


@pytest.mark.parametrize(
    ("label", "slug"),
    [("GRAO (paper)", "grao-paper"), ("SFT → GRPO", "sft-grpo"), ("β = 0.5", "0.5"), ("T = 15", "t-15")],
)
def test_labels_as_names_of_files(label: str, slug: str) -> None:
    """Oracle: by hand."""
    assert Level(label).slug == slug


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name", "My ExperimentPlan"), "use small letters, digits and hyphens"),
        (("seeds", []), "seeds is []; give at least one, each once"),
        (("seeds", [1, 1]), "give at least one, each once"),
        (("tuning.seeds", [1, 100]), "seeds [1] are both tuned on and tested on"),
        (("tuning.per", ["metod"]), "tuning.per names the axis 'metod' (did you mean 'method'?); the plan has method"),
        (("axes.method.2.grid", {"trainer.learning_rate": [1, 2, 3]}), "GRPO 2, GRAO (paper) 3. Give each as many"),
        (("axes.method.2.grid", {}), "GRPO 2, GRAO (paper) 0. Give each as many"),
        (("axes.method.0.grid", {"a": [1]}), "'base' is not trained: leave out its grid"),
        (("axes.method.2.label", "grpo"), "two levels of the axis 'method' have labels that name the same file"),
        (("axes.method.2.label", "→"), "needs a letter or a digit"),
        (("axes.method.2.steps", 0), "steps is 0.0; give a positive multiple"),
        (("axes", {}), "axes needs at least one axis"),
        (("axes.regime", []), "axes needs at least one axis"),
        (("claims.0.of", {"method": "GRAO paper"}), "names 'GRAO paper' (did you mean 'GRAO (paper)'?); method has"),
        (("claims.0.each", []), "claim 'gain' does not say at which level of regime it is tested"),
        (("claims.0.below", 1.0), "give exactly one of above, below and equal"),
        (("answers_at", {"regime": "seldom"}), "answers_at names 'seldom'"),
        (("titel", "x"), "titel: unknown key; did you mean title?"),
    ],
)
def test_what_is_refused(change: tuple[str, Any], message: str) -> None:
    """Oracle: the sentence."""
    with pytest.raises(ValueError, match=re.escape(message)):
        plan(change)


def test_the_short_form() -> None:
    """Oracle: what `quick` says, by hand; a claim about a level that is gone goes with it."""
    quick = {
        "seeds": [7],
        "keep": {"method": ["base", "GRPO"]},
        "overrides": {"trainer.max_steps": 2},
        "tuning_seeds": [101],
        "tuning_settings": 1,
    }
    short = quick_form(plan(("quick", quick)))
    assert short.name == "small-quick"
    assert [level.label for level in short.axes["method"]] == ["base", "GRPO"]
    assert [level.label for level in short.axes["regime"]] == ["never", "often"]
    assert short.seeds == [7]
    assert short.base["trainer"] == {"max_steps": 2, "learning_rate": 1e-3}
    assert short.tuning is not None
    assert short.tuning.seeds == [101]
    assert short.tuned_settings("GRPO") == [{"objective.kl": 0.0}]
    assert short.claims == []
    assert len(quick_form(plan(("quick", {**quick, "keep": {}}))).claims) == 1


def test_axes_of_numbers_are_shown_as_numbers() -> None:
    """Oracle: by hand; the number that a level stands for, its label where it stands for none."""
    numbers = plan(("axes.regime", [{"label": "none at all", "value": 0}, {"label": "often"}]))
    assert numbers.shown({"method": "GRPO", "regime": "none at all"}) == {"method": "GRPO", "regime": 0.0}
    assert numbers.shown({"regime": "often"}) == {"regime": "often"}


def test_a_plan_that_is_not_there() -> None:
    """Oracle: the sentences; a name is no file."""
    with pytest.raises(ValueError, match=r"there is no plan 'mian' \(did you mean 'main'\?\); known: ablation, "):
        load_plan("mian")
    with pytest.raises(FileNotFoundError, match=r"there is no config file mine\.yaml"):
        load_plan("mine.yaml")


ASKED_FOR = {
    "main",
    "reasoning",
    "gsm8k-format",
    "ablation",
    "beta-lambda",
    "dynamics",
    "moe",
    "temperature",
    "group-size",
    "reference-quality",
    "off-policy",
    "convergence",
    "graded-reward",
}
ONE_KNOB = {"temperature", "group-size", "reference-quality", "off-policy"}


def test_every_plan_that_was_promised_is_there() -> None:
    """Oracle: the list in docs/experiments.md, written out; a file's name is its plan's."""
    assert set(built_in_plans()) >= ASKED_FOR
    assert all(load_plan(name).name == name for name in built_in_plans())


@pytest.mark.parametrize("name", sorted(ASKED_FOR))
def test_built_in_plans_are_accepted_and_fair(name: str, tmp_path: Path) -> None:
    """Oracle: `RunConfig`, which refuses what does not fit, for every cell of one seed, in both forms; eight seeds or
    more, five where only one knob is turned; none of them tuned on; claims with names of their own.
    """
    whole = load_plan(name)
    assert len(whole.seeds) >= (5 if name in ONE_KNOB else 8)
    assert len({claim.id for claim in whole.claims}) == len(whole.claims) > 0
    for one in (whole, quick_form(whole)):
        first = {one.seeds[0], *([] if one.tuning is None else one.tuning.seeds[:1])}
        cells = [cell for cell in [*cells_to_tune(one), *cells_to_test(one, {})] if cell.seed in first]
        for cell in cells:
            cell.config(seeded_task(tmp_path, cell.task, cell.seed), tmp_path / "work")
        assert len({(cell.purpose, cell.name) for cell in cells}) == len(cells)
        tried = _settings_by_method(one)
        assert len(set(tried.values())) <= 1, tried


def _settings_by_method(one: ExperimentPlan) -> Mapping[str, int]:
    if one.tuning is None:
        return {}
    levels = [level for level in one.axes[one.tuning.per[0]] if level.trained]
    return {level.label: len(one.tuned_settings(level.label)) for level in levels}


def test_the_main_plan_compares_what_it_should() -> None:
    """Oracle: methods and regimes, written out."""
    axes = {axis: [level.label for level in levels] for axis, levels in load_plan("main").axes.items()}
    asked = {"base", "SFT", "DPO", "PPO", "GRPO", "SFT → GRPO", "GRAO (paper)", "GRAO (recommended)"}
    assert asked <= set(axes["method"])
    assert axes["regime"] == ["never", "rarely", "often"]
