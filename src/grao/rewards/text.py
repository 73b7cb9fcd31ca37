"""Rewards that compare text: with an answer, or with a pattern."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grao.rewards.completions import Completion, completion_text

_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
FORMATS = {
    # A worked solution that is not empty, then, as the last line and nowhere else, "#### number".
    "gsm8k": rf"(?s:\s*(?!####)\S(?:(?!####).)*\n)####[ ]?-?{_INTEGER}(?:\.\d+)?\s*",
}
"""Patterns by name, for `Format`."""


@dataclass(frozen=True)
class ExactMatch:
    """1 if the whole completion is the answer in the data, else 0; None where the row has no answer.

    Both are normalised first. The default forgives what seldom carries meaning: outer white space, letter case, and
    how much white space stands between words.
    """

    column: str = "answer"
    """The column that holds the answer."""
    strip: bool = True
    ignore_case: bool = True
    collapse_whitespace: bool = True
    """Every run of white space counts as one space."""

    @property
    def required_columns(self) -> tuple[str, ...]:
        """Columns without which there is nothing to compare."""
        return (self.column,)

    def __call__(self, completions: Sequence[Completion], **columns: Any) -> list[float | None]:
        """Score each completion against its row's answer."""
        pairs = zip(completions, columns[self.column], strict=True)
        return [
            None if answer is None else float(self.normal(completion_text(completion)) == self.normal(str(answer)))
            for completion, answer in pairs
        ]

    def normal(self, text: str) -> str:
        """The text as it is compared."""
        text = text.strip() if self.strip else text
        text = re.sub(r"\s+", " ", text) if self.collapse_whitespace else text
        return text.casefold() if self.ignore_case else text


@dataclass(frozen=True)
class Format:
    """1 if the whole completion matches a regular expression (`re.fullmatch`), else 0."""

    pattern: str | None = None
    preset: str | None = None
    """A name in `FORMATS` instead of a pattern; ``"gsm8k"`` wants a worked solution, then one last ``#### number``."""

    def __post_init__(self) -> None:
        if (self.pattern is None) == (self.preset is None):
            raise ValueError("the format reward needs either `pattern` or `preset`, and not both")
        if self.preset is not None and self.preset not in FORMATS:
            raise ValueError(f"no format is named {self.preset!r}; known: {', '.join(FORMATS)}. Or give a `pattern`")
        try:
            re.compile(self.regex)
        except re.error as error:
            raise ValueError(f"{self.pattern!r} is no regular expression: {error}") from error

    @property
    def regex(self) -> str:
        """The pattern, or the preset's."""
        return self.pattern if self.pattern is not None else FORMATS[self.preset or ""]

    def __call__(self, completions: Sequence[Completion], **_: Any) -> list[float]:
        """Score each completion by its shape alone."""
        regex = re.compile(self.regex)
        return [float(regex.fullmatch(completion_text(completion)) is not None) for completion in completions]
