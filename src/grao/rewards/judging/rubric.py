"""Rubrics: what a judge is asked to judge by, from YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from grao.configuration import build, load_yaml
from grao.spelling import did_you_mean

Kind = Literal["pairwise", "absolute"]
"""Which of two texts is better, or how good one text is."""

RUBRICS = files("grao.rewards.judging") / "rubrics"
"""The folder of the built-in rubrics; a name is a file's name without its ending."""


@dataclass(frozen=True)
class Scale:
    """The numbers an absolute judge may answer with."""

    low: float
    high: float
    low_means: str
    """What deserves the lowest score."""
    high_means: str
    """What deserves the highest."""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a scale runs from low to high; found {self.low:g} and {self.high:g}")


@dataclass(frozen=True)
class Rubric:
    """A task and the criteria to judge by. All of it reaches the judge, so a changed rubric is asked anew.

    Example::

        Rubric("brevity", "pairwise", task="Which text is shorter?", criteria="- Count words, not characters.")
    """

    name: str
    """In metrics: `judge/{name}/…`; letters, digits, dots and dashes."""
    kind: Kind
    task: str
    """What the texts are and what is to be decided."""
    criteria: str
    """What counts, and when neither text is better."""
    scale: Scale | None = None
    """Of an absolute rubric."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"name is {self.name!r}; metrics are named after it: letters, digits, dots and dashes")
        for key in ("task", "criteria"):
            if not getattr(self, key).strip():
                raise ValueError(f"{key} is empty; the judge would have nothing to go by")
        if (self.kind == "absolute") != (self.scale is not None):
            found = "has none" if self.scale is None else "has one"
            raise ValueError(f"an absolute rubric needs a scale, a pairwise one must not have it; this one {found}")


RubricSource = str | Path | Mapping[str, Any] | Rubric
"""A built-in's name, the path of a YAML file, the mapping that such a file holds, or a rubric."""


def load_rubric(source: RubricSource, kind: Kind) -> Rubric:
    """The rubric, which must be of this kind.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no built-in has that name; a key is unknown, missing or of another type (with file and key); or
            it is of the other kind.
    """
    rubric = source if isinstance(source, Rubric) else _read(source, kind)
    if rubric.kind != kind:
        raise ValueError(
            f"the rubric {rubric.name!r} is {rubric.kind}, and this judge is {kind}; choose another rubric "
            f"(built in: {', '.join(builtin_rubrics(kind))}), or the other judge (pairwise: judge, absolute: "
            "absolute_judge)"
        )
    return rubric


def builtin_rubrics(kind: Kind | None = None) -> list[str]:
    """Names of the built-in rubrics, of one kind or of both."""
    names = sorted(Path(file.name).stem for file in RUBRICS.iterdir() if file.name.endswith(".yaml"))
    return [name for name in names if kind is None or name.endswith("-absolute") == (kind == "absolute")]


def _read(source: str | Path | Mapping[str, Any], kind: Kind) -> Rubric:
    if isinstance(source, Mapping):
        return build(Rubric, source, "rubric")
    path = _file(source, kind)
    try:
        return build(Rubric, load_yaml(path), "rubric")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _file(source: str | Path, kind: Kind) -> Path:
    if str(source) in builtin_rubrics():
        return Path(str(RUBRICS / f"{source}.yaml"))
    path = Path(source)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise FileNotFoundError(f"there is no rubric file {path} (the working directory is {Path.cwd()})")
    known = builtin_rubrics(kind)
    raise ValueError(
        f"no rubric is named {str(source)!r}{did_you_mean(str(source), known)}. Built in: {', '.join(known)}; or give "
        "the path of a YAML file"
    )
