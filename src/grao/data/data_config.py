"""Configuration sections that read rows: where the rows are, and how they become token ids."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from grao.data.encode import Encoder
from grao.data.load import Examples, load_examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class DataSource:
    """The arguments of `load_examples`, as YAML can hold them.

    Example::

        DataSource("openai/gsm8k", format="gsm8k", config="main", limit=1000).load()
    """

    source: str | list[str]
    """Hub id, file, folder or pattern (.json, .jsonl, .csv, each also .gz; .parquet)."""
    format: Literal["hh", "gsm8k"] | None = None
    """A named layout; null reads the columns prompt, reference (or completion, or chosen), rejected."""
    columns: dict[str, str] = field(default_factory=dict)
    """Other names of the columns: `{prompt: question, reference: solution}`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the named format, such as `as_messages: true` for hh."""
    split: str = "train"
    """Split on the hub, or of the files in a folder."""
    config: str | None = None
    """Configuration of a hub dataset, such as `main`."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    skip: int = 0
    """Number of rows to skip first."""
    limit: int | None = None
    """Maximum number of rows to read."""

    def load(self) -> Examples:
        """Read the rows. Raise what `load_examples` raises."""
        arguments = {field.name: getattr(self, field.name) for field in fields(DataSource) if field.name != "options"}
        return load_examples(**arguments, **self.options)


@dataclass(frozen=True)
class DataConfig(DataSource):
    """Where rows come from, how they are encoded, and what happens to rows that are too long."""

    chat_template: Literal["auto", "always", "plain"] = "auto"
    """`auto`: template conversations only; `always`: text too; `plain`: write transcripts without a template."""
    max_prompt_tokens: int | None = None
    """Longest prompt; null = the model's context."""
    max_reference_tokens: int | None = None
    """Longest reference or rejected answer, including its end token; null = the rest of the model's context."""
    overlong: Literal["drop", "cut", "error"] = "error"
    """Rows that are too long: drop them, cut them (prompt from the left, answer from the right), or stop the run."""

    def encoder(self, tokenizer: PreTrainedTokenizerBase, context_length: int | None) -> Encoder:
        """Return the encoder of these rows for a model with this tokenizer and context length."""
        return Encoder(
            tokenizer,
            chat_template=self.chat_template,
            max_prompt_tokens=self.max_prompt_tokens,
            max_reference_tokens=self.max_reference_tokens,
            context_length=context_length,
            overlong=self.overlong,
        )
