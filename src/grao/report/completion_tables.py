"""Completions of a run, or answers of its evaluations, by step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from grao.records import RunRecord
from grao.report.answers import ANSWER_LIMIT, Answer, AnswerSet, Asked


def browse(run: RunRecord, *, held_out: bool, sensitive: bool | None) -> tuple[AnswerSet | None, list[str]]:
    """Return the completions of a run by step, and notes on what could not be shown."""
    steps = run.completion_steps(held_out=held_out)
    if not steps:
        return None, []
    asked, notes, used = _read_steps(run, steps, held_out)
    if not asked:
        return None, notes
    if len(used) < len(steps):
        notes.append(
            f"{len(used)} of {len(steps)} steps with completions are on this page, evenly spread, as a page holds "
            f"{ANSWER_LIMIT:,} answers. All of them are in the run's folder."
        )
    most = max(len(one.answers) for one in asked)
    answers = AnswerSet(
        title="Held-out answers" if held_out else "Completions",
        caption="Answers to held-out prompts at each evaluation."
        if held_out
        else "Completions during training, step by step.",
        names=("answer",) if most == 1 else tuple(f"sample {i + 1}" for i in range(most)),
        asked=tuple(asked),
        notes=tuple(notes),
        score_name="reward",
        coloured=False,
        sensitive=may_offend(run.config) if sensitive is None else sensitive,
    )
    return answers, []


def _read_steps(run: RunRecord, steps: Sequence[int], held_out: bool) -> tuple[list[Asked], list[str], list[int]]:
    """Read as many steps as the limit allows, spread from first to last; the first file's size counts for all."""
    asked: list[Asked] = []
    notes: list[str] = []
    used: list[int] = []
    count, room = 0, None
    for step in steps:
        if room is not None and step not in room:
            continue
        try:
            found = _groups(list(run.completions(step, held_out=held_out)))
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            notes.append(f"The completions of step {step} could not be read: {error}")
            continue
        size = sum(len(one.answers) for one in found)
        if room is None and size:
            room = set(evenly(steps, max(1, ANSWER_LIMIT // size)))
        asked_there = len(found)
        while found and count + size > ANSWER_LIMIT:
            size -= len(found.pop().answers)
        if len(found) < asked_there:
            left = asked_there - len(found)
            notes.append(
                f"{left} of {asked_there} prompts of step {step} are left out (limit: {ANSWER_LIMIT:,} answers)."
            )
        if found:
            asked += found
            count += size
            used.append(step)
    return asked, notes, used


def evenly(items: Sequence[int], count: int) -> list[int]:
    """Return `count` items, the first and the last included.

    >>> evenly([1, 2, 3, 4, 5], 3), evenly([1, 2], 3), evenly([1, 2, 3], 1)
    ([1, 3, 5], [1, 2], [3])
    """
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[-1]]
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _groups(rows: Sequence[Mapping[str, Any]]) -> list[Asked]:
    """Return one entry per prompt: rows of a group follow each other, its reference last."""
    groups: dict[tuple[Any, Any], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row.get("row"), row.get("prompt")), []).append(row)
    return [_asked(members) for members in groups.values()]


def _asked(members: Sequence[Mapping[str, Any]]) -> Asked:
    samples = [row for row in members if row.get("kind") != "reference"]
    reference = next((row for row in members if row.get("kind") == "reference"), None)
    return Asked(
        prompt=conversation(members[0].get("prompt")),
        answers=tuple(_answer(place, row) for place, row in enumerate(samples)),
        reference=None if reference is None else conversation(reference.get("completion")),
        reference_score=None if reference is None else reference.get("reward"),
        reference_advantage=None if reference is None else reference.get("advantage"),
        step=members[0].get("step"),
    )


def _answer(place: int, row: Mapping[str, Any]) -> Answer:
    note = "cut at the length limit" if row.get("finish") == "length" else ""
    kind = row.get("kind")
    return Answer(
        place,
        conversation(row.get("completion")),
        row.get("reward"),
        row.get("advantage"),
        note if kind in (None, "sample") else f"{kind} {note}".strip(),
    )


def conversation(text: Any) -> str:
    """Return a prompt as plain text; a conversation stored as JSON becomes "role: content" lines."""
    if not isinstance(text, str):
        return "" if text is None else str(text)
    if not text.startswith("[{"):
        return text
    try:
        turns = json.loads(text)
    except ValueError:
        return text
    if not all(isinstance(turn, dict) and "role" in turn and "content" in turn for turn in turns):
        return text
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def may_offend(config: Mapping[str, Any]) -> bool:
    """Return whether the data is known for offensive texts: HH-RLHF, by format or name."""
    data = config.get("data")
    if not isinstance(data, Mapping):
        return False
    return data.get("format") == "hh" or "hh-rlhf" in str(data.get("source", "")).lower()
