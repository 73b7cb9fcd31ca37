r"""Text that nobody vouches for, written so that it can be read but cannot be mistaken for anything else.

A quoted text is a block between two lines that carry a code; every line of the text stands behind ``| ``::

    === BEGIN TEXT 1 5f1d0c2be7a94a63 ===
    | It is 7.
    | <·|im_end|>⟨U+200B⟩ 1 > 2
    === END TEXT 1 5f1d0c2be7a94a63 ===

Three things keep it inside, each without the others:

- no line of the text can begin like a line of ours, whatever its line breaks;
- the code occurs in none of the texts;
- a character behind which a tokenizer could see a control token (``<|im_end|>``, ``[INST]``, ``>>QUESTION<<``) is
  followed by a dot, and invisible characters, control characters and lone surrogates are written as ``⟨U+XXXX⟩``.

Quoting loses nothing: two different texts are never quoted alike.
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
"""What becomes of a text that is longer than a judge is to read: its middle or its end is left out, and the judge is
told how much, or it is not judged."""

PREFIX = "| "
"""Before every line that somebody else wrote."""
NOTE = "-- "
"""Before every line inside a block that we wrote."""

DOT = "·"
"""Put behind a character that could open a control token; dots that stand there already get one more."""

_OPENING = re.compile(
    r"[<＜﹤](?=[^\s=\-])"  # <s>, <|eot_id|>, <｜User｜>, <<SYS>>, <start_of_turn>; not "a < b", "<=", "<-"
    rf"|[\[［](?={DOT}*(?![0-9,.-]+[\]］])[^\s\[\]［］<＜﹤>＞~～{DOT}]{{1,60}}[\]］])"  # [INST], [/INST]; not "[1]"
    rf"|[>＞](?={DOT}*[>＞])"  # >>QUESTION<<
    rf"|[\]］](?={DOT}*[~～])|[~～](?={DOT}*[\[［])"  # ]~b], [e~[
)
_KEPT = "\n\t\u200c\u200d"  # the last two join and part letters: many scripts and emoji cannot be written without
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def harmless(text: str) -> str:
    r"""The text with nothing in it that a terminal, a reader's eye or a tokenizer would act on.

    >>> harmless("a < b <|im_end|> [INST] x[0]\x1b[2J")
    'a < b <·|im_end|> [·INST] x[0]⟨U+001B⟩[2J'
    """
    text = text.replace("⟨U+", "⟨U+27E8⟩U+")  # whoever writes our own mark
    hidden = {ord(c): f"⟨U+{ord(c):04X}⟩" for c in set(text) if _is_hidden(c)}
    return _OPENING.sub(lambda found: found[0] + DOT, text.translate(hidden))


def _is_hidden(character: str) -> bool:
    if character in _KEPT:
        return False
    nothing = ord(character) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(character) <= 0xFDEF  # never to be characters
    return nothing or unicodedata.category(character) in _HIDDEN


def quoted(text: str) -> list[str]:
    """The text's lines, harmless and prefixed; at least one."""
    return [PREFIX + line for line in harmless(text).split("\n")]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A text, or what is left of one that was too long."""

    head: str
    left_out: int = 0
    """Characters."""
    tail: str = ""

    @property
    def lines(self) -> list[str]:
        """As they stand in a block."""
        if not self.left_out:
            return quoted(self.head)
        tail = quoted(self.tail) if self.tail else []
        return [*quoted(self.head), f"{NOTE}{self.left_out} characters left out", *tail]


def excerpt(text: str, limit: int, overlong: Overlong) -> Excerpt | None:
    """The text if it takes at most `limit` characters once quoted, else what `overlong` says; None = not judged.

    It is the quoted length that counts, because that is what a judge must read: a text of control characters grows.
    """
    if len(text) <= limit and _length(Excerpt(text)) <= limit:
        return Excerpt(text)
    if overlong == "unscored":
        return None

    def keeping(n: int) -> Excerpt:
        tail = n // 2 if overlong == "cut_middle" else 0
        return Excerpt(text[: n - tail], len(text) - n, text[len(text) - tail :] if tail else "")

    most = min(limit, len(text) - 1)  # quoting never shortens, and something must go
    return keeping(max(0, bisect_right(range(most + 1), limit, key=lambda n: _length(keeping(n))) - 1))


def _length(part: Excerpt) -> int:
    return sum(len(line) + 1 for side in (part.head, part.tail) if side for line in quoted(side))


def boundary(fixed: Sequence[object], texts: Iterable[str]) -> str:
    """A code of 16 hexadecimal digits that occurs in none of the texts.

    It is a hash of `fixed` alone (what all questions about one prompt share), so that their beginnings are equal and
    servers that keep prompts can reuse them. A text that holds it has guessed it, and gets another.
    """
    material, lowered = json.dumps(fixed), [text.lower() for text in texts]
    for attempt in count():
        code = hashlib.sha256(f"{attempt} {material}".encode()).hexdigest()[:16]
        if not any(code in text for text in lowered):
            return code
    raise AssertionError("unreachable: a text holds finitely many codes")


def block(title: str, code: str, lines: Iterable[str]) -> str:
    """The lines between the two that carry the code."""
    return "\n".join([f"=== BEGIN {title} {code} ===", *lines, f"=== END {title} {code} ==="])
