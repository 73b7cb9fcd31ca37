"""What reading one row can end in, other than an example: a problem, or a counted drop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from grao.data.example import Example

OnProblem = Literal["drop", "error"]
"""What to do with a row that real data is known to contain: leave it out and count it, or stop."""


class Record(NamedTuple):
    """One row as its source holds it, and where that is.

    Example::

        Record(where="train.jsonl.gz, line 3", fields={"question": "3 + 4?", "answer": "7"})
    """

    where: str
    fields: Mapping[str, Any]


class RowError(ValueError):
    """A row cannot be read as an example. Whoever reads the whole source adds the row and counts the others."""


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that is left out by a named choice, and why."""

    reason: str


class RowFormat(Protocol):
    """Turns a row of one layout into an `Example`."""

    def example(self, row: int, fields: Mapping[str, Any]) -> Example | Drop:
        """The row as an example, or the reason it is left out. Raises `RowError` where it can be neither."""
        ...


def problem_with(choice: OnProblem, reason: str, remedy: str) -> Drop:
    """A known problem, dealt with as chosen: a `Drop` to be counted, or a `RowError` that names the choice."""
    if choice == "drop":
        return Drop(reason)
    raise RowError(f"{reason}; {remedy}")


def check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise ValueError unless a named choice is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not a choice: use one of {', '.join(map(repr, allowed))}")


def shown(value: object, length: int = 60) -> str:
    """A value and its type, short enough for an error message."""
    text = repr(value)
    text = text if len(text) <= length else text[:length] + "…"
    return f"{type(value).__name__} {text}"
