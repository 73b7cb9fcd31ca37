"""Data of the answer browser: prompts, references, and every answer with its score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from grao.report.scales import is_number

TEXT_LIMIT = 4000
"""Characters of a text on a page. A longer text ends with the number of characters left out."""
ANSWER_LIMIT = 6000
"""Answers per browser on a page."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to one prompt."""

    name: int
    """Index in `AnswerSet.names`."""
    text: str
    score: float | None
    """None = unscored."""
    advantage: float | None = None
    note: str = ""
    """Such as "cut at the length limit"."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt with its reference and answers."""

    prompt: str
    answers: tuple[Answer, ...]
    reference: str | None = None
    reference_score: float | None = None
    reference_advantage: float | None = None
    category: str | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class AnswerSet:
    """The content of one browser."""

    title: str
    caption: str
    names: tuple[str, ...]
    """Methods, or "sample 1", "sample 2", ..."""
    asked: tuple[Asked, ...]
    notes: tuple[str, ...] = ()
    score_name: str = "score"
    coloured: bool = True
    """Whether names are methods with colours."""
    sensitive: bool = False
    """Whether the texts may offend and are blurred until the reader asks."""


def limited(title: str, asked: Sequence[Asked]) -> tuple[tuple[Asked, ...], tuple[str, ...]]:
    """Return the first prompts whose answers fit ANSWER_LIMIT, and a note that counts the others."""
    kept, count = [], 0
    for one in asked:
        if count + len(one.answers) > ANSWER_LIMIT:
            break
        count += len(one.answers)
        kept.append(one)
    left = len(asked) - len(kept)
    note = f"{title}: {left} of {len(asked)} prompts are left out: a page holds {ANSWER_LIMIT:,} answers"
    return tuple(kept), (note,) if left else ()


def cut(text: str) -> str:
    """Return the text, or its beginning and how much follows.

    >>> cut("a" * (TEXT_LIMIT + 3))[-24:]
    'aa … [3 more characters]'
    """
    if len(text) <= TEXT_LIMIT:
        return text
    return f"{text[:TEXT_LIMIT]} … [{len(text) - TEXT_LIMIT} more characters]"


def browser_data(answers: AnswerSet, colours: Iterable[str]) -> dict[str, Any]:
    """Return the embedded data, with short keys: p prompt, r reference, a answers, c category, s step."""
    return {
        "names": list(answers.names),
        "colours": list(colours),
        "score": answers.score_name,
        "items": [_item(one) for one in answers.asked],
    }


def _item(asked: Asked) -> dict[str, Any]:
    item: dict[str, Any] = {"p": cut(asked.prompt), "a": [_answer(answer) for answer in asked.answers]}
    if asked.reference is not None:
        item["r"] = [cut(asked.reference), _number(asked.reference_score), _number(asked.reference_advantage)]
    if asked.category is not None:
        item["c"] = asked.category
    if asked.step is not None:
        item["s"] = asked.step
    return item


def _answer(answer: Answer) -> list[Any]:
    return [answer.name, cut(answer.text), _number(answer.score), _number(answer.advantage), answer.note]


def _number(value: Any) -> float | None:
    return value if is_number(value) else None
