"""Examples from a source: the hub, local files, or rows in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, overload

from grao.data.columns import Columns
from grao.data.example import Drop, Example, Record, RowError, RowFormat, describe_value
from grao.data.files import read_file
from grao.data.gsm8k import GSM8K
from grao.data.hh import HH
from grao.data.paths import local_files

FORMATS: dict[str, type[HH] | type[GSM8K]] = {"hh": HH, "gsm8k": GSM8K}
"""Named layouts. Rows of other data are read by their columns."""

Source = str | Path | Sequence[str | Path] | Iterable[Mapping[str, Any]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Examples(Sequence[Example]):
    """Examples in the order of their source, and the rows that were dropped.

    Example::

        Examples((Example(row=0, ...), Example(row=2, ...)), "hh/train.jsonl.gz",
                 dropped={"the last answer of chosen is empty": (1,)})
    """

    examples: tuple[Example, ...]
    source: str
    """Name of the source, for messages."""
    dropped: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Rows that the options of the format dropped, by reason."""

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Example, ...]: ...
    def __getitem__(self, index: int | slice) -> Example | tuple[Example, ...]:
        return self.examples[index]

    @property
    def num_dropped(self) -> int:
        """Return the number of dropped rows."""
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
        source: A local file (.jsonl, .json, .csv, each also .gz; .parquet), a folder or pattern of such files, a list
            of them, rows in memory (a list of dicts, a `datasets.Dataset`), or a dataset id on the hub. A local file
            or folder comes before a hub dataset of the same name.
        format: ``"hh"``, ``"gsm8k"``, an object that reads rows, or None to read the columns (`Columns`).
        split: Split on the hub (also slices such as ``"train[:100]"``) or in a local folder. Ignored for a file.
        config: Configuration of the hub dataset, such as ``"main"``.
        revision: Branch, tag or commit of the hub dataset.
        columns: Other names of the columns prompt, reference and rejected, if `format` is None.
        skip: Number of rows to skip first.
        limit: Maximum number of rows to read, counted before rows are dropped.
        options: Options of the named format: see `HH` and `GSM8K`.

    Raises:
        FileNotFoundError: The source does not exist.
        ValueError: A file does not match its extension, or rows cannot be read. Names the first and counts all.
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
        raise ValueError(f"columns={dict(columns)} has no effect with a format. Leave out one of the two")
    if isinstance(format, str):
        if format not in FORMATS:
            raise ValueError(f"unknown format={format!r}. Use {', '.join(map(repr, FORMATS))}, or leave it out")
        known = [f.name for f in fields(FORMATS[format])]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ValueError(f"format {format!r} has no option {', '.join(unknown)}. Use {', '.join(known)}")
        return FORMATS[format](**options)
    if options:
        raise ValueError(f"unknown argument {', '.join(sorted(options))}. Options need a format given by name")
    return Columns(columns or {}) if format is None else format


def _open(source: Source, split: str, config: str | None, revision: str | None) -> tuple[str, Iterator[Record]]:
    """Return the source's name and its records, read lazily."""
    if isinstance(source, str | Path):
        paths = local_files(source, split)
        if paths is not None:
            return str(source), chain.from_iterable(map(read_file, paths))
        return str(source), _read_hub(str(source), config, split, revision)
    if isinstance(source, Mapping):  # a `datasets.DatasetDict`, or any mapping from splits to rows
        if split not in source:
            raise ValueError(f"the source has no split {split!r}. Use {', '.join(map(repr, source))}")
        return _open(source[split], split, config, revision)
    if not isinstance(source, Iterable):
        raise ValueError(f"a source must be a path, a hub id or rows, found {describe_value(source)}")
    if isinstance(source, Sequence) and source and all(isinstance(item, str | Path) for item in source):
        opened = [_open(item, split, config, revision) for item in source]
        return ", ".join(name for name, _ in opened), chain.from_iterable(records for _, records in opened)
    return f"the given {type(source).__name__}", _in_memory(source)


def _in_memory(rows: Iterable[Any]) -> Iterator[Record]:
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(f"item {index} of the source must be a dict of columns, found {describe_value(row)}")
        yield Record(f"item {index}", row)


def _read_hub(name: str, config: str | None, split: str, revision: str | None) -> Iterator[Record]:
    """Return the rows of one split of a hub dataset.

    `datasets` lists the known configurations and splits in its own errors, which pass through unchanged.
    """
    import datasets  # slow to import, and not needed for local files
    from datasets.exceptions import DatasetNotFoundError

    try:
        rows = datasets.load_dataset(name, config, split=split, revision=revision)
    except (DatasetNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(
            f"{name!r} is not a local file or folder, and the hub did not provide it ({error}). "
            f"Write a local path as './{name}'; for the hub check the id, the connection and the login"
        ) from error
    return (Record(f"{name} {split}, row {row}", fields) for row, fields in enumerate(rows))


def _read(name: str, records: Iterable[tuple[int, Record]], row_format: RowFormat, skip: int) -> Examples:
    """Read every record, counting all errors before raising the first."""
    examples: list[Example] = []
    dropped: dict[str, list[int]] = {}
    rows, invalid, first = 0, 0, ""
    for row, record in records:
        rows += 1
        try:
            example = row_format.example(row, record.fields)
        except RowError as error:
            invalid += 1
            first = first or f"row {row} of {name} ({record.where}): {error}"
            continue
        if isinstance(example, Drop):
            dropped.setdefault(example.reason, []).append(row)
        else:
            examples.append(example)
    if not rows:
        raise ValueError(f"{name} has no rows" + (f" after the first {skip}" if skip else ""))
    if invalid:
        raise ValueError(f"{first} (rows with a problem: {invalid} of {rows})")
    for reason, places in dropped.items():
        log.warning("%s: dropped %d of %d rows: %s (first: row %d)", name, len(places), rows, reason, places[0])
    if not examples:
        raise ValueError(f"{name}: all {rows} rows were dropped: {'; '.join(dropped)}")
    return Examples(tuple(examples), name, {reason: tuple(places) for reason, places in dropped.items()})
