"""A section of a configuration that reads rows: where they come from, and how they become token ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from grao.data.encode import Encoder
from grao.data.source import DataSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class DataConfig(DataSource):
    """Where rows come from, and what becomes of those that are too long."""

    chat_template: Literal["auto", "always", "plain"] = "auto"
    """`auto` for conversations, `always` for text too, `plain` for transcripts without a template."""
    max_prompt_tokens: int | None = None
    """The longest prompt; null = what the model's context leaves."""
    max_reference_tokens: int | None = None
    """The longest reference or rejected answer, its end included; null = what the model's context leaves."""
    overlong: Literal["drop", "cut", "error"] = "error"
    """A longer row is dropped, cut (prompt from the left, answer from the right), or stops the run."""

    def encoder(self, tokenizer: PreTrainedTokenizerBase, context_length: int | None) -> Encoder:
        """What encodes these rows for a model of this tokenizer and this many positions."""
        return Encoder(
            tokenizer,
            chat_template=self.chat_template,
            max_prompt_tokens=self.max_prompt_tokens,
            max_reference_tokens=self.max_reference_tokens,
            context_length=context_length,
            overlong=self.overlong,
        )
