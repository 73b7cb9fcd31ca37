"""Shape suffixes checked live: a tensor named `…_PMT` must have three axes, and one size per letter in a call.

`checked` looks at every call of a function of `grao.objectives` and `grao.groups`: at its arguments when it starts, at
all its variables and its result when it ends, and at the fields of the batches and outputs among them. The letters are
explained in `groups/batch.py`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor

from grao.groups import GroupBatch, PolicyOutput

SOURCE = Path(__file__).resolve().parents[1] / "src" / "grao"
ROOMS = (str(SOURCE / "objectives"), str(SOURCE / "groups"))
SUFFIX = re.compile(r"_([A-Z1]+)$")
PER_TOKEN = ("advantages_PM", "part_advantages_PM")
"""May have one axis more, the tokens (PPO): documented at `GroupBatch.advantages_PM`."""


class ShapeError(AssertionError):
    """A tensor whose shape is not what its name says."""


def check(where: str, values: dict[str, Any]) -> None:
    """Raise a `ShapeError` unless every tensor has its suffix's axes and a letter has one size among them all."""
    sizes: dict[str, tuple[int, str]] = {"1": (1, "the letter 1")}
    for name, value in values.items():
        suffix = SUFFIX.search(name)
        for tensor in value if isinstance(value, tuple) else (value,):
            if suffix is None or not isinstance(tensor, Tensor):
                continue
            letters = suffix[1] + "T" * (name in PER_TOKEN and tensor.dim() == 3)
            if tensor.dim() != len(letters):
                raise ShapeError(f"{where}: {name} has the shape {list(tensor.shape)}, which is not [{letters}]")
            for letter, size in zip(letters, tensor.shape, strict=True):
                known, first = sizes.setdefault(letter, (size, name))
                if size != known:
                    raise ShapeError(f"{where}: {letter} is {size} in {name}, but {known} in {first}")


def _on_event(frame: FrameType, event: str, result: Any) -> None:
    code = frame.f_code
    if event not in ("call", "return") or not code.co_filename.startswith(ROOMS):
        return
    where = f"{Path(code.co_filename).name}:{code.co_name}"
    check(where, {**frame.f_locals, code.co_name: result})  # a property named scored_PM says what it returns
    for value in frame.f_locals.values():
        if isinstance(value, GroupBatch | PolicyOutput) and all(hasattr(value, f.name) for f in fields(value)):
            check(f"{where}, {type(value).__name__}", {f.name: getattr(value, f.name) for f in fields(value)})


@contextmanager
def checked() -> Iterator[None]:
    """Check shapes in this block."""
    before = sys.getprofile()
    sys.setprofile(_on_event)
    try:
        yield
    finally:
        sys.setprofile(before)
