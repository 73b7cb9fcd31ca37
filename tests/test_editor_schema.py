from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from grao.configuration import build, load_yaml
from grao.editor_schema import evaluation_schema, run_schema
from grao.evaluation import EvaluateConfig
from grao.training import RunConfig

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
RUNS = sorted(path for path in RECIPES.glob("*.yaml") if "objective" in load_yaml(path))
EVALUATIONS = sorted(RECIPES.glob("*-evaluate.yaml"))

RUN: dict[str, Any] = {
    "model": {"path": "m"},
    "data": {"source": "x"},
    "objective": {"name": "grao", "beta": 0.3},
    "rewards": [{"path": "math"}],
}


@pytest.fixture(scope="module")
def run_validator() -> Draft202012Validator:
    return Draft202012Validator(run_schema())


def test_both_are_json_schemas() -> None:
    """Oracle: the meta-schema of JSON Schema 2020-12, checked by the library jsonschema."""
    for schema in (run_schema(), evaluation_schema()):
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("recipe", RUNS, ids=lambda path: path.stem)
def test_recipes_of_runs_fit(recipe: Path, run_validator: Draft202012Validator) -> None:
    """Oracle: the recipes, which the loader accepts."""
    build(RunConfig, load_yaml(recipe))
    assert [error.message for error in run_validator.iter_errors(load_yaml(recipe))] == []


@pytest.mark.parametrize("recipe", EVALUATIONS, ids=lambda path: path.stem)
def test_recipes_of_evaluations_fit(recipe: Path) -> None:
    """Oracle: the recipes, which the loader accepts."""
    build(EvaluateConfig, load_yaml(recipe))
    validator = Draft202012Validator(evaluation_schema())
    assert [error.message for error in validator.iter_errors(load_yaml(recipe))] == []


def test_there_are_recipes_of_both_kinds() -> None:
    """Oracle: the folder: the two tests above must not run on nothing."""
    assert len(RUNS) >= 5
    assert len(EVALUATIONS) >= 2


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": [{"name": "sft", "steps": 3}, {"name": "grpo", "steps": 4, "learning_rate": 1e-5}]},
        {"engine": {"name": "local", "max_rows": 8}},
        {"trainer": {"max_steps": 3, "bf16": True, "learning_rate": 1e-5}},
    ],
)
def test_what_the_loader_accepts_fits(changes: dict[str, Any], run_validator: Draft202012Validator) -> None:
    """Oracle: the loader."""
    mapping = copy.deepcopy(RUN) | changes
    build(RunConfig, copy.deepcopy(mapping))
    assert run_validator.is_valid(mapping)


@pytest.mark.parametrize(
    "changes",
    [
        {"objectiv": {}},
        {"objective": {"name": "grao", "bta": 0.3}},
        {"objective": {"name": "groa"}},
        {"objective": [{"name": "sft"}]},
        {"rollout": {"num_generations": "many"}},
        {"rollout": {"dtype": "bfloat16"}},
        {"engine": {"name": "local", "max_row": 8}},
        {"trainer": {"learning_rat": 1e-5}},
        {"trainer": {"eval_steps": 5}},
        {"critic": {"kind": "both"}},
    ],
)
def test_what_the_loader_refuses_does_not_fit(changes: dict[str, Any], run_validator: Draft202012Validator) -> None:
    """Oracle: the loader, which refuses it too."""
    mapping = copy.deepcopy(RUN) | changes
    with pytest.raises(ValueError):  # noqa: PT011 - the messages have tests of their own
        build(RunConfig, copy.deepcopy(mapping))
    assert not run_validator.is_valid(mapping)


def test_fields_are_described() -> None:
    """Oracle: the text under the field, in the source."""
    beta = run_schema()["properties"]["objective"]["anyOf"][0]["anyOf"][0]["properties"]["beta"]
    assert beta["description"].startswith("β, weight of imitation.")
