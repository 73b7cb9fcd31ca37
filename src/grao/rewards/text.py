"""Rewards that compare text with an answer or a pattern."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grao.rewards.reward_function import Completion, completion_text

_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
FORMATS = {
    # A non-empty worked solution, then "#### number" as the last line and nowhere else.
    "gsm8k": rf"(?s:\s*(?!####)\S(?:(?!####).)*\n)####[ ]?-?{_INTEGER}(?:\.\d+)?\s*",
}
"""Patterns by name, for `Format`."""


@dataclass(frozen=True)
class ExactMatch:
    """1 if the whole completion equals the answer in the data, else 0; None if the row has no answer.

    Both are normalised first. By default outer white space, letter case and the amount of inner white space are
    ignored.
    """

    column: str = "answer"
    """The column that holds the answer."""
    strip: bool = True
    ignore_case: bool = True
    collapse_whitespace: bool = True
    """Treat every run of white space as one space."""

    @property
    def required_columns(self) -> tuple[str, ...]:
        """The column of the answers."""
        return (self.column,)

    def __call__(self, completions: Sequence[Completion], **columns: Any) -> list[float | None]:
        """Score each completion against its row's answer."""
        pairs = zip(completions, columns[self.column], strict=True)
        return [
            None if answer is None else float(self.normal(completion_text(completion)) == self.normal(str(answer)))
            for completion, answer in pairs
        ]

    def normal(self, text: str) -> str:
        """Return the text as it is compared."""
        text = text.strip() if self.strip else text
        text = re.sub(r"\s+", " ", text) if self.collapse_whitespace else text
        return text.casefold() if self.ignore_case else text


@dataclass(frozen=True)
class Format:
    """1 if the whole completion matches a regular expression (`re.fullmatch`), else 0."""

    pattern: str | None = None
    preset: str | None = None
    """A name in `FORMATS` instead of a pattern; ``"gsm8k"`` is a worked solution with a last line ``#### number``."""

    def __post_init__(self) -> None:
        if (self.pattern is None) == (self.preset is None):
            raise ValueError("the format reward needs either `pattern` or `preset`, not both")
        if self.preset is not None and self.preset not in FORMATS:
            raise ValueError(
                f"no format is named {self.preset!r}. Choose one of {', '.join(FORMATS)}, or give a `pattern`."
            )
        try:
            re.compile(self.regex)
        except re.error as error:
            raise ValueError(f"{self.pattern!r} is not a regular expression: {error}") from error

    @property
    def regex(self) -> str:
        """The pattern, or that of the preset."""
        return self.pattern if self.pattern is not None else FORMATS[self.preset or ""]

    def __call__(self, completions: Sequence[Completion], **_: Any) -> list[float]:
        """Score each completion."""
        regex = re.compile(self.regex)
        return [float(regex.fullmatch(completion_text(completion)) is not None) for completion in completions]
