"""Make an evaluation's configuration from a YAML file or from finished runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grao.configuration import apply_overrides, build, load_yaml
from grao.evaluation.evaluation_config import EvaluateConfig

MODEL_KEYS = ("dtype", "attn_implementation", "scoring", "trust_remote_code")
"""Keys of a run's `model` section that apply to the trained model and to its base."""

BASE_KEYS = ("revision", "tokenizer", *MODEL_KEYS)
"""Keys for the base; the trained model has its own tokenizer."""

ROLLOUT_KEYS = ("max_new_tokens", "stop", "stop_token_ids")
"""Keys of a run's `rollout` section that say where answers end."""


def load_evaluation(
    named: Sequence[str], *, models: Sequence[str] = (), overrides: Sequence[str] = ()
) -> EvaluateConfig:
    """Load an evaluation from a YAML file, or make one from run directories.

    Args:
        named: one YAML file; or run directories, compared with the model they started from, on the held-out rows,
            with the rewards and the lengths of the first run.
        models: ``name=path``: one more model, or another path for the model of that name.
        overrides: such as ``--sampling.num_samples 4``.

    Raises:
        ValueError, FileNotFoundError: what is missing or unknown, and what to do.
    """
    runs = [Path(name) for name in named if Path(name).is_dir()]
    if runs and len(runs) < len(named):
        other = next(name for name in named if not Path(name).is_dir())
        raise ValueError(
            f"{other} is not a run directory. Give one configuration, or only run directories; add other models with "
            "--model NAME=PATH"
        )
    if not runs and len(named) != 1:
        raise ValueError(f"give one configuration, or run directories; found {len(named)}: {', '.join(named)}")
    mapping = describe_runs(runs) if runs else load_yaml(named[0])
    for model in models:
        _add_model(mapping, model)
    mapping = apply_overrides(mapping, overrides)
    if runs:
        _check_completeness(mapping, runs[0] / "config.yaml")
    return build(EvaluateConfig, mapping)


def describe_runs(runs: Sequence[Path]) -> dict[str, Any]:
    """Return the evaluation of these runs as a mapping, without the keys that the first run does not set.

    Raises:
        FileNotFoundError, ValueError: a directory is no run.
    """
    configs = [_run_config(run) for run in runs]
    first = configs[0]
    model, held_out = first["model"], first.get("evaluation") or {}
    rollout = {**(first.get("rollout") or {}), **_given(held_out, ["max_new_tokens"])}
    described: dict[str, Any] = {
        "models": [
            {"name": "base", "path": model["path"], **_given(model, BASE_KEYS)},
            *(
                {"name": name, "path": str(run), **_given(config["model"], MODEL_KEYS)}
                for run, name, config in zip(runs, _names(runs), configs, strict=True)
            ),
        ],
        "sampling": _given(rollout, ROLLOUT_KEYS),
        "output_dir": str(runs[0] / "evaluation"),
    }
    if "data" in held_out:
        described["data"] = held_out["data"]
    if rewards := held_out.get("rewards") or first.get("rewards"):
        described["rewards"] = rewards
    return described


def _run_config(run: Path) -> Mapping[str, Any]:
    file = run / "config.yaml"
    if not file.is_file():
        raise FileNotFoundError(
            f"{run} is not a run directory: it has no config.yaml. To evaluate a model by itself, name it in a "
            "configuration (grao evaluate CONFIG), or add it to a run with --model NAME=PATH"
        )
    config = load_yaml(file)
    if "model" not in config:
        raise ValueError(f"{run} is not a training run: its config.yaml has no model section")
    return config


def _names(runs: Sequence[Path]) -> list[str]:
    """Return the names of the directories, with those of their parents if they alone are not unique."""
    names = [run.resolve().name for run in runs]
    unique = len({"base", *names}) == len(names) + 1
    return names if unique else ["-".join(run.resolve().parts[-2:]) for run in runs]


def _given(section: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: section[key] for key in keys if section.get(key) is not None}


def _add_model(mapping: dict[str, Any], text: str) -> None:
    name, _, path = text.partition("=")
    if not (name and path):
        raise ValueError(f"--model {text}: write --model NAME=PATH")
    models = mapping.setdefault("models", [])
    if not isinstance(models, list):
        raise ValueError("models is not a list; write - {name: ..., path: ...} for each model")
    for model in models:
        if isinstance(model, dict) and model.get("name") == name:
            model["path"] = path
            return
    models.append({"name": name, "path": path})


def _check_completeness(mapping: Mapping[str, Any], file: Path) -> None:
    if "source" not in mapping.get("data", {}):
        raise ValueError(
            f"{file} names no held-out data: it has no evaluation section. Add --data.source FILE (and "
            "--data.format hh or gsm8k if it is one)"
        )
    if not mapping.get("rewards"):
        raise ValueError(f"{file} names no rewards to score answers with. Add --rewards '[{{path: exact_match}}]'")
