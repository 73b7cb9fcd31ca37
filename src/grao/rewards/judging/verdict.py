"""Reading what a judge replied: the verdict alone, or nothing.

A reply is the verdict or it is unusable. A judge that explains itself has not done what it was asked, and a verdict
picked out of its words could be one that it quotes from the text it judged.
"""

from __future__ import annotations

import re

from grao.rewards.endpoint.client import UnusableReplyError
from grao.rewards.judging.rubric import Scale

# One pair of marks around it says nothing else: the instructions themselves show verdicts between backticks.
_WRAPPED = r"\s*(?P<mark>\*\*|[`\"'*])?{}(?(mark)(?P=mark))\s*"
_VERDICT = re.compile(_WRAPPED.format(r"1[ \t]*(?P<sign>[<=>])[ \t]*2"))
_SCORE = re.compile(_WRAPPED.format(r"(?P<score>[-+]?[0-9]{1,9}(?:\.[0-9]{1,9})?)"))
_VALUES = {">": 1, "=": 0, "<": -1}

SIGNS = {1: "1 > 2", 0: "1 = 2", -1: "1 < 2"}
"""A verdict as it is written."""


def read_verdict(reply: str) -> int:
    """+1 for ``1 > 2``, 0 for ``1 = 2``, −1 for ``1 < 2``; spaces are free, and one pair of ` " ' * ** around it.

    Raises:
        UnusableReplyError: it is anything else.

    >>> read_verdict("1 > 2"), read_verdict(" **1<2** ")
    (1, -1)
    """
    found = _VERDICT.fullmatch(reply)
    if found is None:
        raise UnusableReplyError(f"the reply is no verdict (1 > 2, 1 = 2 or 1 < 2): {_shown(reply)}")
    return _VALUES[found["sign"]]


def read_score(reply: str, scale: Scale) -> float:
    """The number that the reply is, on this scale; marks around it as for `read_verdict`.

    Raises:
        UnusableReplyError: it is no number, or none of this scale.
    """
    found = _SCORE.fullmatch(reply)
    if found is None:
        raise UnusableReplyError(f"the reply is no number: {_shown(reply)}")
    score = float(found["score"])
    if not scale.low <= score <= scale.high:
        raise UnusableReplyError(f"the reply {score:g} is not on the scale from {scale.low:g} to {scale.high:g}")
    return score


def _shown(reply: str) -> str:
    return ascii(reply if len(reply) <= 80 else reply[:80] + "…")
