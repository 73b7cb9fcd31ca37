"""Read a judge's reply: the verdict alone, or nothing.

A reply with anything beside the verdict is unusable: a verdict picked out of an explanation could be one that it
quotes from the judged text.
"""

from __future__ import annotations

import re

from grao.rewards.endpoint.client import UnusableReplyError
from grao.rewards.judging.rubric import Scale

# One pair of marks around the verdict is allowed: the instructions themselves show verdicts in backticks.
_WRAPPED = r"\s*(?P<mark>\*\*|[`\"'*])?{}(?(mark)(?P=mark))\s*"
_VERDICT = re.compile(_WRAPPED.format(r"1[ \t]*(?P<sign>[<=>])[ \t]*2"))
_SCORE = re.compile(_WRAPPED.format(r"(?P<score>[-+]?[0-9]{1,9}(?:\.[0-9]{1,9})?)"))

SIGNS = {1: "1 > 2", 0: "1 = 2", -1: "1 < 2"}
"""A verdict as it is written."""


def read_verdict(reply: str) -> int:
    """Return +1 for ``1 > 2``, 0 for ``1 = 2``, −1 for ``1 < 2``; spaces and one pair of ` " ' * ** are allowed.

    Raises:
        UnusableReplyError: The reply is anything else.

    >>> read_verdict("1 > 2"), read_verdict(" **1<2** ")
    (1, -1)
    """
    found = _VERDICT.fullmatch(reply)
    if found is None:
        raise UnusableReplyError(f"the reply is not a verdict (1 > 2, 1 = 2 or 1 < 2): {reply[:80]!a}")
    return {">": 1, "=": 0, "<": -1}[found["sign"]]


def read_score(reply: str, scale: Scale) -> float:
    """Return the number in the reply; marks around it as for `read_verdict`.

    Raises:
        UnusableReplyError: The reply is not a number, or not one on this scale.
    """
    found = _SCORE.fullmatch(reply)
    if found is None:
        raise UnusableReplyError(f"the reply is not a number: {reply[:80]!a}")
    score = float(found["score"])
    if not scale.low <= score <= scale.high:
        raise UnusableReplyError(f"the reply {score:g} is not on the scale from {scale.low:g} to {scale.high:g}")
    return score
