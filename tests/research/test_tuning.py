"""What tuning chooses."""

from __future__ import annotations

from typing import Any

import pytest

from grao.configuration import build, with_values
from research.experiment_plan import ExperimentPlan
from research.plan_cells import cells_to_tune, tuned_key
from research.tuning import chosen_settings, tuning_table

PLAN: dict[str, Any] = {
    "name": "small",
    "title": "",
    "description": "",
    "base": {"objective": {"name": "grao"}, "trainer": {"max_steps": 2}},
    "axes": {
        "method": [
            {"label": "base", "trained": False},
            {"label": "A", "grid": {"trainer.learning_rate": [1e-3, 3e-3]}},
            {"label": "B", "grid": {"objective.beta": [0.5, 1.0]}},
        ],
        "regime": [{"label": "never"}, {"label": "often"}],
    },
    "seeds": [0],
    "tuning": {"per": ["method"], "seeds": [100, 101]},
}


def tuned(
    values: dict[tuple[str, int], float | None], *changes: tuple[str, Any]
) -> tuple[ExperimentPlan, list[dict[str, Any]]]:
    """The table from values by method and setting; seed 101 has one more than seed 100."""
    plan = build(ExperimentPlan, with_values(PLAN, changes))
    records = []
    for cell in cells_to_tune(plan):
        number = plan.tuned_settings(cell.axes["method"]).index(cell.setting)
        value = values[cell.axes["method"], number]
        metrics = {} if value is None else {"score": value + (cell.seed - 100)}
        identity = {"axes": cell.axes, "seed": cell.seed, "setting": cell.setting}
        records.append({"identity": identity, "metrics": metrics})
    return plan, tuning_table(plan, records)


def test_the_best_mean_over_seeds_is_chosen() -> None:
    """Oracle: by hand; the base is not tuned, and everything that was tried is in the table."""
    plan, table = tuned({("A", 0): 1.0, ("A", 1): 2.0, ("B", 0): 4.0, ("B", 1): 3.0})
    assert [row["axes"] for row in table] == [{"method": "A"}, {"method": "B"}]
    assert [row["chosen"] for row in table] == [{"trainer.learning_rate": 3e-3}, {"objective.beta": 0.5}]
    assert table[0]["grid"] == [
        {"setting": {"trainer.learning_rate": 1e-3}, "value": 1.5, "values": [1.0, 2.0]},
        {"setting": {"trainer.learning_rate": 3e-3}, "value": 2.5, "values": [2.0, 3.0]},
    ]
    chosen = chosen_settings(plan, table)
    assert chosen[tuned_key(plan, {"method": "B", "regime": "often"})] == {"objective.beta": 0.5}
    assert tuned_key(plan, {"method": "base", "regime": "never"}) not in chosen


def test_of_equals_the_first_is_chosen() -> None:
    """Oracle: the documented rule."""
    _, table = tuned({("A", 0): 2.0, ("A", 1): 2.0, ("B", 0): 1.0, ("B", 1): 1.0})
    assert table[0]["chosen"] == {"trainer.learning_rate": 1e-3}


def test_a_setting_that_diverged_is_out() -> None:
    """Oracle: None, never −∞ or 0; where all of them diverged, the sentence."""
    _, table = tuned({("A", 0): None, ("A", 1): -9.0, ("B", 0): 1.0, ("B", 1): 1.0})
    assert table[0]["grid"][0] == {"setting": {"trainer.learning_rate": 1e-3}, "value": None, "values": [None, None]}
    assert table[0]["chosen"] == {"trainer.learning_rate": 3e-3}
    with pytest.raises(ValueError, match="all settings of A diverged while tuning: use smaller"):
        tuned({("A", 0): None, ("A", 1): None, ("B", 0): 1.0, ("B", 1): 1.0})


def test_tuned_by_several_axes() -> None:
    """Oracle: a choice for each combination of them."""
    values: dict[tuple[str, int], float | None] = {("A", 0): 1.0, ("A", 1): 2.0, ("B", 0): 4.0, ("B", 1): 3.0}
    _, table = tuned(values, ("tuning.per", ["method", "regime"]))
    assert [tuple(row["axes"].values()) for row in table] == [
        ("A", "never"),
        ("A", "often"),
        ("B", "never"),
        ("B", "often"),
    ]
