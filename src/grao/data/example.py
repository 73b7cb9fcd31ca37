"""One row of data, whatever file or hub it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from grao.groups import Prompt


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt with what the data knows about good and bad answers to it.

    Example::

        Example(row=0, prompt="What is 3 + 4?", reference="It is 7.", columns={"answer": "7"})
    """

    row: int
    """The row's place in its source, before any row was dropped: it keys every draw and names the row in errors."""
    prompt: Prompt
    reference: str | None = None
    """The reference answer as text; in a conversation, the content of the assistant's turn."""
    rejected: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Every other column, for reward functions."""
