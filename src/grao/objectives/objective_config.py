"""The `objective` section of a configuration: one by name, one by path, or a sum."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from grao.configuration import build, to_mapping
from grao.dotted_path import import_path
from grao.objectives.dpo import DPO
from grao.objectives.grao import GRAO
from grao.objectives.grpo import GRPO
from grao.objectives.objective import Objective
from grao.objectives.ppo import PPO
from grao.objectives.schedule import Schedule, Weight, check_weight
from grao.objectives.sft import SFT
from grao.objectives.sum import Sum
from grao.spelling import did_you_mean

OBJECTIVES: dict[str, tuple[type[Objective], Callable[..., Objective]]] = {
    "grao": (GRAO, GRAO),
    "grao-recommended": (GRAO, GRAO.recommended),
    "grpo": (GRPO, GRPO),
    "dr-grpo": (GRPO, GRPO.dr_grpo),
    "dapo": (GRPO, GRPO.dapo),
    "rloo": (GRPO, GRPO.rloo),
    "sft": (SFT, SFT),
    "dpo": (DPO, DPO),
    "ppo": (PPO, PPO),
}
"""Name → (class whose fields may be set, constructor)."""

KINDS = ("name", "path", "sum")


def parse_objective(described: Any, where: str = "objective") -> Objective:
    """Return the objective that a section describes.

    One of::

        {name: grpo, clip_high: 0.28}
        {path: my_package.losses:Mine, gamma: 0.1}
        {sum: [{name: grpo}, {name: sft, weight: 0.1}, {path: losses.py:Mine, weight: {schedule: cosine, …}}]}

    `path` names a subclass of `Objective`, or a function that returns an objective; the other keys are its arguments.
    A part of a sum is any of the three, with a `weight`: a number (default 1) or the fields of `Schedule`.

    Args:
        described: The section.
        where: Its dotted key, for messages.

    Raises:
        ValueError: An unknown name, path or field (the nearest one is given), or a value that the objective refuses.
    """
    if not isinstance(described, Mapping):
        raise ValueError(f"{where} is {described!r}. Write a section such as {{name: grao}}.")
    kinds = [kind for kind in KINDS if kind in described]
    if len(kinds) > 1:
        raise ValueError(f"{where} has {' and '.join(kinds)}. Give one of them.")
    if not kinds:
        raise ValueError(
            f"{where} needs a name, such as `name: grao`, a path or a sum"
            f"{''.join(did_you_mean(key, KINDS) for key in described)}."
        )
    settings = {key: value for key, value in described.items() if key != kinds[0]}
    if kinds == ["sum"]:
        return _sum(described["sum"], settings, where)
    make = make_objective if kinds == ["name"] else _from_path
    return make(described[kinds[0]], settings, where)


def resolve_objective(described: Mapping[str, Any] | Objective) -> dict[str, Any]:
    """Return the section with every default written out; an object is described so that the section makes it again.

    A class of your own that is no dataclass has only the settings that the section gives.
    """
    if isinstance(described, Sum):
        parts = [{**resolve_objective(objective), "weight": _plain(weight)} for objective, weight in described.parts]
        return {"sum": parts}
    if isinstance(described, Objective):
        cls = type(described)
        names = [name for name, (_, make) in OBJECTIVES.items() if make is cls]
        kind = {"name": names[0]} if names else {"path": f"{cls.__module__}:{cls.__qualname__}"}
        return {**kind, **(to_mapping(described) if is_dataclass(cls) else {})}
    if "sum" in described:
        return {
            "sum": [
                {**resolve_objective(_without_weight(part)), "weight": _plain(_weight(part, ""))}
                for part in described["sum"]
            ]
        }
    if "name" in described:
        return {"name": described["name"], **to_mapping(parse_objective(described))}
    made = parse_objective(described)
    if is_dataclass(made) and type(made) is import_path(described["path"]):
        return {"path": described["path"], **to_mapping(made)}
    parameters = inspect.signature(import_path(described["path"])).parameters.values()
    return {**{p.name: p.default for p in parameters if p.default is not p.empty}, **described}


def make_objective(name: str, settings: Mapping[str, Any] | None = None, where: str = "objective") -> Objective:
    """Return the objective of that name with these fields set; `where` is its key in the configuration, for messages.

    >>> make_objective("grao", {"beta": 0.3}).beta
    0.3

    Raises:
        ValueError: An unknown name or field (the nearest one is given), or a value that the objective refuses.
    """
    settings = dict(settings or {})
    if not isinstance(name, str) or name not in OBJECTIVES:
        hint = did_you_mean(str(name), OBJECTIVES)
        raise ValueError(f"{where}.name is {name!r}{hint}; known: {', '.join(OBJECTIVES)}")
    cls, make = OBJECTIVES[name]
    _refuse_unknown(settings, [f.name for f in fields(cls)], name, where)  # type: ignore[arg-type]
    typed = build(cls, settings, where)
    required = [p.name for p in inspect.signature(make).parameters.values() if p.default is p.empty]
    for key in required:
        if key not in settings and key != "changes":
            raise ValueError(f"{where} {name!r} needs {key}. Write {{name: {name}, {key}: …}}.")
    return make(**{key: getattr(typed, key) for key in settings})


def _from_path(path: Any, settings: Mapping[str, Any], where: str) -> Objective:
    """Return what the class or function at `path` makes of these settings."""
    if not isinstance(path, str):
        raise ValueError(f"{where}.path is {path!r}. Write package.module:Class or folder/file.py:Class.")
    try:
        found = import_path(path)
    except ValueError as error:
        raise ValueError(f"{where}.path {error}") from error
    if not callable(found) or (isinstance(found, type) and not issubclass(found, Objective)):
        raise ValueError(
            f"{where}.path {path!r} is {found!r}. Give a subclass of grao.Objective, or a function that returns one."
        )
    parameters = inspect.signature(found).parameters.values()
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        _refuse_unknown(settings, [p.name for p in parameters], path, where)
    missing = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    for key in missing:
        if key not in settings:
            raise ValueError(f"{where} {path!r} needs {key}. Write {{path: {path}, {key}: …}}.")
    try:
        made = build(found, settings, where) if isinstance(found, type) and is_dataclass(found) else found(**settings)
    except TypeError as error:  # values that do not compare, a positional-only argument
        raise ValueError(f"{where} {path!r}: {error}") from error
    if not isinstance(made, Objective):
        raise ValueError(f"{where}.path {path!r} returned {made!r}. It must return an instance of grao.Objective.")
    return made


def _sum(parts: Any, others: Mapping[str, Any], where: str) -> Sum:
    if others:
        raise ValueError(f"{where}.{next(iter(others))} is unknown: a sum has no fields. Set it in one of the parts.")
    if not isinstance(parts, list) or not parts:
        raise ValueError(f"{where}.sum is {parts!r}. Give a list such as [{{name: grpo}}, {{name: sft}}].")
    placed = [(part, f"{where}.sum[{i}]") for i, part in enumerate(parts)]
    made = [(parse_objective(_without_weight(part), place), _weight(part, place)) for part, place in placed]
    return Sum(tuple(made))


def _without_weight(part: Any) -> Any:
    return {key: value for key, value in part.items() if key != "weight"} if isinstance(part, Mapping) else part


def _weight(part: Mapping[str, Any], where: str) -> Weight:
    """Return the weight of a part, 1 unless it is given."""
    weight = part.get("weight", 1.0)
    if isinstance(weight, Mapping):
        return build(Schedule, weight, f"{where}.weight")
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ValueError(
            f"{where}.weight is {weight!r}. Give a number, or a schedule such as "
            "{schedule: cosine, start: 1.0, end: 0.1}."
        )
    check_weight(f"{where}.weight", weight)
    return weight


def _plain(weight: Weight) -> Any:
    return to_mapping(weight) if isinstance(weight, Schedule) else weight


def _refuse_unknown(settings: Mapping[str, Any], known: list[str], name: str, where: str) -> None:
    for key in settings:
        if key not in known:
            raise ValueError(f"{where}.{key} is not known{did_you_mean(key, known)}; {name} has {', '.join(known)}")
