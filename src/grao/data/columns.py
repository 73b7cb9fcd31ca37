"""Rows with a column a part: prompt, reference (completion, chosen), rejected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from grao.data.example import Example
from grao.data.messages import Messages, read_messages, split_answer
from grao.data.row import RowError, shown
from grao.groups import Prompt

PARTS = ("prompt", "reference", "rejected")
REFERENCE_COLUMNS = ("reference", "completion", "chosen")
"""Where the reference is looked for; the first that has a value is taken."""


@dataclass(frozen=True)
class Columns:
    """The layout that TRL's users know. Text or conversations; every column not named here is kept by its name.

    Examples of rows::

        {"prompt": "3 + 4 =", "reference": "7", "level": 1}
        {"prompt": [{"role": "user", "content": "3 + 4?"}], "completion": [{"role": "assistant", "content": "7"}]}
        {"prompt": "3 + 4 =", "chosen": "7", "rejected": "8"}
        {"chosen": [{"role": "user", "content": "3 + 4?"}, {"role": "assistant", "content": "7"}],
         "rejected": [{"role": "user", "content": "3 + 4?"}, {"role": "assistant", "content": "8"}]}

    In the last one the prompt is implicit: the turns before the last.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    """Other names of the columns, such as ``{"prompt": "question", "reference": "solution"}``."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.names) - set(PARTS))
        if unknown:
            raise ValueError(f"columns can rename {', '.join(PARTS)}; it has no {', '.join(map(repr, unknown))}")

    def example(self, row: int, fields: Mapping[str, Any]) -> Example:
        """The row as an example.

        Raises:
            RowError: a column is missing or of the wrong type, or the answers do not continue the prompt.
        """
        self._check_named_columns(fields)
        places = {part: self._place(part, fields) for part in PARTS}
        prompt = self._prompt(places["prompt"], fields)
        answers: dict[str, str | None] = {"reference": None, "rejected": None}
        for part in answers:
            place = places[part]
            if place is not None and fields[place] is not None:
                before, answers[part] = split_answer(fields[place], f"column {place!r}")
                prompt = _joined(prompt, before, place)
        if prompt is None:
            raise RowError(_no_prompt(fields))
        rest = {name: value for name, value in fields.items() if name not in places.values()}
        return Example(row, prompt, answers["reference"], answers["rejected"], rest)

    def _check_named_columns(self, fields: Mapping[str, Any]) -> None:
        for part, name in self.names.items():
            if name not in fields:
                raise RowError(f"no column {name!r} for the {part}; its columns are {', '.join(map(repr, fields))}")

    def _place(self, part: str, fields: Mapping[str, Any]) -> str | None:
        """The column that holds a part; None where no column does."""
        if part in self.names:
            return self.names[part]
        if part != "reference":
            return part if part in fields else None
        present = [name for name in REFERENCE_COLUMNS if name in fields and name not in self.names.values()]
        return next((name for name in present if fields[name] is not None), present[0] if present else None)

    def _prompt(self, place: str | None, fields: Mapping[str, Any]) -> Prompt | None:
        value = None if place is None else fields[place]
        return value if value is None or isinstance(value, str) else read_messages(value, f"column {place!r}")


def _joined(prompt: Prompt | None, before: Messages, place: str) -> Prompt | None:
    """The prompt, once the turns before an answer have been compared with it.

    Where the prompt column is the text of the last of these turns, the conversation is the prompt.
    """
    if not before or before == prompt:
        return prompt
    if prompt is None:
        return before
    if isinstance(prompt, str) and before[-1]["role"] == "user" and before[-1]["content"] == prompt:
        return before
    raise RowError(
        f"the messages of column {place!r} before its last do not equal the prompt ({shown(before)} against "
        f"{shown(prompt)}); an answer is one assistant turn that continues the prompt"
    )


def _no_prompt(fields: Mapping[str, Any]) -> str:
    """That the prompt is missing, and the likeliest remedy."""
    remedy = "name it: columns={'prompt': ...}"
    chosen = fields.get("chosen")
    if isinstance(chosen, str) and chosen.lstrip().startswith("Human:"):
        remedy = "these look like HH-RLHF transcripts: pass format='hh'"
    elif {"question", "answer"} <= set(fields):
        remedy = "for GSM8K pass format='gsm8k'; otherwise name it: columns={'prompt': 'question'}"
    elif "messages" in fields:
        remedy = "where the last message is the reference, name it: columns={'reference': 'messages'}"
    elif "prompt" in fields:
        remedy = "its 'prompt' is null: fill it in or take the row out"
    return f"no prompt; its columns are {', '.join(map(repr, fields))}; {remedy}"
