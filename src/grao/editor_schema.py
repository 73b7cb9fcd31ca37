"""JSON schemas of the configuration files, for editors that complete and check YAML.

Sections come from their dataclasses through pydantic; `objective`, `engine` and `trainer`, which are mappings there,
are filled in from the tables that read them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import ConfigDict, create_model
from transformers import TrainingArguments

from grao.configuration import type_name
from grao.evaluation import EvaluateConfig
from grao.objectives import OBJECTIVES
from grao.rollout import ENGINES
from grao.training.run_config import RunConfig
from grao.training.trainer_arguments import TRAINER_DEFAULTS, TRAINER_REFUSED

Schema = dict[str, Any]

WEIGHT: Schema = {
    "description": "Weight of this part: a number, or a schedule over the steps of the stage.",
    "anyOf": [{"type": "number"}, {"type": "object"}],
}
STAGE: Schema = {
    "steps": {"type": "integer", "minimum": 1, "description": "Optimiser steps of this stage."},
    "learning_rate": {"type": ["number", "null"], "description": "Of this stage; null = trainer.learning_rate."},
}


def run_schema() -> Schema:
    """Return the JSON schema of a training configuration (`grao train`)."""
    schema, definitions = _of_dataclass(RunConfig)
    objective = _objective({})
    stage = _objective(STAGE, required=["steps"])
    schema["properties"] |= {
        "objective": {"anyOf": [objective, {"type": "array", "items": stage, "minItems": 1}]},
        "engine": _engine(definitions),
        "trainer": _trainer(),
    }
    return {**schema, "$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": definitions}


def evaluation_schema() -> Schema:
    """Return the JSON schema of an evaluation (`grao evaluate`)."""
    schema, definitions = _of_dataclass(EvaluateConfig)
    schema["properties"]["engine"] = _engine(definitions)
    return {**schema, "$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": definitions}


def _of_dataclass(cls: type) -> tuple[Schema, dict[str, Schema]]:
    """Return the schema of a section, with the text under each field as its description, and of those below it."""
    config = ConfigDict(extra="forbid", use_attribute_docstrings=True, arbitrary_types_allowed=True)
    whole = create_model("Whole", __config__=config, section=(cls, ...)).model_json_schema()
    definitions: dict[str, Schema] = whole.get("$defs", {})
    if "$ref" in (section := whole["properties"]["section"]):
        section = definitions.pop(section["$ref"].rsplit("/", 1)[-1])
    return section, definitions


def _objective(more: Schema, required: list[str] | None = None) -> Schema:
    """Return the schema of one objective: by name, by path, or a sum.

    Args:
        more: Properties that it has beside its own fields, such as those of a stage.
        required: Keys among these that must be there.
    """
    required = required or []
    named = []
    for name, (cls, _) in OBJECTIVES.items():
        section, _ = _of_dataclass(cls)
        fields = {key: value for key, value in section["properties"].items() if key != "name"}
        named.append(
            {
                "title": name,
                "description": section.get("description", ""),
                "type": "object",
                "properties": {"name": {"const": name}, **fields, **more},
                "required": ["name", *required],
                "additionalProperties": False,
            }
        )
    by_path = {
        "title": "path",
        "type": "object",
        "properties": {"path": {"type": "string", "description": "package.module:Class or file.py:Class"}, **more},
        "required": ["path", *required],
    }
    parts = {"type": "array", "minItems": 1, "items": {"type": "object", "properties": {"weight": WEIGHT}}}
    summed = {
        "title": "sum",
        "type": "object",
        "properties": {"sum": parts, **more},
        "required": ["sum", *required],
        "additionalProperties": False,
    }
    return {"anyOf": [*named, by_path, summed]}


def _engine(definitions: dict[str, Schema]) -> Schema:
    """Return the schema of the `engine` section."""
    choices = []
    for cls in ENGINES.values():
        section, inner = _of_dataclass(cls)
        definitions |= inner
        choices.append(section)
    by_path = {"type": "object", "properties": {"path": {"type": "string"}, "kwargs": {}}, "required": ["path"]}
    return {"anyOf": [*choices, {**by_path, "additionalProperties": False}]}


def _trainer() -> Schema:
    """Return the schema of the `trainer` section: the fields of transformers' TrainingArguments, with our defaults."""
    kinds = {"int": "integer", "float": "number", "bool": "boolean", "str": "string", "null": "null", "None": "null"}
    properties: dict[str, Schema] = {}
    for field in dataclasses.fields(TrainingArguments):
        if not field.init or field.name in TRAINER_REFUSED:
            continue
        declared = field.type if isinstance(field.type, str) else type_name(field.type)
        names = [kinds.get(part.strip()) for part in declared.split("|")]
        properties[field.name] = {} if None in names else {"type": names}
        if field.name in TRAINER_DEFAULTS:
            properties[field.name]["default"] = TRAINER_DEFAULTS[field.name]
    return {
        "description": "transformers' TrainingArguments; per_device_train_batch_size counts prompts.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
