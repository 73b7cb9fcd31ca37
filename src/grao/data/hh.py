"""Anthropic's HH-RLHF transcripts (Bai et al. 2022, arXiv 2204.05862)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from grao.data.example import Drop, Example, RowError, check_choice, describe_value, text_column
from grao.data.messages import Messages

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"

OnDefect = Literal["drop", "error"]
"""What to do with a row that has a known defect: leave it out and count it, or stop."""


@dataclass(frozen=True)
class HH:
    r"""Rows with two whole transcripts that differ only in the assistant's last answer.

    Example of a row::

        {"chosen": "\n\nHuman: 3 + 4?\n\nAssistant: It is 7.", "rejected": "\n\nHuman: 3 + 4?\n\nAssistant: Eight."}

    It becomes prompt ``"\n\nHuman: 3 + 4?\n\nAssistant:"``, reference ``" It is 7."`` (with its space: prompt +
    reference is the transcript, character by character), rejected ``" Eight."`` and ``turns=1``, the human turns.

    In the published data some rows have two different prompts (2 of 1,800 rows of harmless-base), and some have an
    empty last answer (4 of them). By default they are left out and counted.
    """

    as_messages: bool = False
    """Give the prompt as a conversation, and answers without surrounding space, for chat templates.

    Consecutive turns of one speaker are joined by a blank line, because templates require roles to alternate.
    """
    on_mismatch: OnDefect = "drop"
    """What to do with a row whose transcripts differ before the last answer."""
    on_empty: OnDefect = "drop"
    """What to do with a row that has an empty answer, chosen or rejected."""

    def __post_init__(self) -> None:
        check_choice("as_messages", self.as_messages, (True, False))
        check_choice("on_mismatch", self.on_mismatch, ("drop", "error"))
        check_choice("on_empty", self.on_empty, ("drop", "error"))

    def example(self, row: int, fields: Mapping[str, Any]) -> Example | Drop:
        """Return the row as an example, or why it is left out. Raise `RowError` if it is not a transcript."""
        prompt, chosen = split_transcript(fields, "chosen")
        other, rejected = split_transcript(fields, "rejected")
        if prompt != other:
            return self._defect("on_mismatch", "chosen and rejected differ before the last answer")
        for name, answer in (("chosen", chosen), ("rejected", rejected)):
            if not answer.strip():
                return self._defect("on_empty", f"the last answer of {name} is empty")
        columns = {name: value for name, value in fields.items() if name not in ("chosen", "rejected")}
        columns["turns"] = prompt.count(HUMAN)
        if not self.as_messages:
            return Example(row, prompt, chosen, rejected, columns)
        messages = transcript_messages(prompt.removesuffix(ASSISTANT))
        start = ""
        if messages[-1]["role"] == "assistant":  # the answer continues an assistant turn: join them to one answer
            start = messages.pop()["content"] + "\n\n"
        return Example(row, messages, start + chosen.strip(), start + rejected.strip(), columns)

    def _defect(self, option: str, reason: str) -> Drop:
        """Return a `Drop` to count, or raise a `RowError` that names the option."""
        if getattr(self, option) == "drop":
            return Drop(reason)
        raise RowError(f"{reason}. Correct the row, or drop such rows: {option}='drop'")


def split_transcript(fields: Mapping[str, Any], name: str) -> tuple[str, str]:
    r"""Return a transcript's prompt, including the last ``"\n\nAssistant:"``, and the answer after it.

    >>> split_transcript({"chosen": "\n\nHuman: 3 + 4?\n\nAssistant: 7"}, "chosen")
    ('\n\nHuman: 3 + 4?\n\nAssistant:', ' 7')
    """
    transcript = text_column(fields, name, "hh")
    before, label, answer = transcript.rpartition(ASSISTANT)
    if not label or not before.startswith(HUMAN) or HUMAN in answer:
        raise RowError(
            f"column {name!r} must start with {HUMAN!r} and end with an {ASSISTANT!r} turn, found "
            f"{describe_value(transcript)}. For other data leave out format='hh'"
        )
    return before + label, answer


def transcript_messages(transcript: str) -> Messages:
    """Return a transcript as messages. Join consecutive turns of one speaker and leave out empty ones."""
    parts = re.split(r"\n\n(Human|Assistant):", transcript)
    messages: Messages = []
    for speaker, text in zip(parts[1::2], parts[2::2], strict=True):
        role, content = {"Human": "user", "Assistant": "assistant"}[speaker], text.strip()
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] = "\n\n".join(filter(None, (messages[-1]["content"], content)))
        else:
            messages.append({"role": role, "content": content})
    return messages
