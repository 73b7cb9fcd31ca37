"""Every row checked before the first step, so that no run dies in its third hour on row 40,000."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from grao.data.example import Example
from grao.data.messages import messages_problem
from grao.data.row import shown


def validate_examples(
    examples: Iterable[Example], *, needs_reference: bool = False, needs_rejected: bool = False
) -> None:
    """Check every example for what training will need.

    Args:
        examples: all of them, in any order.
        needs_reference: every row must have a reference answer.
        needs_rejected: every row must have a rejected answer.

    Raises:
        ValueError: names the first row that offends and what is wrong with it, and counts all that do.
    """
    checked, offending, first = 0, 0, ""
    for example in examples:
        checked += 1
        problem = _problem(example, needs_reference, needs_rejected)
        if problem is not None:
            offending += 1
            first = first or f"row {example.row}: {problem}"
    if not checked:
        raise ValueError("there are no examples: the source is empty, or every row was left out")
    if offending:
        raise ValueError(f"{first}; rows with a problem: {offending} of {checked}")


def _problem(example: Example, needs_reference: bool, needs_rejected: bool) -> str | None:
    return (
        _prompt_problem(example.prompt)
        or _answer_problem(example.reference, "reference", needs_reference, "reference, completion or chosen")
        or _answer_problem(example.rejected, "rejected answer", needs_rejected, "rejected")
    )


def _prompt_problem(prompt: Any) -> str | None:
    if prompt is None:
        return "the prompt is missing"
    if isinstance(prompt, str):
        return None if prompt.strip() else f"the prompt is empty ({prompt!r}); take the row out or fill it in"
    problem = messages_problem(prompt, "the prompt")
    if problem is not None:
        return problem
    last = prompt[-1]
    if last["role"] == "assistant":
        return (
            "the prompt's last turn is the assistant's, so there is nothing to answer; "
            "make that turn the reference, or take it out"
        )
    return None if last["content"].strip() else f"the prompt's last turn is empty ({last['content']!r})"


def _answer_problem(answer: Any, name: str, needed: bool, columns: str) -> str | None:
    if answer is None:
        return f"the {name} is missing; the objective needs one in every row (column {columns})" if needed else None
    if not isinstance(answer, str):
        return f"the {name} must be text, found {shown(answer)}"
    if needed and not answer.strip():
        return f"the {name} is empty ({answer!r}); take the row out or fill it in"
    return None
