"""The `engine` section of a configuration: which engine samples, and its own settings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import torch

from grao.configuration import build
from grao.dotted_path import import_path
from grao.rollout.engine import Engine
from grao.rollout.local_engine import LocalEngine, Progress
from grao.spelling import did_you_mean

EngineDtype = Literal["model", "float32", "bfloat16", "float16"]


class EngineConfig(Protocol):
    """Settings that make an engine."""

    def make(self, model: Any, tokenizer: Any, progress: Progress | None = None) -> Engine:
        """Return the engine, not yet opened.

        Args:
            model: The policy.
            tokenizer: The policy's.
            progress: Called with (completions finished, completions) while sampling.
        """
        ...


@dataclass(frozen=True)
class LocalEngineConfig:
    """Sample in the training process, from the model itself."""

    name: Literal["local"] = "local"
    dtype: EngineDtype = "model"
    """Dtype of the weights while sampling; `model` = unchanged. bfloat16 is faster, but samples from rounded weights:
    `sampling/logprob_difference` in the log measures the distance to the policy."""
    max_rows: int = 256
    """Completions sampled at once; waiting prompts take the place of finished ones. A group is never split."""
    max_batch_tokens: int | None = None
    """Columns of KV cache at once, of prompts and new tokens; null = unlimited."""
    packed: bool = True
    """On a CPU, sample with packed copies of the linear layers' weights: faster, at the cost of those weights' memory
    while sampling. Not decided by the free memory: a resumed run would differ in its last bits."""

    def __post_init__(self) -> None:
        if self.max_rows < 1:
            raise ValueError(f"max_rows is {self.max_rows}. Give 1 or more.")
        if self.max_batch_tokens is not None and self.max_batch_tokens < 1:
            raise ValueError(f"max_batch_tokens is {self.max_batch_tokens}. Give 1 or more, or null.")
        if self.dtype not in get_args(EngineDtype):
            raise ValueError(f"dtype is {self.dtype!r}. Give one of {', '.join(get_args(EngineDtype))}.")

    def make(self, model: Any, tokenizer: Any, progress: Progress | None = None) -> LocalEngine:
        """Return the engine that samples from `model`."""
        return LocalEngine(
            model,
            tokenizer,
            max_rows=self.max_rows,
            max_batch_tokens=self.max_batch_tokens,
            dtype=None if self.dtype == "model" else getattr(torch, self.dtype),
            packed=self.packed,
            progress=progress,
        )


@dataclass(frozen=True)
class CustomEngineConfig:
    """An engine of your own: a class or function that takes (model, tokenizer, progress=…) and `kwargs`."""

    path: str
    """`package.module:Class` or `file.py:Class`."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Passed on by keyword."""

    def __post_init__(self) -> None:
        self._find()

    def make(self, model: Any, tokenizer: Any, progress: Progress | None = None) -> Engine:
        """Return the engine that `path` names.

        Raises:
            ValueError: The result is not an engine.
        """
        made = self._find()(model, tokenizer, progress=progress, **self.kwargs)
        return _checked(made, f"engine.path {self.path!r} made a {type(made).__name__}")

    def _find(self) -> Any:
        """Return what `path` names, which can be called with `kwargs`.

        Raises:
            ValueError: `path` names nothing, or `kwargs` do not fit.
        """
        try:
            found = import_path(self.path)
        except ValueError as error:
            raise ValueError(f"path {error}") from error
        try:
            inspect.signature(found).bind("model", "tokenizer", progress=None, **self.kwargs)
        except TypeError as error:
            raise ValueError(
                f"path {self.path!r} cannot be called: {error}. It is called with model, tokenizer, progress "
                "and kwargs."
            ) from error
        return found


def _checked(engine: Any, found: str) -> Engine:
    """Return what has everything that an engine needs; `found` says what it is, for the message."""
    names = ("exact", "open", "sync", "sample", "close")
    # The class first: a property may not be readable before `sync`.
    missing = [name for name in names if not (hasattr(type(engine), name) or hasattr(engine, name))]
    if missing:
        raise ValueError(f"{found} without {', '.join(missing)}. grao.rollout.Engine lists what an engine needs.")
    ready: Engine = engine
    return ready


ENGINES: dict[str, type[Any]] = {"local": LocalEngineConfig}
"""`engine.name` → its settings."""


def make_engine(
    engine: Engine | EngineConfig | Mapping[str, Any] | None,
    model: Any,
    tokenizer: Any,
    progress: Progress | None = None,
) -> Engine:
    """Return an engine for this policy: the one given, or one made from its settings; the local one by default."""
    ready = ready_engine(engine)
    if ready is not None:
        return ready
    return read_engine_config({} if engine is None else engine).make(model, tokenizer, progress)


def ready_engine(engine: Any) -> Engine | None:
    """Return an engine that needs no making; None for settings of one.

    Raises:
        ValueError: A class instead of an instance, or an engine that lacks something.
    """
    if isinstance(engine, type):
        raise ValueError(f"engine is the class {engine.__name__}. Give an instance of it.")
    return _checked(engine, f"engine is a {type(engine).__name__}") if hasattr(engine, "sample") else None


def read_engine_config(section: Any, where: str = "engine") -> EngineConfig:
    """Return the settings that an `engine` section describes; settings that are ready pass through.

    >>> read_engine_config({"name": "local", "max_rows": 64}).max_rows
    64

    Raises:
        ValueError: No engine of that name, or a setting that it does not have.
    """
    if not isinstance(section, Mapping):
        if not hasattr(section, "make"):
            raise ValueError(f"{where} is {section!r}. Write a section, such as {{name: local}}.")
        ready: EngineConfig = section
        return ready
    if "path" in section:
        return build(CustomEngineConfig, section, where)
    name = section.get("name", "local")
    if not isinstance(name, str) or name not in ENGINES:
        raise ValueError(f"{where}.name is {name!r}{did_you_mean(str(name), ENGINES)}; known: {', '.join(ENGINES)}.")
    made: EngineConfig = build(ENGINES[name], section, where)
    return made
