"""Checks of every row before the first step, so that no run fails in its third hour on row 40,000."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from grao.data.example import Example, describe_value
from grao.data.messages import messages_problem


def validate_examples(
    examples: Iterable[Example], *, needs_reference: bool = False, needs_rejected: bool = False
) -> None:
    """Check that every example has what training needs.

    Args:
        examples: All examples, in any order.
        needs_reference: Require a reference answer in every row.
        needs_rejected: Require a rejected answer in every row.

    Raises:
        ValueError: Names the first invalid row and its problem, and counts the invalid rows.
    """
    checked, invalid, first = 0, 0, ""
    for example in examples:
        checked += 1
        problem = (
            _prompt_problem(example.prompt)
            or _answer_problem(example.reference, "reference", needs_reference, "reference, completion or chosen")
            or _answer_problem(example.rejected, "rejected answer", needs_rejected, "rejected")
        )
        if problem is not None:
            invalid += 1
            first = first or f"row {example.row}: {problem}"
    if not checked:
        raise ValueError("no examples: the source is empty, or every row was dropped")
    if invalid:
        raise ValueError(f"{first} (rows with a problem: {invalid} of {checked})")


def _prompt_problem(prompt: Any) -> str | None:
    if prompt is None:
        return "the prompt is missing"
    if isinstance(prompt, str):
        return None if prompt.strip() else f"the prompt is empty ({prompt!r}). Fill it in or remove the row"
    problem = messages_problem(prompt, "the prompt")
    if problem is not None:
        return problem
    if prompt[-1]["role"] == "assistant":
        return "the prompt ends with an assistant message. Make it the reference, or remove it"
    content = prompt[-1]["content"]
    return None if content.strip() else f"the last message of the prompt is empty ({content!r})"


def _answer_problem(answer: Any, name: str, needed: bool, columns: str) -> str | None:
    if answer is None:
        return f"the {name} is missing (column {columns}). The objective needs one in every row" if needed else None
    if not isinstance(answer, str):
        return f"the {name} must be text, found {describe_value(answer)}"
    if needed and not answer.strip():
        return f"the {name} is empty ({answer!r}). Fill it in or remove the row"
    return None
