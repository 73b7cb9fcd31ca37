"""From what a user names (a YAML file, or finished runs) to the evaluation that is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grao.configuration import apply_overrides, build, load_yaml
from grao.evaluation.config import EvaluateConfig

MODEL_KEYS = ("dtype", "attn_implementation", "scoring", "trust_remote_code")
"""Of a run's `model` section: how its model is held, as trained and as it was before."""

BASE_KEYS = ("revision", "tokenizer", *MODEL_KEYS)
"""What the run trained brings its own tokenizer."""

ANSWER_KEYS = ("max_new_tokens", "stop", "stop_token_ids")
"""Of a run's `rollout` section: where its answers end."""


def load_evaluation(
    named: Sequence[str], *, models: Sequence[str] = (), overrides: Sequence[str] = ()
) -> EvaluateConfig:
    """The evaluation that a YAML file describes, or that run directories stand for.

    Args:
        named: one YAML file; or one or several run directories, compared with the model they started from, on the
            held-out rows, with the rewards and the lengths of the first.
        models: ``name=path``: one more model, or another path for the model of that name.
        overrides: ``--sampling.num_samples 4``, as everywhere.

    Raises:
        ValueError, FileNotFoundError: what is missing or unknown, and the remedy.
    """
    runs = [Path(name) for name in named if Path(name).is_dir()]
    if runs and len(runs) < len(named):
        others = [name for name in named if not Path(name).is_dir()]
        raise ValueError(
            f"{others[0]} is no run directory, and others are: give one configuration, or run directories alone; "
            "other models go with them as --model NAME=PATH"
        )
    if not runs and len(named) != 1:
        raise ValueError(f"give one configuration, or run directories; found {len(named)}: {', '.join(named)}")
    described = describe_runs(runs) if runs else load_yaml(named[0])
    for model in models:
        _add_model(described, model)
    mapping = apply_overrides(described, overrides)
    if runs:
        _check_described(mapping, runs[0])
    return build(EvaluateConfig, mapping)


def describe_runs(runs: Sequence[Path]) -> dict[str, Any]:
    """The evaluation that these runs stand for; what the first one does not say is left out.

    Raises:
        FileNotFoundError, ValueError: a directory is no run.
    """
    configs = [_run_config(run) for run in runs]
    first = configs[0]
    model, held_out = first["model"], first.get("evaluation") or {}
    rollout = {**(first.get("rollout") or {}), **_given(held_out, ["max_new_tokens"])}
    described: dict[str, Any] = {
        "models": [{"name": "base", "path": model["path"], **_given(model, BASE_KEYS)}],
        "sampling": _given(rollout, ANSWER_KEYS),
        "output_dir": str(runs[0] / "evaluation"),
    }
    for run, name, config in zip(runs, _names(runs), configs, strict=True):
        described["models"].append({"name": name, "path": str(run), **_given(config["model"], MODEL_KEYS)})
    if "data" in held_out:
        described["data"] = held_out["data"]
    if rewards := held_out.get("rewards") or first.get("rewards"):
        described["rewards"] = rewards
    return described


def _run_config(run: Path) -> Mapping[str, Any]:
    file = run / "config.yaml"
    if not file.is_file():
        raise FileNotFoundError(
            f"{run} is no run directory: it has no config.yaml. A model by itself is evaluated by a configuration "
            "that names it (grao evaluate CONFIG), or beside a run as --model NAME=PATH"
        )
    config = load_yaml(file)
    if "model" not in config:
        raise ValueError(f"{run} is no training run: its config.yaml names no model")
    return config


def _names(runs: Sequence[Path]) -> list[str]:
    """The directories' own names, with their parents' where those alone are not clear."""
    names = [run.resolve().name for run in runs]
    clear = len({"base", *names}) == len(names) + 1
    return names if clear else ["-".join(run.resolve().parts[-2:]) for run in runs]


def _given(section: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: section[key] for key in keys if section.get(key) is not None}


def _add_model(described: dict[str, Any], text: str) -> None:
    name, _, path = text.partition("=")
    if not (name and path):
        raise ValueError(f"--model {text}: write --model NAME=PATH")
    models = described.setdefault("models", [])
    if not isinstance(models, list):
        raise ValueError("models is not a list; write - {name: ..., path: ...} for each model")
    for model in models:
        if isinstance(model, dict) and model.get("name") == name:
            model["path"] = path
            return
    models.append({"name": name, "path": path})


def _check_described(mapping: Mapping[str, Any], run: Path) -> None:
    """What a run may not have, and how to give it."""
    if "source" not in mapping.get("data", {}):
        raise ValueError(
            f"{run / 'config.yaml'} has no evaluation section, so it names no held-out data; give it here: "
            "--data.source FILE (and --data.format hh or gsm8k where it is one)"
        )
    if not mapping.get("rewards"):
        raise ValueError(
            f"{run / 'config.yaml'} names no rewards, so nothing scores the answers; give them here: "
            "--rewards '[{path: exact_match}]'"
        )
