"""The recipes: each loads, says what it does not leave to defaults, and runs on the real rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from grao.configuration import build, load_yaml
from grao.demo.base_model.base_model_config import BaseModelConfig
from grao.evaluation import load_evaluation
from grao.objectives import DPO, GRAO, GRPO, PPO, SFT
from grao.records import read_run
from grao.rewards import load_reward
from grao.training import RunConfig, load_config
from grao.training.run_schedule import make_schedule

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
EVALUATING = [name for name in RECIPES if name.endswith("-evaluate")]
OF_OTHER_PROGRAMS = ["hh-reward-model"]  # see test_reward_model_recipe.py
BASES = [name for name in RECIPES if name.endswith("-base")]
ALIGNING = [name for name in RECIPES if name not in (*BASES, *EVALUATING, *OF_OTHER_PROGRAMS)]
OBJECTIVES: dict[str, list[type]] = {
    "dialogue": [GRAO],
    "gsm8k": [GRAO],
    "hh-dpo": [DPO],
    "hh-grao-reward-model": [GRAO],
    "hh-harmless": [GRAO],
    "hh-ppo": [PPO],
    "hh-sft-grpo": [SFT, GRPO],
}

MADE_BY_A_RECIPE = ["models/hh-reward-model"]

GRAO_TERMS = {"exploration", "imitation", "regulariser", "correction"}  # the recommended one clamps
SHORT: dict[str, tuple[list[str], list[set[str]]]] = {
    "gsm8k": (["--trainer.max_steps", "1"], [GRAO_TERMS]),
    "hh-dpo": (["--trainer.max_steps", "2", "--data.limit", "12"], [{"preference"}, {"preference"}]),
    "hh-grao-reward-model": (["--trainer.max_steps", "1", "--rewards.0.path", "./judge"], [GRAO_TERMS]),
    "hh-harmless": (["--trainer.max_steps", "1"], [GRAO_TERMS]),
    "hh-ppo": (["--trainer.max_steps", "4", "--trainer.save_steps", "4"], [{"policy", "value"}] * 4),
    "hh-sft-grpo": (["--objective.0.steps", "1", "--objective.1.steps", "1"], [{"imitation"}, {"policy", "kl"}]),
}
"""Flags for enough steps to do each thing once (DPO's table of frozen log-probs, all of PPO's updates on a collection,
both stages of a chain), and the terms of each step's loss."""


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], RunConfig]:
    """Loads a recipe as the command line does, from the repository's folder."""
    monkeypatch.chdir(ROOT)
    return lambda name: load_config(f"recipes/{name}.yaml")


def test_every_recipe_is_tested() -> None:
    """Oracle: the folder."""
    assert sorted(OBJECTIVES) == ALIGNING
    assert sorted({*SHORT, "dialogue"}) == ALIGNING  # whose data is synthetic


@pytest.mark.parametrize("name", BASES)
def test_recipes_of_base_models_load(name: str) -> None:
    """Oracle: the schema, which refuses unknown keys and wrong types; where its model goes is where others look."""
    config = build(BaseModelConfig, load_yaml(ROOT / "recipes" / f"{name}.yaml"))
    assert config.output == f"models/{name}"


@pytest.mark.parametrize("name", ALIGNING)
def test_recipes_load(name: str, recipe: Callable[[str], RunConfig]) -> None:
    """Oracle: the schema; the classes by hand; the plan, which refuses lengths that do not go together; the rewards,
    which are looked up and built.
    """
    config = recipe(name)
    objective = config.make_objective()
    stages = objective if isinstance(objective, list) else [objective]
    assert [type(getattr(stage, "objective", stage)) for stage in stages] == OBJECTIVES[name]
    make_schedule(objective, config.rollout, config.training_arguments(), rows=597)
    for reward in config.rewards:
        if reward.path not in MADE_BY_A_RECIPE:
            load_reward(reward.path, reward.kwargs)


@pytest.mark.parametrize("name", [name for name in ALIGNING if name.startswith("hh-")])
def test_recipes_read_the_rows_that_the_base_model_has_not(name: str, recipe: Callable[[str], RunConfig]) -> None:
    """Oracle: the recipes of the base and the reward model: what they take, the others pass over."""
    base = build(BaseModelConfig, load_yaml(ROOT / "recipes" / "hh-base.yaml"))
    config = recipe(name)
    taken = base.data.limit
    if config.rewards and config.rewards[0].path in MADE_BY_A_RECIPE:
        reward = load_yaml(ROOT / "recipes" / "hh-reward-model.yaml")
        assert (reward["data"]["source"], reward["data"]["skip"]) == (base.data.source, taken)
        assert config.rewards[0].path == reward["output"]
        assert config.evaluation.data.source == reward["held_out"]["source"]
        assert config.evaluation.data.limit == reward["held_out"]["skip"]
        taken += reward["data"]["limit"]
    assert (config.data.source, config.data.skip) == (base.data.source, taken)
    assert config.model.path == base.output


