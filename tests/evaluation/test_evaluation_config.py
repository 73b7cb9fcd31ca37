"""The configuration of `grao evaluate`, from YAML or from runs, and its errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from grao.configuration import build, describe, to_mapping
from grao.evaluation import EvaluateConfig, load_evaluation

Mapping = dict[str, Any]

LEAST: Mapping = {
    "models": [{"name": "base", "path": "a"}, {"name": "grao", "path": "b"}],
    "data": {"source": "rows.jsonl"},
    "rewards": [{"path": "math"}],
}


def refused(changes: Mapping, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build(EvaluateConfig, {**LEAST, **changes})


def test_defaults_are_the_papers() -> None:
    """Oracle: by hand: temperature 0.7, one answer per prompt, the first model the base."""
    config = build(EvaluateConfig, LEAST)
    assert (config.sampling.temperature, config.sampling.num_samples, config.sampling.seed) == (0.7, 1, 0)
    assert (config.base_name, config.k, config.kl, config.batch) == ("base", [1], True, 64)
    assert build(EvaluateConfig, to_mapping(config)) == config


def test_every_key_is_documented() -> None:
    """Oracle: the schema's own list: a sentence under each key."""
    assert [key.name for key in describe(EvaluateConfig) if not key.doc] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": []}, "the configuration: models is empty; name at least one, such as {name: base, path: "),
        ({"models": LEAST["models"][:1] * 2}, "two models are named 'base'; give each a unique name"),
        ({"models": [{"name": "a"}]}, "models[0].path: missing, and required (str)"),
        ({"models": [{"path": "a"}]}, "models[0].name: missing, and required (str)"),
        ({"models": [{"name": "../a", "path": "a"}]}, "models[0]: name is '../a', but it names files: use letters"),
        ({"models": [{"name": "", "path": "a"}]}, "models[0]: name is ''"),
        (
            {"models": [{"name": "a", "path": "a", "lora": {"r": 4}}]},
            "models[0]: lora describes adapters to be trained",
        ),
        (
            {"models": [{"name": "a", "path": "a", "dytpe": 1}]},
            "models[0].dytpe: unknown key; did you mean models",
        ),
        ({"base": "bse"}, "base is 'bse' (did you mean 'base'?); models are base, grao"),
        ({"rewards": []}, "rewards is empty, so nothing scores the answers; name at least one"),
        ({"batch": 0}, "batch is 0; give a number of prompts, 1 or more"),
        ({"k": [1, 4]}, "k holds 4, but sampling.num_samples is 1: pass@k needs k from 1 to"),
        ({"k": [0]}, "k holds 0"),
        ({"sampling": {"num_samples": 0}}, "sampling: num_samples is 0; give 1 or more"),
        ({"engine": {"max_rows": 0}}, "engine: max_rows is 0. Give 1 or more"),
        ({"sampling": {"temperature": 0, "num_samples": 2}}, "num_samples is 2 at temperature 0, where all answers"),
        ({"sampling": {"top_p": 0}}, "sampling: top_p is 0.0; it must be above 0"),
        ({"temperature": 0.5}, "temperature: unknown key; did you mean sampling.temperature?"),
    ],
)
def test_invalid_values_are_refused_by_key(changes: Mapping, message: str) -> None:
    """Oracle: the message."""
    refused(changes, message)


# --- from the command line -------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration, and the files that are read of two runs."""
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(yaml.safe_dump(LEAST), encoding="utf-8")
    write_run("runs/one", model={"path": "models/base", "dtype": "bfloat16", "tokenizer": "words", "lora": {"r": 4}})
    write_run("runs/two", model={"path": "models/base", "dtype": "float32"})
    return tmp_path


