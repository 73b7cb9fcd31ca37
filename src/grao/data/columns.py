"""Rows with one column per part: prompt, reference (or completion, or chosen), rejected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from grao.data.example import Example, RowError, column_names, describe_value
from grao.data.messages import Messages, read_messages, split_answer
from grao.groups import Prompt

PARTS = ("prompt", "reference", "rejected")
REFERENCE_COLUMNS = ("reference", "completion", "chosen")
"""Columns to read the reference from. The first with a value is used."""


@dataclass(frozen=True)
class Columns:
    """TRL's column layout, as text or conversations. Other columns are kept under their names.

    Examples of rows::

        {"prompt": "3 + 4 =", "reference": "7", "level": 1}
        {"prompt": [{"role": "user", "content": "3 + 4?"}], "completion": [{"role": "assistant", "content": "7"}]}
        {"prompt": "3 + 4 =", "chosen": "7", "rejected": "8"}
        {"chosen": [{"role": "user", "content": "3 + 4?"}, {"role": "assistant", "content": "7"}],
         "rejected": [{"role": "user", "content": "3 + 4?"}, {"role": "assistant", "content": "8"}]}

    In the last example the prompt is implicit: the messages before the last one.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    """Other names of the columns, such as ``{"prompt": "question", "reference": "solution"}``."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.names) - set(PARTS))
        if unknown:
            raise ValueError(f"cannot rename {', '.join(map(repr, unknown))}. `columns` takes {', '.join(PARTS)}")

    def example(self, row: int, fields: Mapping[str, Any]) -> Example:
        """Return the row as an example.

        Raises:
            RowError: A column is missing or of the wrong type, or the answers do not continue the prompt.
        """
        for part, name in self.names.items():
            if name not in fields:
                raise RowError(f"no column {name!r} for the {part}, found {column_names(fields)}")
        columns = {part: self._column(part, fields) for part in PARTS}
        column = columns["prompt"]
        prompt: Prompt | None = None if column is None else fields[column]
        if prompt is not None and not isinstance(prompt, str):
            prompt = read_messages(prompt, f"column {column!r}")
        answers: dict[str, str | None] = {"reference": None, "rejected": None}
        for part in answers:
            column = columns[part]
            if column is not None and fields[column] is not None:
                before, answers[part] = split_answer(fields[column], f"column {column!r}")
                prompt = _joined(prompt, before, column)
        if prompt is None:
            raise RowError(_no_prompt(fields))
        rest = {name: value for name, value in fields.items() if name not in columns.values()}
        return Example(row, prompt, answers["reference"], answers["rejected"], rest)

    def _column(self, part: str, fields: Mapping[str, Any]) -> str | None:
        """Return the column that holds a part, or None."""
        if part in self.names:
            return self.names[part]
        if part != "reference":
            return part if part in fields else None
        present = [name for name in REFERENCE_COLUMNS if name in fields and name not in self.names.values()]
        return next((name for name in present if fields[name] is not None), present[0] if present else None)


def _joined(prompt: Prompt | None, before: Messages, column: str) -> Prompt | None:
    """Return the prompt after comparing it with the messages before an answer.

    If the prompt column holds only the text of the last of these messages, the conversation is the prompt.
    """
    if not before or before == prompt:
        return prompt
    if prompt is None:
        return before
    if isinstance(prompt, str) and before[-1]["role"] == "user" and before[-1]["content"] == prompt:
        return before
    raise RowError(
        f"the prompt ({describe_value(prompt)}) differs from the messages before the answer in column {column!r} "
        f"({describe_value(before)}). Put the same prompt in both, or only the answer in {column!r}"
    )


def _no_prompt(fields: Mapping[str, Any]) -> str:
    """Return the error for a missing prompt, with the likeliest remedy."""
    remedy = "Name the column: columns={'prompt': ...}"
    chosen = fields.get("chosen")
    if isinstance(chosen, str) and chosen.lstrip().startswith("Human:"):
        remedy = "For HH-RLHF transcripts pass format='hh'"
    elif {"question", "answer"} <= set(fields):
        remedy = "For GSM8K pass format='gsm8k', otherwise columns={'prompt': 'question'}"
    elif "messages" in fields:
        remedy = "If the last message is the reference, pass columns={'reference': 'messages'}"
    elif "prompt" in fields:
        remedy = "Its 'prompt' is null: fill it in or remove the row"
    return f"no prompt in the columns {column_names(fields)}. {remedy}"
