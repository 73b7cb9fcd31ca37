"""Dotted overrides of a configuration."""

from __future__ import annotations

import re
from typing import Any

import pytest

from grao.configuration import apply_overrides

BASE: dict[str, Any] = {"objective": {"beta": 0.5}, "rewards": [{"weight": 1}, {"weight": 2}], "data": None, "seed": 3}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--objective.beta", "0.3"],
        ["--objective.beta=0.3"],
        ["objective.beta=0.3"],
        ["seed=4", "--objective.beta=0.3"],
    ],
)
def test_the_three_notations_agree(arguments: list[str]) -> None:
    """Oracle: the mapping by hand; the given one is unchanged."""
    result = apply_overrides(BASE, arguments)
    assert result["objective"] == {"beta": 0.3}
    assert result["rewards"] == BASE["rewards"]
    assert BASE["objective"] == {"beta": 0.5}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("1e-6", 1e-6),
        ("true", True),
        ("null", None),
        ("[a, 2]", ["a", 2]),
        ("a=b", "a=b"),
        ("'3'", "3"),
        ("", None),
        ("http://x/y", "http://x/y"),
        ("package.module:function", "package.module:function"),
    ],
)
def test_values_are_yaml(text: str, value: object) -> None:
    """Oracle: the values by hand, in both notations."""
    assert apply_overrides({}, ["--x", text]) == {"x": value}
    assert apply_overrides({}, [f"x={text}"]) == {"x": value}


def test_sections_are_created_lists_indexed_and_the_last_override_is_used() -> None:
    """Oracle: by hand; the given list is unchanged."""
    arguments = ["--data.columns.prompt=q", "rewards.1.weight=5", "new.deep.key=1", "--seed", "7", "--seed", "8"]
    assert apply_overrides(BASE, arguments) == {
        "objective": {"beta": 0.5},
        "rewards": [{"weight": 1}, {"weight": 5}],
        "data": {"columns": {"prompt": "q"}},
        "seed": 8,
        "new": {"deep": {"key": 1}},
    }
    assert BASE["rewards"][1] == {"weight": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["objective.beta"], "expected --key value or key=value with a dotted key, found 'objective.beta'"),
        (["--"], "expected --key value or key=value with a dotted key, found '--'"),
        (["=3"], "expected --key value or key=value with a dotted key, found '=3'"),
        (["--objective..beta=3"], "found '--objective..beta=3'"),
        (["--seed"], "--seed has no value. Write --seed VALUE (for a switch --seed true)"),
        (["--a.b", "--seed", "3"], "--a.b has no value. Write --a.b VALUE (for a switch --a.b true)"),
        (["--seed", "[1"], "--seed: '[1' is not valid YAML. Quote text with special characters"),
        (["seed.x=1"], "cannot set seed.x: seed is 3, which has no keys"),
        (["objective.beta.x.y=1"], "cannot set objective.beta.x.y: objective.beta is 0.5, which has no keys"),
        (["rewards.2.weight=1"], "cannot set rewards.2.weight: rewards is a list of 2 items without index '2'"),
        (["rewards.weight=1"], "cannot set rewards.weight: rewards is a list of 2 items without index 'weight'"),
    ],
)
def test_an_invalid_override_is_refused(arguments: list[str], message: str) -> None:
    """Oracle: the error message."""
    with pytest.raises(ValueError, match=re.escape(message)):
        apply_overrides(BASE, arguments)