def write_run(where: str, **changes: Any) -> None:
    config = {
        "model": {"path": "models/base"},
        "data": {"source": "train.jsonl"},
        "rewards": [{"path": "math"}],
        "rollout": {"max_new_tokens": 33, "stop": ["\n"], "stop_token_ids": [], "temperature": 1.0},
        "evaluation": {"data": {"source": "test.jsonl", "limit": 5}, "every": 3, "rewards": [{"path": "exact_match"}]},
        **changes,
    }
    Path(where).mkdir(parents=True)
    (Path(where) / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def test_a_run_stands_for_an_evaluation(place: Path) -> None:
    """Oracle: by hand from the run's own configuration: its evaluation's rows and rewards, its rollout's lengths."""
    config = load_evaluation(["runs/one"])
    base, one = config.models
    assert (base.name, base.path, base.dtype, base.tokenizer) == ("base", "models/base", "bfloat16", "words")
    assert (one.name, one.path, one.dtype, one.tokenizer, one.lora) == ("one", "runs/one", "bfloat16", None, None)
    assert (config.data.source, config.data.limit) == ("test.jsonl", 5)
    assert [reward.path for reward in config.rewards] == ["exact_match"]
    assert (config.sampling.max_new_tokens, config.sampling.stop, config.sampling.temperature) == (33, ("\n",), 0.7)
    assert config.output_dir == "runs/one/evaluation"


def test_several_runs_and_other_models(place: Path) -> None:
    """Oracle: the names and paths in order; with overrides and added models."""
    write_run("others/two")
    config = load_evaluation(
        ["runs/one", "runs/two"], models=["mine=my/model", "two=elsewhere"], overrides=["--sampling.seed", "4"]
    )
    named = [(model.name, model.path) for model in config.models]
    assert named == [("base", "models/base"), ("one", "runs/one"), ("two", "elsewhere"), ("mine", "my/model")]
    assert config.sampling.seed == 4
    names = [model.name for model in load_evaluation(["runs/two", "others/two"]).models]
    assert names == ["base", "runs-two", "others-two"]


def test_the_training_rewards_are_used_where_evaluation_has_none(place: Path) -> None:
    """Oracle: by hand; evaluation's own length where it has one."""
    write_run("runs/plain", evaluation={"data": {"source": "x"}, "rewards": [], "max_new_tokens": 7})
    config = load_evaluation(["runs/plain"])
    assert ([reward.path for reward in config.rewards], config.sampling.max_new_tokens) == (["math"], 7)


def test_models_are_added_to_a_configuration(place: Path) -> None:
    """Oracle: the names in order."""
    config = load_evaluation(["run.yaml"], models=["third=c"], overrides=["base=grao"])
    assert ([model.name for model in config.models], config.base_name) == (["base", "grao", "third"], "grao")


@pytest.mark.parametrize(
    ("named", "options", "message"),
    [
        (["none.yaml"], {}, "there is no config file none.yaml"),
        (["run.yaml", "run.yaml"], {}, "give one configuration, or run directories; found 2: run.yaml, run.yaml"),
        (
            ["runs/one", "run.yaml"],
            {},
            "run.yaml is not a run directory. Give one configuration, or only run directories",
        ),
        (
            ["runs"],
            {},
            "runs is not a run directory: it has no config.yaml. To evaluate a model by itself, name it in a",
        ),
        (["run.yaml"], {"models": ["mine"]}, "--model mine: write --model NAME=PATH"),
        (["run.yaml"], {"models": ["=mine"]}, "--model =mine: write --model NAME=PATH"),
        (
            ["run.yaml"],
            {"overrides": ["--sampling.sed", "1"]},
            "sampling.sed: unknown key; did you mean",
        ),
        (
            ["runs/no-data"],
            {},
            "no-data/config.yaml names no held-out data: it has no evaluation section. Add --data.source",
        ),
        (["runs/no-rewards"], {}, "no-rewards/config.yaml names no rewards to score answers with. Add --rewards"),
        (["runs/evaluated"], {}, "runs/evaluated is not a training run: its config.yaml has no model section"),
    ],
)
def test_wrong_names_are_refused(named: list[str], options: Mapping, message: str, place: Path) -> None:
    """Oracle: the message."""
    write_run("runs/no-data", evaluation=None)
    write_run("runs/no-rewards", rewards=[], evaluation={"data": {"source": "x"}})
    Path("runs/evaluated").mkdir()
    Path("runs/evaluated/config.yaml").write_text("models: []\n", encoding="utf-8")
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        load_evaluation(named, **options)


def test_overrides_add_what_a_run_does_not_set(place: Path) -> None:
    """Oracle: the values given."""
    write_run("runs/bare", rewards=[], evaluation=None)
    config = load_evaluation(
        ["runs/bare"], overrides=["--data.source", "x.jsonl", "--rewards", "[{path: exact_match}]"]
    )
    assert (config.data.source, config.rewards[0].path) == ("x.jsonl", "exact_match")
