r"""Quote untrusted text so that it cannot be mistaken for instructions.

A quoted text is a block between two lines with a code; every line of the text begins with ``| ``::

    === BEGIN TEXT 1 5f1d0c2be7a94a63 ===
    | It is 7.
    | <·|im_end|>⟨U+200B⟩ 1 > 2
    === END TEXT 1 5f1d0c2be7a94a63 ===

Three independent safeguards keep it inside:

- no line of the text can begin like a line of ours;
- the code occurs in none of the texts;
- a character that could open a control token (``<|im_end|>``, ``[INST]``, ``>>QUESTION<<``) is followed by a dot, and
  invisible characters, control characters and lone surrogates are written as ``⟨U+XXXX⟩``.

Quoting is lossless: two different texts are never quoted alike.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

Overlong = Literal["cut_middle", "cut_end", "unscored"]
"""What to do with a text over the limit: leave out its middle or its end and say how much, or do not judge it."""

PREFIX = "| "
"""Before every line of a quoted text."""
NOTE = "-- "
"""Before every line of ours inside a block."""

DOT = "·"
"""Put after a character that could open a control token; dots that are there already get one more."""

_OPENING = re.compile(
    r"[<＜﹤](?=[^\s=\-])"  # <s>, <|eot_id|>, <｜User｜>, <<SYS>>, <start_of_turn>; not "a < b", "<=", "<-"
    rf"|[\[［](?={DOT}*(?![0-9,.-]+[\]］])[^\s\[\]［］<＜﹤>＞~～{DOT}]{{1,60}}[\]］])"  # [INST], [/INST]; not "[1]"
    rf"|[>＞](?={DOT}*[>＞])"  # >>QUESTION<<
    rf"|[\]］](?={DOT}*[~～])|[~～](?={DOT}*[\[［])"  # ]~b], [e~[
)
_KEPT = "\n\t\u200c\u200d"  # the last two join and separate letters: many scripts and emoji need them
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def harmless(text: str) -> str:
    r"""Return the text without anything that a terminal, a reader's eye or a tokenizer would act on.

    >>> harmless("a < b <|im_end|> [INST] x[0]\x1b[2J")
    'a < b <·|im_end|> [·INST] x[0]⟨U+001B⟩[2J'
    """
    text = text.replace("⟨U+", "⟨U+27E8⟩U+")  # texts that contain our own mark
    hidden = {ord(c): f"⟨U+{ord(c):04X}⟩" for c in set(text) if _is_hidden(c)}
    return _OPENING.sub(lambda found: found[0] + DOT, text.translate(hidden))


def _is_hidden(character: str) -> bool:
    if character in _KEPT:
        return False
    nothing = ord(character) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(character) <= 0xFDEF  # never to be characters
    return nothing or unicodedata.category(character) in _HIDDEN


def quoted(text: str) -> list[str]:
    """Return the text's lines, harmless and prefixed; at least one."""
    return [PREFIX + line for line in harmless(text).split("\n")]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A text, or what is left of a long one."""

    head: str
    left_out: int = 0
    """Characters."""
    tail: str = ""

    @property
    def lines(self) -> list[str]:
        """The lines of its block."""
        if not self.left_out:
            return quoted(self.head)
        tail = quoted(self.tail) if self.tail else []
        return [*quoted(self.head), f"{NOTE}{self.left_out} characters left out", *tail]


def excerpt(text: str, limit: int, overlong: Overlong) -> Excerpt | None:
    """Return the text if it has at most `limit` characters when quoted, else what `overlong` says; None = unscored.

    The quoted length counts because the judge reads the quoted text: control characters make it longer.
    """
    if len(text) <= limit and _length(Excerpt(text)) <= limit:
        return Excerpt(text)
    if overlong == "unscored":
        return None

    def keeping(n: int) -> Excerpt:
        tail = n // 2 if overlong == "cut_middle" else 0
        return Excerpt(text[: n - tail], len(text) - n, text[len(text) - tail :] if tail else "")

    most = min(limit, len(text) - 1)  # quoting never shortens
    return keeping(max(0, bisect_right(range(most + 1), limit, key=lambda n: _length(keeping(n))) - 1))


def _length(part: Excerpt) -> int:
    return sum(len(line) + 1 for side in (part.head, part.tail) if side for line in quoted(side))


def boundary(fixed: Sequence[object], texts: Iterable[str]) -> str:
    """Return a code of 16 hexadecimal digits that occurs in none of the texts.

    It is a hash of `fixed` alone (what all questions about one prompt share), so that their beginnings are equal and
    servers with a prefix cache reuse them. If a text contains it, the next hash is used.
    """
    material, lowered = json.dumps(fixed), [text.lower() for text in texts]
    for attempt in count():
        code = hashlib.sha256(f"{attempt} {material}".encode()).hexdigest()[:16]
        if not any(code in text for text in lowered):
            return code
    raise AssertionError("unreachable: a text has finitely many codes")


def block(title: str, code: str, lines: Iterable[str]) -> str:
    """Return the lines between the two lines with the code."""
    return "\n".join([f"=== BEGIN {title} {code} ===", *lines, f"=== END {title} {code} ==="])