def laid_out(folder: Path, shared_data: Path) -> Path:
    """A place for runs with the recipes in it and the data beside it, as in the repository."""
    place = folder / "grao"
    place.mkdir()
    (place / "recipes").symlink_to(ROOT / "recipes")
    (folder / "shared").mkdir()
    (folder / "shared" / "data").symlink_to(shared_data)
    return place


def write_judge(base: Path, folder: Path) -> None:
    """A reward model with the tokenizer of `base` and a random head."""
    AutoModelForSequenceClassification.from_pretrained(base, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_recipes_run_on_the_real_rows(
    name: str,
    shared_data: Path,
    tmp_path: Path,
    write_bpe_model: Callable[..., Path],
    start_grao: Callable[..., Any],
) -> None:
    """Oracle: the terms of each step's loss, by hand; a random model, in a folder laid out like the repository."""
    flags, terms = SHORT[name]
    place = laid_out(tmp_path, shared_data)
    write_bpe_model(place / "base", [], 258)
    write_judge(place / "base", place / "judge")
    if name != "hh-dpo":
        flags = [*flags, "--evaluation.data.limit", "4", "--rollout.max_new_tokens", "8"]
    flags = [*flags, "--model.path", "base", "--trainer.output_dir", "run", "--trainer.use_cpu", "true"]
    start_grao(place, "train", f"recipes/{name}.yaml", *flags).finish()
    lines = [line for line in read_run(place / "run").metrics if "loss" in line]
    assert [{key.removeprefix("loss/") for key in line if key.startswith("loss/")} for line in lines] == terms


@pytest.mark.parametrize("name", EVALUATING)
def test_recipes_of_evaluations_name_what_other_recipes_make(name: str, recipe: Callable[[str], RunConfig]) -> None:
    """Oracle: the other recipes: where the base model and the aligned one are written; the rewards are built."""
    aligned = recipe({"hh-evaluate": "hh-grao-reward-model", "gsm8k-evaluate": "gsm8k"}[name])
    config = load_evaluation([f"recipes/{name}.yaml"])
    paths = {model.name: model.path for model in config.models}
    assert (paths["base"], paths["grao"]) == (aligned.model.path, str(aligned.run_directory))
    assert (config.base_name, config.output_dir) == ("base", f"runs/{name}")
    assert config.sampling.max_new_tokens == aligned.rollout.max_new_tokens
    assert aligned.evaluation is not None
    assert (config.data.source, config.data.options) == (aligned.evaluation.data.source, aligned.data.options)
    for reward in config.rewards:
        if reward.path not in MADE_BY_A_RECIPE:
            reward.load()


@pytest.mark.slow
@pytest.mark.parametrize("name", EVALUATING)
def test_recipes_of_evaluations_run_on_the_real_rows(
    name: str,
    shared_data: Path,
    tmp_path: Path,
    write_bpe_model: Callable[..., Path],
    start_grao: Callable[..., Any],
) -> None:
    """Oracle: the models and counts of evaluation.json by hand; a random model in place of each that is named."""
    place = laid_out(tmp_path, shared_data)
    write_bpe_model(place / "base", [], 258, max_position_embeddings=1024)
    config = load_evaluation([str(ROOT / "recipes" / f"{name}.yaml")])
    models = [flag for model in config.models for flag in ("--model", f"{model.name}=base")]
    flags = ["--data.limit", "4", "--sampling.max_new_tokens", "4", "--data.max_prompt_tokens", "null"]
    if name == "hh-evaluate":
        flags += ["--rewards.0.path", "./judge"]
        write_judge(place / "base", place / "judge")
    start_grao(place, "evaluate", f"recipes/{name}.yaml", *models, *flags).finish()
    written = json.loads((place / config.output_dir / "evaluation.json").read_bytes())
    assert list(written["models"]) == [model.name for model in config.models]
    for model in written["models"].values():
        figures = model["summary"]["all"]
        assert figures["answers"] == figures["prompts"] * config.sampling.num_samples
        assert figures["unscored"] == 0
        assert list(figures["accuracy"]) == (["math"] if name == "gsm8k-evaluate" else [])
