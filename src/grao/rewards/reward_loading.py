"""From what a user writes (an object, a name, a dotted path, a model) to a `RewardFunction`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from grao.configuration import build
from grao.dotted_path import import_path, nearest_names
from grao.rewards.builtin import BUILTIN_REWARDS
from grao.rewards.reward_function import RewardCallable, RewardFunction, default_name, innermost

Source = str | RewardCallable | RewardFunction | Mapping[str, Any]
"""A reward as a user gives it; see `load_reward`."""

_SETTINGS = {f.name for f in fields(RewardFunction)} - {"call"}
_REWARD_ARGUMENTS = {"prompts", "completions", "completion_ids"}


def load_reward(source: Source, kwargs: Mapping[str, Any] | None = None, **settings: Any) -> RewardFunction:
    """A reward function from any form users write it in.

    `source` is one of

    - a callable (a function, an instance of a class with ``__call__``) or a `RewardFunction`;
    - a sequence-classification model object (then ``kwargs`` holds its ``tokenizer``);
    - the name of a built-in (`BUILTIN_REWARDS`);
    - a dotted path, ``package.module:function`` or ``package.module.function``. The current working directory is
      importable: it is appended to `sys.path`, after everything installed, when a dotted path is loaded;
    - a file and a name in it, ``folder/file.py:function``;
    - the path of a directory with a sequence-classification model, or its id (``owner/name``) on the hub;
    - a mapping ``{"path": <one of these>, "kwargs": {...}, "weight": ..., ...}`` with any field of `RewardFunction`.

    What a path names is built with `kwargs`: a class is instantiated, a function is bound (`functools.partial`), and
    a function that accepts none of ``prompts``, ``completions``, ``completion_ids`` is a factory: it is called, and
    what it returns is the reward function (so TRL's ``get_…`` factories work by path).

    Raises:
        ValueError: nothing of that name exists (the nearest names are told), or `kwargs` do not fit.
    """
    if isinstance(source, Mapping):
        return _from_mapping(source, kwargs, settings)
    _refuse_unknown(settings, _SETTINGS, "setting of a reward")
    if isinstance(source, RewardFunction):
        return replace(source, **settings) if settings else source
    call, name = _callable_of(source, dict(kwargs or {}))
    settings.setdefault("name", name)
    settings.setdefault("comparison", bool(getattr(innermost(call), "compares_with_reference", False)))
    return RewardFunction(call, **settings)


def _from_mapping(
    source: Mapping[str, Any], kwargs: Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> RewardFunction:
    _refuse_unknown(source, _SETTINGS | {"path", "kwargs"}, "key of a reward")
    if "path" not in source:
        raise ValueError(f"a reward given as a mapping needs the key 'path'; found {sorted(source)}")
    own = {key: value for key, value in source.items() if key not in ("path", "kwargs")}
    return load_reward(source["path"], {**(source.get("kwargs") or {}), **(kwargs or {})}, **{**own, **settings})


def _callable_of(source: Any, kwargs: dict[str, Any]) -> tuple[RewardCallable, str]:
    """What to call, and the name it goes by if the user gives none."""
    if isinstance(source, str | Path):
        return _from_string(str(source), kwargs)
    if hasattr(source, "forward") and hasattr(source, "config"):
        build = import_path("grao.rewards.model:RewardModel")
        return build(source, **kwargs), str(source.config.name_or_path or type(source).__name__).split("/")[-1]
    if not callable(source):
        raise ValueError(f"a reward is a callable, a path, a name or a model; found a {type(source).__name__}")
    call = _built(source, kwargs, repr(source)) if kwargs or inspect.isclass(source) else source
    return call, default_name(call)


def _from_string(source: str, kwargs: dict[str, Any]) -> tuple[RewardCallable, str]:
    if source in BUILTIN_REWARDS:
        return _built(import_path(BUILTIN_REWARDS[source]), kwargs, source, typed=True), source
    if ":" in source and not Path(source).exists():
        found = _built(import_path(source), kwargs, source)
        return found, default_name(found)
    if source.endswith(".py"):
        raise ValueError(f"{source!r} is a file; name the function in it: {source}:function")
    if "/" in source or Path(source).is_dir():
        build = import_path(BUILTIN_REWARDS["model"])
        return _built(partial(build, source), kwargs, source), source.rstrip("/").split("/")[-1]
    if "." in source:
        found = _built(import_path(source), kwargs, source)
        return found, default_name(found)
    raise ValueError(
        f"no reward is named {source!r}{nearest_names(source, BUILTIN_REWARDS)}. Give a built-in "
        f"({', '.join(BUILTIN_REWARDS)}), a dotted path (package.module:function), a directory with a "
        "sequence-classification model, or the id of one (owner/name)"
    )


def _built(found: Any, kwargs: dict[str, Any], path: str, *, typed: bool = False) -> RewardCallable:
    """The callable itself: an instance of a class, a bound function, or what a factory returns.

    `typed` holds the values to the annotations of a dataclass: those of our own are types that a YAML file can hold.
    """
    if not callable(found):
        raise ValueError(f"{path!r} is a {type(found).__name__}, not a function or class")
    if inspect.isclass(found) or _is_factory(found):
        _refuse_misfit(found, kwargs, path, whole=True)
        built = (
            build(found, kwargs, path)
            if typed and isinstance(found, type) and is_dataclass(found)
            else found(**kwargs)
        )
        if not callable(built):
            raise ValueError(
                f"{path!r} made a {type(built).__name__}, which cannot be called; a reward function takes "
                "completions (by that name) and returns a list of numbers"
            )
        return built
    _refuse_misfit(found, kwargs, path, whole=False)
    return partial(found, **kwargs) if kwargs else found


def _is_factory(found: Callable[..., Any]) -> bool:
    """Whether it could not take a completion if it were given one, so must be what makes a reward function."""
    parameters = inspect.signature(found).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return not (takes_any or _REWARD_ARGUMENTS & set(parameters))


def _refuse_misfit(found: Callable[..., Any], kwargs: dict[str, Any], path: str, *, whole: bool) -> None:
    signature = inspect.signature(found)
    known = [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    # Values are not shown: what was misspelt may be a secret.
    for key in kwargs:
        if key not in known and not takes_any:
            raise ValueError(
                f"{path!r} cannot be built with {key!r}{nearest_names(key, known)}: it takes {', '.join(known)}; "
                "what scores completions must take `completions`, by that name"
            )
    try:
        signature.bind(**kwargs) if whole else signature.bind_partial(**kwargs)
    except TypeError as error:
        raise ValueError(
            f"{path!r} cannot be built with {', '.join(kwargs) or 'nothing'}: {error}. It takes {', '.join(known)}"
        ) from error


def _refuse_unknown(found: Iterable[str], known: set[str], what: str) -> None:
    for key in found:
        if key not in known:
            raise ValueError(f"{key!r} is no {what}{nearest_names(key, known)}. Known: {', '.join(sorted(known))}")
