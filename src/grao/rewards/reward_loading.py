"""From what a user writes (an object, a name, a dotted path, a model) to a `RewardFunction`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from grao.configuration import build
from grao.dotted_path import import_path, nearest_names
from grao.rewards.reward_function import RewardCallable, RewardFunction, default_name, innermost, keyword_parameters

BUILTIN_REWARDS = {
    "math": "grao.rewards.math_answer:MathAnswer",
    "exact_match": "grao.rewards.text:ExactMatch",
    "format": "grao.rewards.text:Format",
    "length": "grao.rewards.length:Length",
    "model": "grao.rewards.model:RewardModel.from_pretrained",
    "judge": "grao.rewards.judge:PairwiseJudge",
    "absolute_judge": "grao.rewards.judge:AbsoluteJudge",
    "verl": "grao.rewards.verl:VerlReward",
    "openrlhf": "grao.rewards.openrlhf:OpenRLHFReward",
}
"""The names a configuration can use, with the paths of what they name: only what is used is imported."""

Source = str | RewardCallable | RewardFunction | Mapping[str, Any]
"""A reward as a user gives it; see `load_reward`."""

_SETTINGS = {f.name for f in fields(RewardFunction)} - {"call"}
_REWARD_ARGUMENTS = {"prompts", "completions", "completion_ids"}


def load_reward(source: Source, kwargs: Mapping[str, Any] | None = None, **settings: Any) -> RewardFunction:
    """Load a reward function.

    `source` is one of

    - a callable (a function, an instance of a class with ``__call__``) or a `RewardFunction`;
    - a sequence-classification model object (with its ``tokenizer`` in ``kwargs``);
    - the name of a built-in (`BUILTIN_REWARDS`);
    - a dotted path, ``package.module:function`` or ``package.module.function``. The current working directory is
      appended to `sys.path`, after everything installed, when a dotted path is loaded;
    - a file and a name in it, ``folder/file.py:function``;
    - a directory with a sequence-classification model, or its id (``owner/name``) on the hub;
    - a mapping ``{"path": <one of these>, "kwargs": {...}, "weight": ..., ...}`` with any field of `RewardFunction`.

    `kwargs` go to what a path names: a class is instantiated, a function is bound (`functools.partial`). A function
    that accepts none of ``prompts``, ``completions``, ``completion_ids`` is a factory: it is called and must return
    the reward function (TRL's ``get_…`` factories work by path).

    Raises:
        ValueError: Nothing of that name exists (the message lists the nearest names), or `kwargs` do not fit.
    """
    if isinstance(source, Mapping):
        _refuse_unknown(source, _SETTINGS | {"path", "kwargs"}, "key of a reward")
        if "path" not in source:
            raise ValueError(f"a reward with the keys {sorted(source)} needs the key 'path'")
        own = {key: value for key, value in source.items() if key not in ("path", "kwargs")}
        return load_reward(source["path"], {**(source.get("kwargs") or {}), **(kwargs or {})}, **{**own, **settings})
    _refuse_unknown(settings, _SETTINGS, "setting of a reward")
    if isinstance(source, RewardFunction):
        return replace(source, **settings) if settings else source
    call, name = _resolve(source, dict(kwargs or {}))
    settings.setdefault("name", name)
    settings.setdefault("comparison", bool(getattr(innermost(call), "compares_with_reference", False)))
    return RewardFunction(call, **settings)


def _resolve(source: Any, kwargs: dict[str, Any]) -> tuple[RewardCallable, str]:
    """Return what to call, and its default name."""
    if isinstance(source, str | Path):
        return _from_string(str(source), kwargs)
    if hasattr(source, "forward") and hasattr(source, "config"):
        reward_model = import_path("grao.rewards.model:RewardModel")(source, **kwargs)
        return reward_model, str(source.config.name_or_path or type(source).__name__).split("/")[-1]
    if not callable(source):
        raise ValueError(f"found a {type(source).__name__} as a reward. Give a callable, a path, a name or a model.")
    call = _instantiate(source, kwargs, repr(source)) if kwargs or inspect.isclass(source) else source
    return call, default_name(call)


def _from_string(source: str, kwargs: dict[str, Any]) -> tuple[RewardCallable, str]:
    if source in BUILTIN_REWARDS:
        return _instantiate(import_path(BUILTIN_REWARDS[source]), kwargs, source, typed=True), source
    is_path = ":" in source and not Path(source).exists()
    if not is_path:
        if source.endswith(".py"):
            raise ValueError(f"{source!r} is a file. Name the function in it: {source}:function")
        if "/" in source or Path(source).is_dir():
            from_pretrained = partial(import_path(BUILTIN_REWARDS["model"]), source)
            return _instantiate(from_pretrained, kwargs, source), source.rstrip("/").split("/")[-1]
        if "." not in source:
            raise ValueError(
                f"no reward is named {source!r}{nearest_names(source, BUILTIN_REWARDS)}. Give a built-in "
                f"({', '.join(BUILTIN_REWARDS)}), a dotted path (package.module:function), or the directory or hub id "
                "(owner/name) of a sequence-classification model."
            )
    call = _instantiate(import_path(source), kwargs, source)
    return call, default_name(call)


def _instantiate(found: Any, kwargs: dict[str, Any], path: str, *, typed: bool = False) -> RewardCallable:
    """Instantiate a class, call a factory, or bind a function's `kwargs`.

    `typed` checks `kwargs` against the annotations of a dataclass: those of the built-ins are types of YAML.
    """
    if not callable(found):
        raise ValueError(f"{path!r} is a {type(found).__name__}, not a function or class")
    known, _, takes_any = keyword_parameters(found, repr(path))
    # A function that cannot receive completions must be a factory.
    makes_reward = inspect.isclass(found) or not (takes_any or _REWARD_ARGUMENTS & set(known))
    # Values are not shown: a misspelt key may hold a secret.
    for key in kwargs:
        if key not in known and not takes_any:
            raise ValueError(
                f"{path!r} cannot be built with {key!r}{nearest_names(key, known)}: it takes {', '.join(known)}. "
                "A reward function must take `completions`, by that name."
            )
    signature = inspect.signature(found)
    try:
        signature.bind(**kwargs) if makes_reward else signature.bind_partial(**kwargs)
    except TypeError as error:
        raise ValueError(
            f"{path!r} cannot be built with {', '.join(kwargs) or 'no kwargs'}: {error}. It takes {', '.join(known)}."
        ) from error
    if not makes_reward:
        return partial(found, **kwargs) if kwargs else found
    made = build(found, kwargs, path) if typed and isinstance(found, type) and is_dataclass(found) else found(**kwargs)
    if not callable(made):
        raise ValueError(
            f"{path!r} made a {type(made).__name__}, which cannot be called. A reward function takes completions (by "
            "that name) and returns a list of numbers."
        )
    return made


def _refuse_unknown(found: Iterable[str], known: set[str], what: str) -> None:
    for key in (key for key in found if key not in known):
        raise ValueError(
            f"{key!r} is not a {what}{nearest_names(key, known)}. Choose from: {', '.join(sorted(known))}."
        )
