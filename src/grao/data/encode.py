"""Token ids of prompts and of the answers that continue them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from grao.data.example import Example, check_choice
from grao.data.lengths import EncodedExample, EncodingReport, LengthLimits
from grao.data.messages import end_of_turn, render, templated_answer, transcript
from grao.groups import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANCHOR = "\n"


@dataclass(frozen=True)
class Encoder(LengthLimits):
    """Encodes examples so that decoding prompt_ids + reference_ids gives the text.

    Text: the special tokens that the tokenizer puts in front (BOS), the prompt, the answer, the end-of-sequence
    token. Conversations: the chat template with its generation prompt, then exactly what the template adds for the
    answer, including the end-of-turn token.

    A few templates write a prompt differently once it is answered. Then the answer is encoded on its own and ended
    with the end-of-turn token, as a completion would be; the encoder warns once and the report counts these rows.
    """

    tokenizer: PreTrainedTokenizerBase
    chat_template: Literal["auto", "always", "plain"] = "auto"
    """``"auto"``: apply the template to conversations only. ``"always"``: also to text, as one user message.
    ``"plain"``: no template; write a conversation as a transcript, ``User: ...``, blank line, ``Assistant:``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("chat_template", self.chat_template, ("auto", "always", "plain"))
        if self.tokenizer.eos_token_id is None:
            raise ValueError(
                "the tokenizer has no end-of-sequence token, so answers would never end. Set tokenizer.eos_token to "
                "a token of its vocabulary"
            )
        if self.chat_template == "always" and not self.tokenizer.chat_template:
            raise ValueError(
                "chat_template='always', but the tokenizer has no template. Set tokenizer.chat_template, or use 'auto'"
            )

    @cached_property
    def _end_of_turn(self) -> str:
        return end_of_turn(self.tokenizer)

    @cached_property
    def _anchor_ids(self) -> list[int]:
        return self._ids(ANCHOR)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Return the stop tokens: end-of-sequence, and the chat template's end of turn if it differs."""
        eos = self.tokenizer.eos_token_id
        templated = self.chat_template != "plain" and self.tokenizer.chat_template
        last = self._ids(self._end_of_turn)[-1:] if templated else []
        return tuple(dict.fromkeys([eos, *last]))

    def encode(self, example: Example) -> EncodedExample:
        """Return the example's token ids. Does not apply the limits: see `encode_all`.

        Raises:
            ValueError: Names the row: a conversation without a chat template, one that the template rejects, or a
                prompt without tokens.
        """
        encoded, separate = self._encode(example)
        if separate:
            self._warn_separate(1)
        return encoded

    def encode_all(self, examples: Iterable[Example]) -> tuple[list[EncodedExample], EncodingReport]:
        """Return the encoded examples within the limits, in order, and a report of dropped and cut rows.

        Raises:
            ValueError: As `encode`; a row is too long and `overlong` is ``"error"``; or no row is left.
        """
        rows: list[EncodedExample] = []
        dropped: list[int] = []
        cut_prompts = cut_answers = separate_answers = 0
        for example in examples:
            whole, separate = self._encode(example)
            fitted = self.fit(whole, self.tokenizer.bos_token_id)
            if fitted is None:
                dropped.append(example.row)
                continue
            rows.append(fitted)
            separate_answers += separate
            cut_prompts += fitted.prompt_ids != whole.prompt_ids
            cut_answers += _answers(fitted) != _answers(whole)
        if not rows:
            found = f"all {len(dropped)} rows are too long. Raise the limits" if dropped else "there are no rows"
            raise ValueError(f"nothing to encode: {found}")
        if separate_answers:
            self._warn_separate(separate_answers)
        return rows, EncodingReport(
            kept=len(rows),
            dropped=len(dropped),
            cut_prompts=cut_prompts,
            cut_answers=cut_answers,
            separate_answers=separate_answers,
            dropped_rows=tuple(dropped),
            longest_prompt=max(len(row.prompt_ids) for row in rows),
            longest_answer=max(len(ids or ()) for row in rows for ids in _answers(row)),
        )

    def _encode(self, example: Example) -> tuple[EncodedExample, bool]:
        """Return the example's ids, and whether an answer was encoded apart from the template."""
        try:
            prompt = self._prompt(example.prompt)
            space = " " if self.chat_template == "plain" and prompt is not example.prompt else ""  # "Assistant: 7."
            prompt_ids = self._prompt_ids(prompt)
            if not prompt_ids:
                raise ValueError(f"the tokenizer gives no tokens for the prompt {prompt!r}")
            answers = [
                (None, False) if text is None else self._answer_ids(prompt, prompt_ids, space + text)
                for text in (example.reference, example.rejected)
            ]
        except ValueError as error:
            raise ValueError(f"row {example.row}: {error}") from error
        ids = (None if ids is None else tuple(ids) for ids, _ in answers)
        return EncodedExample(example, tuple(prompt_ids), *ids), any(separate for _, separate in answers)

    def _prompt(self, prompt: Prompt) -> Prompt:
        """Return the prompt to tokenise: text, or a conversation for the chat template."""
        if isinstance(prompt, str):
            return [{"role": "user", "content": prompt}] if self.chat_template == "always" else prompt
        if self.chat_template == "plain":
            return transcript(prompt)
        if not self.tokenizer.chat_template:
            raise ValueError(
                "the prompt is a conversation, but the tokenizer has no chat template. Set tokenizer.chat_template, "
                "or use chat_template='plain' for 'User: ... Assistant:' transcripts"
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
        # Special tokens behind the text (EOS, SEP) would end it before the answer, so only those in front are kept.
        front = whole[:start]
        return ids if ids[:start] == front else front + ids  # no second BOS for text that has one

    def _answer_ids(self, prompt: Prompt, prompt_ids: list[int], answer: str) -> tuple[list[int], bool]:
        """Return the answer's ids, and whether it was encoded apart from the template."""
        if isinstance(prompt, str):
            return self._ended(self._continued(answer)), False
        end = self._end_of_turn
        whole, added = templated_answer(self.tokenizer, prompt, answer, end)
        if added is None:
            return self._ended(self._continued(answer + end), end), True
        whole_ids = self._ids(whole)
        prefixed = whole_ids[: len(prompt_ids)] == prompt_ids
        # Not prefixed: a token spans the boundary. The policy could not sample it, so encode the answer on its own.
        return self._ended(whole_ids[len(prompt_ids) :] if prefixed else self._continued(added), end), False

    def _continued(self, answer: str) -> list[int]:
        """Return the ids of text that continues a prompt.

        Some tokenizers put a space before any text (``▁It``), which would change the text after a prompt. Encoding
        behind an anchor gives that space to the anchor, which is then removed.
        """
        anchored = self._ids(ANCHOR + answer)
        n = len(self._anchor_ids)
        return anchored[n:] if anchored[:n] == self._anchor_ids else self._ids(answer)

    def _ended(self, ids: list[int], end: str = "") -> list[int]:
        """Return ids that end with the template's `end`, or else with one end-of-sequence token."""
        eos = self.tokenizer.eos_token_id
        return ids if end or ids[-1:] == [eos] else [*ids, eos]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _warn_separate(self, rows: int) -> None:
        warnings.warn(
            f"the chat template rewrites the prompt of {rows} row{'s' * (rows > 1)} once it is answered. Their "
            f"answers are encoded on their own and end with {self._end_of_turn or self.tokenizer.eos_token!r}",
            UserWarning,
            stacklevel=3,
        )


def _answers(row: EncodedExample) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    return row.reference_ids, row.rejected_ids


def ensure_pad_token(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Pad with the end-of-sequence token if the tokenizer has no padding token. Return a notice, or None.

    This is safe because real tokens are marked by masks, never recognised by their ids.

    Raises:
        ValueError: There is no end-of-sequence token either.
    """
    if tokenizer.pad_token_id is not None:
        return None
    if tokenizer.eos_token is None:
        raise ValueError("the tokenizer has no padding and no end-of-sequence token. Set tokenizer.pad_token")
    tokenizer.pad_token = tokenizer.eos_token
    return f"the tokenizer has no padding token: using its end-of-sequence token {tokenizer.eos_token!r}"
