"""Rubrics: what a judge judges by, from YAML."""

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
"""The folder of the built-in rubrics; a rubric's name is its file's name without the ending."""


@dataclass(frozen=True)
class Scale:
    """The scores of an absolute judge."""

    low: float
    high: float
    low_means: str
    """What deserves the lowest score."""
    high_means: str
    """What deserves the highest score."""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"the scale runs from {self.low:g} to {self.high:g}. Give low < high.")


@dataclass(frozen=True)
class Rubric:
    """A task and the criteria to judge by. All but the name reaches the judge, so a change asks every question again.

    Example::

        Rubric("brevity", "pairwise", task="Which text is shorter?", criteria="- Count words, not characters.")
    """

    name: str
    """In metrics: `judge/{name}/…`; letters, digits, dots and dashes."""
    kind: Kind
    task: str
    """What the texts are and what to decide."""
    criteria: str
    """What counts, and when neither text is better."""
    scale: Scale | None = None
    """For absolute rubrics only."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"name is {self.name!r}. Metrics use it: give letters, digits, dots and dashes.")
        for key in ("task", "criteria"):
            if not getattr(self, key).strip():
                raise ValueError(f"{key} is empty. Tell the judge what to judge by.")
        if (self.kind == "absolute") != (self.scale is not None):
            found = "has none" if self.scale is None else "has one"
            raise ValueError(f"an absolute rubric needs a scale, a pairwise one must not have it; this one {found}")


RubricSource = str | Path | Mapping[str, Any] | Rubric
"""The name of a built-in, the path of a YAML file, the content of one, or a rubric."""


def load_rubric(source: RubricSource, kind: Kind) -> Rubric:
    """Load a rubric of this kind.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: No built-in has that name; a key is unknown, missing or of a wrong type (with file and key); or
            the rubric is of the other kind.
    """
    if isinstance(source, Rubric):
        rubric = source
    elif isinstance(source, Mapping):
        rubric = build(Rubric, source, "rubric")
    else:
        path = _find(source, kind)
        try:
            rubric = build(Rubric, load_yaml(path), "rubric")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if rubric.kind != kind:
        raise ValueError(
            f"the rubric {rubric.name!r} is {rubric.kind}, and this judge is {kind}. Choose another rubric (built in: "
            f"{', '.join(builtin_rubrics(kind))}), or the other judge (pairwise: judge, absolute: absolute_judge)."
        )
    return rubric


def builtin_rubrics(kind: Kind | None = None) -> list[str]:
    """Return the names of the built-in rubrics, of one kind or of both."""
    names = sorted(Path(file.name).stem for file in RUBRICS.iterdir() if file.name.endswith(".yaml"))
    return [name for name in names if kind is None or name.endswith("-absolute") == (kind == "absolute")]


def _find(source: str | Path, kind: Kind) -> Path:
    if str(source) in builtin_rubrics():
        return Path(str(RUBRICS / f"{source}.yaml"))
    path = Path(source)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise FileNotFoundError(f"there is no rubric file {path} (working directory: {Path.cwd()})")
    known = builtin_rubrics(kind)
    raise ValueError(
        f"no rubric is named {str(source)!r}{did_you_mean(str(source), known)}. Choose one of {', '.join(known)}, or "
        "give the path of a YAML file."
    )
