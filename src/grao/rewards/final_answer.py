r"""Find the final answer in a text, and read it as an exact number if it is one.

The final answer is, in this order: what follows the last ``####`` or stands in the last ``\boxed{}``, whichever comes
later; what follows the last "answer is" (or "answer:"); else the last formula or number of the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARACTERS = 300
"""Longer texts are not answers: reading one must stay cheap for any text that the policy writes."""

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_SIGN, _CURRENCY = "[-+−]?", r"\\?[$€£¥]?"
_QUOTIENT = (
    rf"(?:(?P<whole>\d+)\s+(?=\d+\s*/))?(?P<top>{_DIGITS})(?:[eE](?P<power>[-+]?\d{{1,3}}))?"
    rf"(?:\s*/\s*(?P<bottom>{_DIGITS}))?"
)
_MAGNITUDES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
# A unit is a separate word, or one of these joined to the number: in "2x" and "2 pi" the letters are factors.
_JOINED = "km|cm|mm|kg|mg|ml|mL|lbs?|oz|ft|mph|hrs?|mins?|am|pm|AM|PM"
_UNIT = (
    rf"(?P<percent>\s*\\?%)|\s*°[CF]?|(?:{_JOINED})|[€£¥$]"
    r"|\s+(?!pi\b)(?:[mghlsLCF]\b|[A-Za-z]{2,})[A-Za-z\s/²³^.-]*"
)
_NUMBER = re.compile(rf"(?P<sign>{_SIGN})\s*{_CURRENCY}(?P<sign2>{_SIGN}){_QUOTIENT}(?P<unit>{_UNIT})?\s*")
_FRAC = re.compile(r"(\d?)\s*\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_FORMULA = r"\$(?!\s)[^$\n]*\\[^$\n]*(?<!\s)\$|\\\(.+?\\\)|\\\[.+?\\\]"
_LOOSE_NUMBER = rf"(?<![\w.,/)])[-−]?{_CURRENCY}(?:\d+\s+(?=\d+/))?(?:{_DIGITS})(?:/(?:{_DIGITS}))?(?:\s*\\?%)?"
_CANDIDATE = re.compile(rf"{_FORMULA}|{_LOOSE_NUMBER}", re.DOTALL)
_ANCHOR = re.compile(r"\banswer\s*(?:is|are|:|=)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number. A percentage equals both its value and a hundredth of it: "50%" is 50 and 0.5."""

    value: Fraction
    percent: bool = False

    def equals(self, other: Number) -> bool:
        """Compare exactly: 0.3333 is not 1/3."""
        if self.percent == other.percent:
            return self.value == other.value
        share, plain = (self, other) if self.percent else (other, self)
        return plain.value in (share.value, share.value / 100)


def final_answer(text: str) -> str | None:
    """Return the part of a text that states its answer, or None."""
    marked, boxed = text.rfind("####"), max(text.rfind(r"\boxed{"), text.rfind(r"\fbox{"))
    if marked > boxed:
        line = text[marked:].lstrip("#").lstrip(" \t").split("\n", 1)[0].strip()
        inner = line.rfind(r"\boxed{")
        return _braced(line, line.index("{", inner)) if inner >= 0 else line or None
    if boxed >= 0:
        return _braced(text, text.index("{", boxed))
    return _stated(text)


def read_number(answer: str) -> Number | None:
    r"""Return the exact number that an answer states, or None if it is not a number.

    Reads signs, thousand separators, decimals, exponents, fractions and mixed numbers (also ``\frac``), currency and
    percent signs, and drops a unit after the number ("5 km" is 5, "2 million" is 2,000,000; "2x" is not a number).

    >>> read_number("$1,200.50 per week").value, read_number("1 1/2").value, read_number("5x")
    (Fraction(2401, 2), Fraction(3, 2), None)
    """
    answer = _FRAC.sub(r"\1 \2/\3", plain(answer)).strip()
    found = _NUMBER.fullmatch(answer) if len(answer) <= MAX_CHARACTERS else None
    if found is None or (found["sign"] and found["sign2"]):
        return None
    value = _fraction(found["top"])
    if found["power"]:
        value *= Fraction(10) ** int(found["power"])
    if found["bottom"]:
        bottom = _fraction(found["bottom"])
        if bottom == 0:
            return None
        value /= bottom
    value += int(found["whole"] or 0)
    unit = (found["unit"] or "").split()
    if unit:
        value *= _MAGNITUDES.get(unit[0].lower(), 1)
    negative = (found["sign"] or found["sign2"]) in ("-", "−")
    return Number(-value if negative else value, percent=found["percent"] is not None)


def plain(answer: str) -> str:
    r"""Return an answer without LaTeX and Markdown markup: ``$…$``, ``\text{}``, ``{,}``, ``**``."""
    answer = answer.replace("**", "").strip().removesuffix(".")
    for opening, closing in (("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        if answer.startswith(opening) and answer.endswith(closing) and len(answer) > len(opening + closing):
            answer = answer[len(opening) : -len(closing)]
    answer = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r" \1 ", answer)
    answer = re.sub(r"\\[,!;: ]|\\left|\\right", "", answer.replace("{,}", ","))
    return answer.strip()


def _fraction(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))


def _braced(text: str, start: int) -> str | None:
    """Return the text between the brace at `start` and its closing brace; None if it is never closed."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[start + 1 : i].strip() or None
    return None


def _stated(text: str) -> str | None:
    """Return the first candidate after the last "answer is"; else the last candidate of the whole text."""
    anchors = list(_ANCHOR.finditer(text))
    if anchors:
        tail = text[anchors[-1].end() :]
        sentence = re.split(r"\n|\.(?=\s|$)", tail, maxsplit=1)[0].rpartition("=")[2]
        found = _CANDIDATE.search(sentence) or _CANDIDATE.search(tail)
        return found[0] if found else None
    candidates = _CANDIDATE.findall(text)
    return candidates[-1] if candidates else None
