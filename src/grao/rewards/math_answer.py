"""A verifiable reward for mathematics: is the final answer right?"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from grao.rewards.final_answer import MAX_CHARACTERS, final_answer, plain, read_number
from grao.rewards.reward_function import Completion, completion_text

_EXTRACTION = (LatexExtractionConfig(), ExprExtractionConfig())
# Words other than LaTeX commands and functions mean prose: as a formula it would be a product of letters.
_PROSE = re.compile(
    r"(?<![\\A-Za-z])(?!(?:sin|cos|tan|log|exp|sqrt|frac|infty|min|max|[pb]?matrix|array)\b)[A-Za-z]{3,}"
)
# A power within an exponent, long exponents and factorials: computing these would never end.
_TOWER = re.compile(r"\^\s*\{[^{}]*\^|\^\s*-?(?:\d+|[A-Za-z])\s*\^|\^\s*\{?\s*-?\d{4,}|\d{4,}\s*!|!\s*!|\*\*")
_POWER_OF_BRACKET = re.compile(r"[)\]}]\s*\^\s*\{?\s*(\d+)")
_LARGEST_DEGREE = 20
"""Product of the powers of brackets with variables: beyond this, expanding takes seconds."""
_LARGEST_POWER = 10_000
"""The same for brackets of numbers, whose result then has about ten thousand digits."""


@dataclass(frozen=True)
class MathAnswer:
    r"""1 if a completion's final answer equals the one in the data, else 0; None if the row has no answer.

    Plain numbers (`read_number`) are compared as exact fractions, everything else by math-verify as LaTeX. The answer
    in the data may be a number, or text such as ``"42"``, ``"… #### 42"``, ``"\boxed{\frac{1}{2}}"``. A completion
    without a recognisable answer gets 0.

    Raises:
        ValueError: The answer in the data cannot be read.
    """

    column: str = "answer"
    """The column that holds the right answer."""
    seconds: int = 5
    """Time limit of one symbolic comparison. It uses SIGALRM, which works in the main thread only; in other threads
    comparisons stay short because long and explosive formulas are refused."""

    @property
    def required_columns(self) -> tuple[str, ...]:
        """The column of the answers."""
        return (self.column,)

    def __call__(self, completions: Sequence[Completion], **columns: Any) -> list[float | None]:
        """Score each completion against its row's answer."""
        golds = columns[self.column]
        read = {str(gold): self._gold(gold) for gold in golds if gold is not None}
        return [
            None if gold is None else float(self.correct(read[str(gold)], completion_text(completion)))
            for completion, gold in zip(completions, golds, strict=True)
        ]

    def correct(self, gold: str, text: str) -> bool:
        """Return whether the final answer of `text` equals `gold`, a bare answer."""
        answer = final_answer(text)
        return answer is not None and self._equal(gold, answer)

    def _gold(self, gold: Any) -> str:
        text = str(gold).strip()
        marked = "####" in text or r"\boxed" in text
        answer = text if not marked and self._readable(text) else final_answer(text)
        if answer is None or not self._readable(answer):
            raise ValueError(
                f"column {self.column!r} holds {text[:100]!r}, which has no number or formula. "
                "Fix the row, name another column, or use exact_match for answers in words."
            )
        return answer

    def _readable(self, answer: str) -> bool:
        return read_number(answer) is not None or bool(self._formula(answer))

    def _equal(self, gold: str, answer: str) -> bool:
        right, found = read_number(gold), read_number(answer)
        if right is not None and found is not None:
            return right.equals(found)
        formulas = self._formula(gold), self._formula(answer)
        return all(formulas) and verify(*formulas, timeout_seconds=self._limit())

    def _formula(self, answer: str) -> list[Any]:
        """Parse by math-verify; empty for prose, and for formulas that would take too long."""
        answer = plain(answer)
        if not answer or len(answer) > MAX_CHARACTERS or _PROSE.search(answer) or _explosive(answer):
            return []
        return parse(f"${answer}$", _EXTRACTION, parsing_timeout=self._limit())

    def _limit(self) -> int | None:
        return self.seconds if threading.current_thread() is threading.main_thread() else None


def _explosive(answer: str) -> bool:
    r"""Return whether a short formula could still take minutes, as ``9^{9^9}`` and ``(x+y+z)^{99}`` do."""
    variables = re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", answer))
    degree = math.prod(int(power) for power in _POWER_OF_BRACKET.findall(answer))
    return bool(_TOWER.search(answer)) or degree > (_LARGEST_DEGREE if variables else _LARGEST_POWER)
