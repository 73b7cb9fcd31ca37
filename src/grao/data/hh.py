"""Anthropic's HH-RLHF transcripts (Bai et al. 2022, arXiv 2204.05862)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grao.data.example import Example
from grao.data.messages import Messages
from grao.data.row import Drop, OnProblem, RowError, check_choice, problem_with, shown

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


@dataclass(frozen=True)
class HH:
    r"""Rows that hold two whole transcripts, the same but for the assistant's last answer.

    Example of a row::

        {"chosen": "\n\nHuman: 3 + 4?\n\nAssistant: It is 7.", "rejected": "\n\nHuman: 3 + 4?\n\nAssistant: Eight."}

    It becomes prompt ``"\n\nHuman: 3 + 4?\n\nAssistant:"``, reference ``" It is 7."`` (with its space: prompt +
    reference is the transcript, character by character), rejected ``" Eight."`` and ``turns=1``, the human turns.

    The published data holds rows in which the two prompts differ (2 of 1,800 rows of harmless-base) and rows with
    an empty last answer (4 of them). They are left out and counted, unless a choice below says to stop.
    """

    as_messages: bool = False
    """Give the prompt as a conversation, and answers without surrounding space, for chat templates.

    Turns of one speaker that follow each other are joined by a blank line: templates ask for alternation.
    """
    on_mismatch: OnProblem = "drop"
    """What to do with a row whose transcripts differ before the last answer."""
    on_empty: OnProblem = "drop"
    """What to do with a row that has an empty answer, chosen or rejected."""

    def __post_init__(self) -> None:
        check_choice("as_messages", self.as_messages, (True, False))
        check_choice("on_mismatch", self.on_mismatch, ("drop", "error"))
        check_choice("on_empty", self.on_empty, ("drop", "error"))

    def example(self, row: int, fields: Mapping[str, Any]) -> Example | Drop:
        """The row as an example, or why it is left out."""
        prompt, chosen = split_transcript(fields, "chosen")
        other, rejected = split_transcript(fields, "rejected")
        if prompt != other:
            return problem_with(
                self.on_mismatch,
                "chosen and rejected differ before the last answer",
                "correct the row, or leave such rows out: on_mismatch='drop'",
            )
        for name, answer in (("chosen", chosen), ("rejected", rejected)):
            if not answer.strip():
                return problem_with(
                    self.on_empty,
                    f"the last answer of {name} is empty",
                    "correct the row, or leave such rows out: on_empty='drop'",
                )
        columns = {name: value for name, value in fields.items() if name not in ("chosen", "rejected")}
        columns["turns"] = prompt.count(HUMAN)
        if not self.as_messages:
            return Example(row, prompt, chosen, rejected, columns)
        messages = transcript_messages(prompt.removesuffix(ASSISTANT))
        said = ""
        if messages[-1]["role"] == "assistant":  # the answer goes on with the assistant's turn: one turn, one answer
            said = messages.pop()["content"] + "\n\n"
        return Example(row, messages, said + chosen.strip(), said + rejected.strip(), columns)


def split_transcript(fields: Mapping[str, Any], name: str) -> tuple[str, str]:
    r"""A transcript's prompt, up to and with the last ``"\n\nAssistant:"``, and the answer after it.

    >>> split_transcript({"chosen": "\n\nHuman: 3 + 4?\n\nAssistant: 7"}, "chosen")
    ('\n\nHuman: 3 + 4?\n\nAssistant:', ' 7')
    """
    transcript = fields.get(name)
    if not isinstance(transcript, str):
        found = f"found {shown(transcript)}" if name in fields else f"the columns are {', '.join(map(repr, fields))}"
        raise RowError(f"column {name!r} must hold an HH-RLHF transcript, {found}; for other data leave out format")
    before, label, answer = transcript.rpartition(ASSISTANT)
    if not label or not before.startswith(HUMAN) or HUMAN in answer:
        raise RowError(
            f"column {name!r} is no HH-RLHF transcript: it must start with {HUMAN!r} and end with an {ASSISTANT!r} "
            f"turn, found {shown(transcript)}; for other data leave out format"
        )
    return before + label, answer


def transcript_messages(transcript: str) -> Messages:
    """A transcript as messages; turns of one speaker that follow each other are joined, empty ones left out."""
    parts = re.split(r"\n\n(Human|Assistant):", transcript)
    messages: Messages = []
    for speaker, text in zip(parts[1::2], parts[2::2], strict=True):
        role, content = {"Human": "user", "Assistant": "assistant"}[speaker], text.strip()
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] = "\n\n".join(filter(None, (messages[-1]["content"], content)))
        else:
            messages.append({"role": role, "content": content})
    return messages
