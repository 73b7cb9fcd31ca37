"""Verifiable mathematics: is the final answer right?"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from grao.rewards.completions import Completion, completion_text
from grao.rewards.final_answer import LONGEST, final_answer, plain, read_number

_EXTRACTION = (LatexExtractionConfig(), ExprExtractionConfig())
# Words other than LaTeX commands and functions say "this is prose": as a formula it would be a product of letters.
_PROSE = re.compile(
    r"(?<![\\A-Za-z])(?!(?:sin|cos|tan|log|exp|sqrt|frac|infty|min|max|[pb]?matrix|array)\b)[A-Za-z]{3,}"
)
# A power within an exponent, and long exponents and factorials: numbers that nobody lives to see computed.
_TOWER = re.compile(r"\^\s*\{[^{}]*\^|\^\s*-?(?:\d+|[A-Za-z])\s*\^|\^\s*\{?\s*-?\d{4,}|\d{4,}\s*!|!\s*!|\*\*")
_POWER_OF_BRACKET = re.compile(r"[)\]}]\s*\^\s*\{?\s*(\d+)")
_LARGEST_DEGREE = 20
"""Powers of brackets with variables in them, multiplied: beyond this, multiplying out takes seconds."""
_LARGEST_POWER = 10_000
"""The same for brackets of numbers, whose result then has some ten thousand digits."""


@dataclass(frozen=True)
class MathAnswer:
    r"""1 if a completion's final answer equals the one in the data, else 0; None where the row has no answer.

    Answers that are plain numbers (`read_number`) are compared as exact fractions; everything else goes through
    math-verify as LaTeX. The data's answer may be a number, or text such as ``"42"``, ``"… #### 42"``,
    ``"\boxed{\frac{1}{2}}"``. A completion without a recognisable answer earns 0: that is the policy's doing.

    Raises:
        ValueError: the data's answer cannot be read; nothing could ever be right or wrong then.
    """

    column: str = "answer"
    """The column that holds the right answer."""
    seconds: int = 5
    """Time limit of one symbolic comparison. It works by SIGALRM and so only in the main thread; elsewhere a
    comparison is only kept short by refusing long and explosive formulas."""

    @property
    def required_columns(self) -> tuple[str, ...]:
        """Columns without which there is nothing to compare."""
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
        """Whether the final answer of `text` equals `gold`, an answer without anything around it."""
        answer = final_answer(text)
        return answer is not None and self._equal(gold, answer)

    def _gold(self, gold: Any) -> str:
        text = str(gold).strip()
        marked = "####" in text or r"\boxed" in text
        answer = text if not marked and self._readable(text) else final_answer(text)
        if answer is None or not self._readable(answer):
            raise ValueError(
                f"column {self.column!r} holds {text[:100]!r}, in which no number or formula was found; "
                "mend the row, name another column, or use exact_match for answers in words"
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
        """What math-verify makes of it; empty for prose, and for what would take too long."""
        answer = plain(answer)
        if not answer or len(answer) > LONGEST or _PROSE.search(answer) or _explosive(answer):
            return []
        return parse(f"${answer}$", _EXTRACTION, parsing_timeout=self._limit())

    def _limit(self) -> int | None:
        return self.seconds if threading.current_thread() is threading.main_thread() else None


def _explosive(answer: str) -> bool:
    r"""Whether a formula this short could still take minutes, as ``9^{9^9}`` and ``(x+y+z)^{99}`` do."""
    variables = re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", answer))
    degree = math.prod(int(power) for power in _POWER_OF_BRACKET.findall(answer))
    return bool(_TOWER.search(answer)) or degree > (_LARGEST_DEGREE if variables else _LARGEST_POWER)
