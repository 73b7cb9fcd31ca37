"""From text to token ids: a prompt as the model will see it, and the answers that continue it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from grao.data.chat import end_of_turn, render, templated_answer, transcript
from grao.data.example import Example
from grao.data.lengths import EncodedExample, EncodingReport, Limits, Overlong
from grao.data.row import check_choice
from grao.groups import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ChatTemplate = Literal["auto", "always", "plain"]

ANCHOR = "\n"


@dataclass(frozen=True)
class Encoder:
    """Turns examples into token ids, such that decoding prompt_ids + reference_ids gives the text.

    Text prompts: the prompt with the special tokens the tokenizer itself puts in front (BOS), then the answer and
    the end-of-sequence token. Conversations: the chat template with its generation prompt, then exactly what the
    template adds for the answer, up to and with the end-of-turn token.

    A few templates write a prompt differently once it is answered. The answer then is its own tokens and the
    end-of-turn token, right after the generation prompt: what a sample would look like. A warning says so once, and
    the report counts it.
    """

    tokenizer: PreTrainedTokenizerBase
    chat_template: ChatTemplate = "auto"
    """``"auto"``: conversations through the template, text as it is. ``"always"``: text too, as one user turn.
    ``"plain"``: no template; a conversation becomes a transcript, ``User: ...``, blank line, ``Assistant:``."""
    max_prompt_tokens: int | None = None
    max_reference_tokens: int | None = None
    """Limit of the reference and of the rejected answer, the end-of-sequence token included."""
    context_length: int | None = None
    """What the model can read at once; no prompt with its answer may be longer."""
    overlong: Overlong = "error"
    """What to do with longer rows: ``"drop"`` them, ``"cut"`` the prompt from the left (BOS stays) and answers from
    the right (so without end-of-sequence), or ``"error"``."""

    def __post_init__(self) -> None:
        check_choice("chat_template", self.chat_template, ("auto", "always", "plain"))
        if self.tokenizer.eos_token_id is None:
            raise ValueError(
                "the tokenizer has no end-of-sequence token, so no answer could end; set tokenizer.eos_token to a "
                "token of its vocabulary"
            )
        if self.chat_template == "always" and not self.tokenizer.chat_template:
            raise ValueError(
                "chat_template='always', but the tokenizer has none; set tokenizer.chat_template, or use 'auto'"
            )
        self._limits  # noqa: B018 (limits that make no sense fail here, not at the first row)

    @cached_property
    def _limits(self) -> Limits:
        return Limits(self.max_prompt_tokens, self.max_reference_tokens, self.context_length, self.overlong)

    @cached_property
    def _end_of_turn(self) -> str:
        return end_of_turn(self.tokenizer)

    @cached_property
    def _anchor_ids(self) -> list[int]:
        return self._ids(ANCHOR)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer: end-of-sequence, and the chat template's end of turn where it differs."""
        eos = self.tokenizer.eos_token_id
        templated = self.chat_template != "plain" and self.tokenizer.chat_template
        last = self._ids(self._end_of_turn)[-1:] if templated else []
        return tuple(dict.fromkeys([eos, *last]))

    def encode(self, example: Example) -> EncodedExample:
        """The whole example as token ids; limits are applied by `encode_all`.

        Raises:
            ValueError: names the row: a conversation without a chat template, one the template refuses, or a prompt
                that gives no tokens.
        """
        encoded, separate = self._encode(example)
        if separate:
            self._say_separate(1)
        return encoded

    def encode_all(self, examples: Iterable[Example]) -> tuple[list[EncodedExample], EncodingReport]:
        """Every example that may stay, in order, and a report of those that were dropped or cut.

        Raises:
            ValueError: as `encode`; a row is too long and `overlong` is ``"error"``; or no row is left.
        """
        kept: list[EncodedExample] = []
        dropped: list[int] = []
        cut_prompts = cut_answers = separate_answers = 0
        for example in examples:
            whole, separate = self._encode(example)
            fitted = self._limits.fit(whole, self.tokenizer.bos_token_id)
            if fitted is None:
                dropped.append(example.row)
                continue
            kept.append(fitted)
            separate_answers += separate
            cut_prompts += fitted.prompt_ids != whole.prompt_ids
            cut_answers += _answers(fitted) != _answers(whole)
        if not kept:
            found = f"every one of the {len(dropped)} rows is too long; raise the limits" if dropped else "no rows"
            raise ValueError(f"nothing is left: {found}")
        if separate_answers:
            self._say_separate(separate_answers)
        return kept, EncodingReport(
            kept=len(kept),
            dropped=len(dropped),
            cut_prompts=cut_prompts,
            cut_answers=cut_answers,
            separate_answers=separate_answers,
            dropped_rows=tuple(dropped),
            longest_prompt=max(len(row.prompt_ids) for row in kept),
            longest_answer=max(len(ids or ()) for row in kept for ids in _answers(row)),
        )

    def _encode(self, example: Example) -> tuple[EncodedExample, bool]:
        """The example's ids, and whether an answer had to be encoded apart from the template."""
        prompt = self._written(example)
        lead = " " if self.chat_template == "plain" and prompt is not example.prompt else ""  # "Assistant: It is 7."
        separate = False
        try:
            prompt_ids = self._prompt_ids(prompt)
            answers: list[tuple[int, ...] | None] = []
            for text in (example.reference, example.rejected):
                if text is None:
                    answers.append(None)
                    continue
                ids, apart = self._answer_ids(prompt, prompt_ids, lead + text)
                answers.append(tuple(ids))
                separate |= apart
        except ValueError as error:
            raise ValueError(f"row {example.row}: {error}") from error
        if not prompt_ids:
            raise ValueError(f"row {example.row}: the tokenizer gives no tokens for the prompt {prompt!r}")
        return EncodedExample(example, tuple(prompt_ids), *answers), separate

    def _written(self, example: Example) -> Prompt:
        """The prompt as it will be tokenised: text as it is, or a conversation for the chat template."""
        prompt = example.prompt
        if isinstance(prompt, str):
            return [{"role": "user", "content": prompt}] if self.chat_template == "always" else prompt
        if self.chat_template == "plain":
            return transcript(prompt)
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"row {example.row}: the prompt is a conversation and the tokenizer has no chat template; use an "
                "instruction-tuned model's tokenizer, set tokenizer.chat_template, or choose chat_template='plain' "
                "for 'User: ... Assistant:' transcripts"
            )
        return prompt

    def _prompt_ids(self, prompt: Prompt) -> list[int]:
        if not isinstance(prompt, str):
            return self._ids(render(self.tokenizer, prompt, for_answer=True))
        ids = self._ids(prompt)
        if not ids or not self.tokenizer.num_special_tokens_to_add():
            return ids
        whole = list(self.tokenizer(prompt, verbose=False)["input_ids"])
        start = next((k for k in range(len(whole)) if whole[k : k + len(ids)] == ids), None)
        if start is None:
            return whole
        # What the tokenizer adds behind (an EOS, a SEP) would end the text before the answer: only the front is kept.
        front = whole[:start]
        return ids if ids[:start] == front else front + ids  # text that already holds its BOS gets no second

    def _answer_ids(self, prompt: Prompt, prompt_ids: list[int], answer: str) -> tuple[list[int], bool]:
        if isinstance(prompt, str):
            return self._ended(self._continued(answer)), False
        end = self._end_of_turn
        whole, added = templated_answer(self.tokenizer, prompt, answer, end)
        if added is None:
            return self._ended(self._continued(answer + end), end), True
        whole_ids = self._ids(whole)
        prefixed = whole_ids[: len(prompt_ids)] == prompt_ids
        # Not prefixed: a token spans the boundary. A sample could not have drawn it, so the added text stands alone.
        return self._ended(whole_ids[len(prompt_ids) :] if prefixed else self._continued(added), end), False

    def _continued(self, answer: str) -> list[int]:
        """The ids of text that goes on from a prompt.

        Some tokenizers write a space before any text (``▁It``); after a prompt that space would be a change of the
        text. Encoded behind an anchor, it goes to the anchor, which is then taken off.
        """
        anchored = self._ids(ANCHOR + answer)
        n = len(self._anchor_ids)
        return anchored[n:] if anchored[:n] == self._anchor_ids else self._ids(answer)

    def _ended(self, ids: list[int], end: str = "") -> list[int]:
        """The ids with an end: what the template wrote, or one end-of-sequence token."""
        eos = self.tokenizer.eos_token_id
        return ids if end or ids[-1:] == [eos] else [*ids, eos]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _say_separate(self, rows: int) -> None:
        warnings.warn(
            f"the chat template writes the prompt of {rows} row{'s' * (rows > 1)} differently once it is answered; "
            f"there the answer is encoded alone and ended with {self._end_of_turn or self.tokenizer.eos_token!r}",
            UserWarning,
            stacklevel=3,
        )


def _answers(row: EncodedExample) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    return row.reference_ids, row.rejected_ids


def ensure_pad_token(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Give a tokenizer without a padding token its end-of-sequence token for that; a sentence that says so, or None.

    It is safe here: which tokens are real is always said by a mask, never found out from their ids.

    Raises:
        ValueError: there is no end-of-sequence token either.
    """
    if tokenizer.pad_token_id is not None:
        return None
    if tokenizer.eos_token is None:
        raise ValueError("the tokenizer has neither a padding nor an end-of-sequence token; set tokenizer.pad_token")
    tokenizer.pad_token = tokenizer.eos_token
    return f"the tokenizer has no padding token: {tokenizer.eos_token!r}, its end-of-sequence token, is used"
