"""The `trainer` section: TrainingArguments of transformers, with our defaults, checked before they are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from grao.configuration import type_name
from grao.spelling import did_you_mean

TRAINER_DEFAULTS: dict[str, Any] = {
    "output_dir": "runs/grao",
    "learning_rate": 1e-6,
    "weight_decay": 0.01,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 1.0,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "max_steps": 100,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 50,
    "save_total_limit": 2,
    "report_to": "none",
    "seed": 42,
    "dataloader_pin_memory": False,
}
"""Where we depart from transformers' defaults: the paper's optimiser, and a log line per step. The data loader carries
lists of ids, so there is no memory to pin."""

TRAINER_REFUSED = {
    "remove_unused_columns": "the trainer needs every column",
    "group_by_length": "micro-batches are balanced by tokens already",
    "eval_strategy": "write evaluation.every instead",
    "do_eval": "write evaluation.every instead",
    "eval_steps": "write evaluation.every instead",
    "resume_from_checkpoint": "pass --resume instead",
}


def check_trainer(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `trainer` section with our defaults, keys checked against `TrainingArguments`, numbers as numbers."""
    known = {f.name: f for f in dataclasses.fields(TrainingArguments) if f.init}
    checked: dict[str, Any] = {**TRAINER_DEFAULTS}
    if "num_train_epochs" in settings:
        del checked["max_steps"]
    for key, value in settings.items():
        if key in TRAINER_REFUSED:
            raise ValueError(f"trainer.{key} cannot be set: {TRAINER_REFUSED[key]}")
        if key not in known:
            hint = did_you_mean(key, known)
            raise ValueError(f"trainer.{key} is not known{hint}. Give a field of transformers.TrainingArguments.")
        declared: Any = known[key].type
        checked[key] = plain_value(
            f"trainer.{key}", value, declared if isinstance(declared, str) else type_name(declared)
        )
    for key in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        if checked[key] < 1:
            raise ValueError(f"trainer.{key} is {checked[key]}. Give 1 or more.")
    if checked.get("max_steps") == 0:
        raise ValueError("trainer.max_steps is 0. Give 1 or more, or set trainer.num_train_epochs instead.")
    if not isinstance(checked["output_dir"], str | Path):
        raise ValueError(f"trainer.output_dir is {checked['output_dir']!r}. Give a path, in quotes.")
    if checked["save_total_limit"] is not None and checked["save_total_limit"] < 1:
        raise ValueError(
            f"trainer.save_total_limit is {checked['save_total_limit']}. Keep at least 1 checkpoint, or all with null."
        )
    _check_trackers(checked["report_to"])
    return checked


def _check_trackers(report_to: Any) -> None:
    """Raise for a tracker that is unknown or not installed, before the run directory is made."""
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    known = [*INTEGRATION_TO_CALLBACK, "all", "none"]
    for name in names:
        if name not in known:
            hint = did_you_mean(str(name), known)
            raise ValueError(f"trainer.report_to names {name!r}{hint}. Known: {', '.join(known)}.")
        if name not in ("all", "none") and name not in get_available_reporting_integrations():
            raise ValueError(f"trainer.report_to names {name!r}, which is not installed. Run pip install {name}.")


def plain_value(where: str, value: Any, annotation: str) -> Any:
    """Convert `value` to the annotated int, float or bool; leave other types to transformers."""
    kinds = {part.strip() for part in annotation.replace("None", "null").split("|")}
    if not kinds & {"int", "float", "bool"} or kinds & {"str", "dict"}:
        return value
    if value is None or isinstance(value, bool):
        if ("null" if value is None else "bool") not in kinds:
            raise ValueError(f"{where} is {'null' if value is None else value}. Give {annotation}.")
        return value
    if isinstance(value, str):  # YAML 1.1 reads 1e-6 as text
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"{where} is {value!r}. Give {annotation}.") from None
    if isinstance(value, float) and "float" not in kinds:
        if not value.is_integer():
            raise ValueError(f"{where} is {value}. Give {annotation}.")
        return int(value)
    if not isinstance(value, int | float) or not kinds & {"int", "float"}:
        raise ValueError(f"{where} is {value!r}. Give {annotation}.")
    return value


def make_arguments(
    trainer: Mapping[str, Any], evaluate_every: int | None = None, *, at_start: bool = False
) -> TrainingArguments:
    """Return transformers' arguments for a checked `trainer` section.

    Without `save_total_limit`: the recorder deletes checkpoints once newer ones are sealed.
    """
    chosen = {k: v for k, v in trainer.items() if k != "save_total_limit"}
    if evaluate_every is not None:
        chosen |= {"eval_strategy": "steps", "eval_steps": evaluate_every, "eval_on_start": at_start}
    try:
        return TrainingArguments(**chosen, remove_unused_columns=False, disable_tqdm=True)
    except ValueError as error:
        raise ValueError(f"The section trainer is refused by transformers: {error}") from error
