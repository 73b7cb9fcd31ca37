"""From a source (hub, local files, rows in memory) to examples."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, overload

from grao.data.columns import Columns
from grao.data.example import Example
from grao.data.files import read_file
from grao.data.gsm8k import GSM8K
from grao.data.hh import HH
from grao.data.paths import local_files
from grao.data.row import Drop, Record, RowError, RowFormat, shown

FORMATS: dict[str, type[HH] | type[GSM8K]] = {"hh": HH, "gsm8k": GSM8K}
"""Layouts that have a name; rows of every other data set are read by their columns."""

Source = str | Path | Sequence[str | Path] | Iterable[Mapping[str, Any]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Examples(Sequence[Example]):
    """Examples in the order of their source, and the rows that were left out.

    Example::

        Examples((Example(row=0, ...), Example(row=2, ...)), "hh/train.jsonl.gz",
                 dropped={"the last answer of chosen is empty": (1,)})
    """

    examples: tuple[Example, ...]
    source: str
    """What was read, for messages."""
    dropped: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Rows left out by a named choice of the format, by reason."""

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Example, ...]: ...
    def __getitem__(self, place: int | slice) -> Example | tuple[Example, ...]:
        return self.examples[place]

    @property
    def num_dropped(self) -> int:
        """How many rows were left out."""
        return sum(map(len, self.dropped.values()))


def load_examples(
    source: Source,
    format: Literal["hh", "gsm8k"] | RowFormat | None = None,
    split: str = "train",
    *,
    config: str | None = None,
    revision: str | None = None,
    columns: Mapping[str, str] | None = None,
    skip: int = 0,
    limit: int | None = None,
    **options: Any,
) -> Examples:
    """Read examples from a source.

    Example::

        load_examples("data/train.jsonl", columns={"prompt": "question", "reference": "solution"})
        load_examples("Anthropic/hh-rlhf", "hh", as_messages=True, limit=1000)
        load_examples([{"prompt": "3 + 4 =", "reference": "7"}])

    Args:
        source: a local file (.jsonl, .json, .csv, each also .gz; .parquet), a folder or pattern of such files, a list
            of them, rows in memory (a list of dicts, a `datasets.Dataset`), or a dataset id on the hub. What exists
            locally wins.
        format: ``"hh"``, ``"gsm8k"``, an object that reads rows, or None: by the columns' names (`Columns`).
        split: the split on the hub (slices such as ``"train[:100]"`` too) or in a local folder; a file that is
            named is read whatever the split.
        config: the hub dataset's configuration, such as ``"main"``.
        revision: the hub dataset's branch, tag or commit.
        columns: other names of the columns prompt, reference and rejected; for `format` None.
        skip: rows to pass over first.
        limit: rows to read at most, counted before any is dropped.
        options: choices of the named format: see `HH` and `GSM8K`.

    Raises:
        FileNotFoundError: the source is nowhere.
        ValueError: a file is not what its ending says, or rows cannot be read; names the first and counts all.
    """
    row_format = _row_format(format, columns, options)
    if skip < 0 or (limit is not None and limit < 1):
        raise ValueError(f"skip must be at least 0 and limit at least 1 or None, found skip={skip}, limit={limit}")
    name, records = _open(source, split, config, revision)
    window = islice(enumerate(records), skip, None if limit is None else skip + limit)
    return _read(name, window, row_format, skip)


def _row_format(
    format: str | RowFormat | None, columns: Mapping[str, str] | None, options: Mapping[str, Any]
) -> RowFormat:
    if format is not None and columns:
        raise ValueError(f"columns={dict(columns)} has no effect with a format; leave out one of the two")
    if isinstance(format, str):
        if format not in FORMATS:
            raise ValueError(f"format={format!r} is not known: use {', '.join(map(repr, FORMATS))}, or leave it out")
        known = [f.name for f in fields(FORMATS[format])]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ValueError(f"format {format!r} has no choice {', '.join(unknown)}; it has {', '.join(known)}")
        return FORMATS[format](**options)
    if options:
        raise ValueError(f"unknown argument {', '.join(sorted(options))}: choices of a format need its name")
    return Columns(columns or {}) if format is None else format


def _open(source: Source, split: str, config: str | None, revision: str | None) -> tuple[str, Iterator[Record]]:
    """The source's name and its records, lazily."""
    if isinstance(source, str | Path):
        paths = local_files(source, split)
        if paths is not None:
            return str(source), chain.from_iterable(map(read_file, paths))
        from grao.data.hub import read_hub

        return str(source), read_hub(str(source), config=config, split=split, revision=revision)
    if isinstance(source, Mapping):
        return _open(_split_of(source, split), split, config, revision)
    if not isinstance(source, Iterable):
        raise ValueError(f"a source is a path, a hub id or rows, found {shown(source)}")
    if isinstance(source, Sequence) and source and all(isinstance(item, str | Path) for item in source):
        opened = [_open(item, split, config, revision) for item in source]
        return ", ".join(name for name, _ in opened), chain.from_iterable(records for _, records in opened)
    return f"the given {type(source).__name__}", _in_memory(source)


def _split_of(splits: Mapping[str, Any], split: str) -> Any:
    """One split of a `datasets.DatasetDict`, or of any mapping from names to rows."""
    if split not in splits:
        raise ValueError(f"the source has no split {split!r}; it has {', '.join(map(repr, splits))}")
    return splits[split]


def _in_memory(rows: Iterable[Any]) -> Iterator[Record]:
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(f"item {place} of the source must be a dict of columns, found {shown(row)}")
        yield Record(f"item {place}", row)


def _read(name: str, records: Iterable[tuple[int, Record]], row_format: RowFormat, skip: int) -> Examples:
    """Every record through the format: all problems are counted before the first is reported."""
    examples: list[Example] = []
    dropped: dict[str, list[int]] = {}
    rows, bad, first = 0, 0, ""
    for row, record in records:
        rows += 1
        try:
            outcome = row_format.example(row, record.fields)
        except RowError as error:
            bad += 1
            first = first or f"row {row} of {name} ({record.where}): {error}"
            continue
        if isinstance(outcome, Drop):
            dropped.setdefault(outcome.reason, []).append(row)
        else:
            examples.append(outcome)
    if not rows:
        raise ValueError(f"{name} holds no rows" + (f" after the first {skip}" if skip else ""))
    if bad:
        raise ValueError(f"{first}; rows with a problem: {bad} of {rows}")
    for reason, places in dropped.items():
        log.warning("%s: left out %d of %d rows: %s (first: row %d)", name, len(places), rows, reason, places[0])
    if not examples:
        raise ValueError(f"{name}: every one of its {rows} rows was left out: {'; '.join(dropped)}")
    return Examples(tuple(examples), name, {reason: tuple(places) for reason, places in dropped.items()})
