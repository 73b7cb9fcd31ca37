"""Which rows to read, as a value: what a section of a configuration says and `load_examples` does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from grao.data.load import Examples, load_examples


@dataclass(frozen=True)
class DataSource:
    """The arguments of `load_examples` that YAML can hold. Sections that read rows inherit them.

    Example::

        DataSource("openai/gsm8k", format="gsm8k", config="main", limit=1000).load()
    """

    source: str | list[str]
    """Hub id, file, folder or pattern (.json, .jsonl, .csv, each also .gz; .parquet)."""
    format: Literal["hh", "gsm8k"] | None = None
    """A layout with a name; None reads the columns prompt, reference (or completion, or chosen), rejected."""
    columns: dict[str, str] = field(default_factory=dict)
    """Other names of the columns: `{prompt: question, reference: solution}`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Choices of the named format, such as `as_messages: true` for hh."""
    split: str = "train"
    """On the hub, or of the files in a folder."""
    config: str | None = None
    """Configuration of a hub data set, such as `main`."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    skip: int = 0
    """Rows to pass over first."""
    limit: int | None = None
    """Rows to read at most."""

    def load(self) -> Examples:
        """Read the rows.

        Raises:
            FileNotFoundError, ValueError: as `load_examples`.
        """
        return load_examples(
            self.source,
            self.format,
            self.split,
            config=self.config,
            revision=self.revision,
            columns=self.columns,
            skip=self.skip,
            limit=self.limit,
            **self.options,
        )
