"""Checks of every row before the first step, so that no run fails in its third hour on row 40,000."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from grao.data.example import Example, RowError, describe_value
from grao.data.messages import read_messages


def validate_examples(
    examples: Iterable[Example], *, needs_reference: bool = False, needs_rejected: bool = False
) -> None:
    """Check every example, requiring a reference or rejected answer in every row if training needs one.

    Raises:
        ValueError: Names the first invalid row and its problem, and counts the invalid rows.
    """
    checked, invalid, first = 0, 0, ""
    for example in examples:
        checked += 1
        try:
            _check_prompt(example.prompt)
            _check_answer(example.reference, "reference", needs_reference, "reference, completion or chosen")
            _check_answer(example.rejected, "rejected answer", needs_rejected, "rejected")
        except RowError as error:
            invalid += 1
            first = first or f"row {example.row}: {error}"
    if not checked:
        raise ValueError("no examples: the source is empty, or every row was dropped")
    if invalid:
        raise ValueError(f"{first} (rows with a problem: {invalid} of {checked})")


def _check_prompt(prompt: Any) -> None:
    if prompt is None:
        raise RowError("the prompt is missing")
    if not isinstance(prompt, str):
        last = read_messages(prompt, "the prompt")[-1]
        if last["role"] == "assistant":
            raise RowError("the prompt ends with an assistant message. Make it the reference, or remove it")
        if not last["content"].strip():
            raise RowError(f"the last message of the prompt is empty ({last['content']!r})")
    elif not prompt.strip():
        raise RowError(f"the prompt is empty ({prompt!r}). Fill it in or remove the row")


def _check_answer(answer: Any, name: str, needed: bool, columns: str) -> None:
    if answer is None:
        if needed:
            raise RowError(f"the {name} is missing (column {columns}). The objective needs one in every row")
    elif not isinstance(answer, str):
        raise RowError(f"the {name} must be text, found {describe_value(answer)}")
    elif needed and not answer.strip():
        raise RowError(f"the {name} is empty ({answer!r}). Fill it in or remove the row")
