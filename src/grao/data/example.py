"""One row of data: as its source holds it (`Record`), and as training reads it (`Example`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from grao.groups import Prompt


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt with what the data knows about good and bad answers to it.

    Example::

        Example(row=0, prompt="What is 3 + 4?", reference="It is 7.", columns={"answer": "7"})
    """

    row: int
    """Index of the row in its source, before any row is dropped. It keys every draw and names the row in errors."""
    prompt: Prompt
    reference: str | None = None
    """The reference answer as text; in a conversation, the content of the assistant's message."""
    rejected: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Every other column, for reward functions."""


class Record(NamedTuple):
    """A row as its source holds it.

    Example::

        Record(where="train.jsonl.gz, line 3", fields={"question": "3 + 4?", "answer": "7"})
    """

    where: str
    fields: Mapping[str, Any]


class RowError(ValueError):
    """A row that cannot be read as an example. `load_examples` adds the row's number and counts the other errors."""


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that the chosen options leave out, and why."""

    reason: str


class RowFormat(Protocol):
    """A reader of rows of one layout."""

    def example(self, row: int, fields: Mapping[str, Any]) -> Example | Drop:
        """Return the row as an example, or the reason to leave it out. Raise `RowError` if it cannot be read."""
        ...


def check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise ValueError unless `value` is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not a choice. Use one of {', '.join(map(repr, allowed))}")


def text_column(fields: Mapping[str, Any], name: str, format: str) -> str:
    """Return a column that a format needs as text. Raise `RowError` if it is missing or of another type."""
    value = fields.get(name)
    if not isinstance(value, str):
        found = describe_value(value) if name in fields else f"the columns {column_names(fields)}"
        raise RowError(f"column {name!r} must be text, found {found}. For other data leave out format={format!r}")
    return value


def column_names(fields: Mapping[str, Any]) -> str:
    """Return the quoted names of a row's columns, for an error message."""
    return ", ".join(map(repr, fields)) or "none"


def describe_value(value: object, length: int = 60) -> str:
    """Return a value with its type, shortened for an error message."""
    text = repr(value)
    text = text if len(text) <= length else text[:length] + "…"
    return f"{type(value).__name__} {text}"
