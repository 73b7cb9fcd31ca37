"""Length limits: rows that are too long are dropped, cut or rejected, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from grao.data.example import Example, check_choice
from grao.groups import Group, Member


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """An example with its token ids.

    Example::

        EncodedExample(Example(row=0, prompt="3 + 4 =", reference=" 7"), prompt_ids=(5, 9, 6, 8),
                       reference_ids=(11, 2), rejected_ids=None)
    """

    example: Example
    prompt_ids: tuple[int, ...]
    reference_ids: tuple[int, ...] | None
    """The reference, ending in the end-of-sequence (or end-of-turn) token unless it was cut."""
    rejected_ids: tuple[int, ...] | None

    def as_group(self) -> Group:
        """Return the row as a group without samples."""
        return Group(
            row=self.example.row,
            prompt=self.example.prompt,
            prompt_ids=self.prompt_ids,
            reference=_given(self.reference_ids, self.example.reference),
            rejected=_given(self.rejected_ids, self.example.rejected),
            columns=self.example.columns,
        )


def _given(ids: tuple[int, ...] | None, text: str | None) -> Member | None:
    return None if ids is None or text is None else Member(ids=ids, text=text)


@dataclass(frozen=True, slots=True)
class EncodingReport:
    """Counts of what encoding did to the rows.

    >>> print(EncodingReport(kept=2, dropped=1, dropped_rows=(4,), longest_prompt=31, longest_answer=9))
    kept 2 of 3 rows (longest prompt 31 tokens, longest answer 9); dropped 1 too long (first: row 4)
    """

    kept: int = 0
    dropped: int = 0
    """Rows dropped because they were too long."""
    cut_prompts: int = 0
    cut_answers: int = 0
    """Rows whose reference or rejected answer was cut."""
    separate_answers: int = 0
    """Rows whose chat template does not continue the prompt with the answer; see `Encoder`."""
    dropped_rows: tuple[int, ...] = ()
    longest_prompt: int = 0
    """Tokens, over the rows kept."""
    longest_answer: int = 0

    @property
    def cut(self) -> int:
        """Return the number of prompts and answers cut."""
        return self.cut_prompts + self.cut_answers

    def __str__(self) -> str:
        parts = [
            f"kept {self.kept} of {self.kept + self.dropped} rows (longest prompt {self.longest_prompt} tokens, "
            f"longest answer {self.longest_answer})"
        ]
        if self.dropped:
            parts.append(f"dropped {self.dropped} too long (first: row {self.dropped_rows[0]})")
        if self.cut:
            parts.append(f"cut {self.cut_prompts} prompts from the left and {self.cut_answers} answers from the right")
        if self.separate_answers:
            parts.append(f"encoded {self.separate_answers} answers apart from the chat template")
        return "; ".join(parts)


@dataclass(frozen=True, kw_only=True)
class LengthLimits:
    """Maximum lengths in tokens, and what to do with longer rows."""

    max_prompt_tokens: int | None = None
    max_reference_tokens: int | None = None
    """Limit of the reference and of the rejected answer, including the end-of-sequence token."""
    context_length: int | None = None
    """The model's context, which limits a prompt with its answer."""
    overlong: Literal["drop", "cut", "error"] = "error"
    """Rows over a limit: ``"drop"`` them, ``"cut"`` the prompt from the left (keeping BOS) and answers from the right
    (losing the end-of-sequence token), or raise an ``"error"``."""

    def __post_init__(self) -> None:
        check_choice("overlong", self.overlong, ("drop", "cut", "error"))
        for name, least in (("max_prompt_tokens", 1), ("max_reference_tokens", 1), ("context_length", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least} or None, found {value}")

    def fit(self, row: EncodedExample, bos_token_id: int | None) -> EncodedExample | None:
        """Return the row, cut if necessary, or None to drop it.

        Raises:
            ValueError: The row is too long and `overlong` is ``"error"``.
        """
        prompt_limit = self._limit("max_prompt_tokens", 1, "one token for the answer")
        prompt = row.prompt_ids if self.overlong != "cut" else cut_left(row.prompt_ids, prompt_limit[0], bos_token_id)
        taken = len(prompt)
        answer_limit = self._limit("max_reference_tokens", taken, f"the prompt's {taken}")
        if self.overlong == "cut":
            reference, rejected = (ids and ids[: answer_limit[0]] for ids in (row.reference_ids, row.rejected_ids))
            return replace(row, prompt_ids=prompt, reference_ids=reference, rejected_ids=rejected)
        parts = (
            ("prompt", prompt, prompt_limit),
            ("reference", row.reference_ids, answer_limit),
            ("rejected answer", row.rejected_ids, answer_limit),
        )
        for part, ids, (limit, name) in parts:
            if ids is not None and limit is not None and len(ids) > limit:
                if self.overlong == "drop":
                    return None
                raise ValueError(
                    f"row {row.example.row}: the {part} has {len(ids)} tokens, the limit is {limit} ({name}). "
                    "Raise the limit, or set overlong='drop' or 'cut'"
                )
        return row

    def _limit(self, name: str, taken: int, by: str) -> tuple[int | None, str]:
        """Return the smaller of a limit and the room that the context leaves, and its name."""
        limit: int | None = getattr(self, name)
        if self.context_length is not None and (limit is None or self.context_length - taken < limit):
            return self.context_length - taken, f"the model's context of {self.context_length} minus {by}"
        return limit, name


def cut_left(ids: Sequence[int], length: int | None, bos_token_id: int | None) -> tuple[int, ...]:
    """Return the last `length` tokens (None: all), keeping a beginning-of-sequence token in front.

    >>> cut_left((1, 5, 6, 7), 3, bos_token_id=1)
    (1, 6, 7)
    """
    if length is None or len(ids) <= length:
        return tuple(ids)
    if ids[0] == bos_token_id and length > 1:
        return (ids[0], *ids[len(ids) - length + 1 :])
    return tuple(ids[len(ids) - length :])
