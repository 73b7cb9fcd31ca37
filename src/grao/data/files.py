"""Rows of local files: JSON, JSON Lines and CSV (also gzip-compressed), and Parquet.

Rows keep the file's values and order. Every error names the file and line.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from grao.data.example import Record, describe_value

HTML = ("an HTML page", "Download the file itself (on a hub: the /resolve/ link, not /blob/)")
MISNAMED: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "gzip-compressed data", "Add .gz to its name"),
    (b"PAR1", "a Parquet file", "Rename it to .parquet"),
    (b"PK\x03\x04", "a zip archive", "Unpack it"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data", "Unpack it"),
    (b"version https://git-lfs", "a Git LFS pointer, not the data", "Fetch the data with `git lfs pull`"),
    (b"<!doctype html", *HTML),
    (b"<html", *HTML),
)
"""Files that are often found under a wrong name: first bytes, what they are, remedy."""


def read_file(path: Path) -> Iterator[Record]:
    """Yield the rows of one local file, read by its extension.

    Raises:
        ValueError: The extension is unknown, the file is empty, or its content does not match its extension.
    """
    extension = extension_of(path)
    if extension is None:
        raise ValueError(f"{path} has no known extension. Use one of {', '.join(READERS)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes). Download or write it again")
    return READERS[extension](path)


def extension_of(path: Path | str) -> str | None:
    """Return the longest known extension of a path, or None.

    >>> extension_of("data/train.jsonl.gz")
    '.jsonl.gz'
    """
    name = str(path).lower()
    return max((extension for extension in READERS if name.endswith(extension)), key=len, default=None)


def identify_content(head: bytes) -> tuple[str, str]:
    """Return what a file is by its first bytes, and the remedy."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, description, remedy in MISNAMED:
        if head.startswith(magic) or start.lower().startswith(magic):
            return description, remedy
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)  # accepts a character cut off at the end
    except UnicodeDecodeError:
        return f"bytes that begin {head[:12]!r}", "Check how it was written"
    return f"text that begins {text[:40]!r}", "Check its extension and how it was written"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield numbered lines of a UTF-8 file, decompressed if it is .gz, without a byte-order mark."""
    zipped = path.name.lower().endswith(".gz")
    number, checked = 0, False
    with gzip.open(path, "rb") if zipped else path.open("rb") as file:
        try:
            for number, raw in enumerate(file, 1):
                line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
                if not checked and line.strip():
                    checked = True
                    found, remedy = identify_content(line[:200])
                    if any(found == description for _, description, _ in MISNAMED):
                        expected = extension_of(path)
                        raise ValueError(f"{path}, line {number}: expected {expected} text, found {found}. {remedy}")
                yield number, line.decode("utf-8")
        except gzip.BadGzipFile as error:
            found, remedy = identify_content(_head(path))
            if found == MISNAMED[0][1]:
                raise ValueError(f"{path} is damaged after line {number} ({error}). Download it again") from error
            raise ValueError(f"{path} ends in .gz but is {found}. {remedy}") from error
        except (EOFError, zlib.error) as error:
            raise ValueError(f"{path} is damaged or truncated after line {number}. Download it again") from error
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise ValueError(
                f"{path}, line {number}: byte 0x{byte:02x} is not UTF-8. Save the file as UTF-8"
            ) from error
    if number == 0:
        raise ValueError(f"{path} contains an empty file. Download or write it again")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(200)


def _object_record(path: Path, where: str, fields: Any) -> Record:
    if not isinstance(fields, dict):
        raise ValueError(f"{path}, {where}: expected a JSON object, found {describe_value(fields)}")
    return Record(f"{path.name}, {where}", fields)


def _read_jsonl(path: Path) -> Iterator[Record]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            fields = json.loads(line.rstrip())
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: not JSON ({error.msg} at column {error.colno}): "
                f"{describe_value(line.strip())}. "
                "Write one JSON object per line, or name a file with one JSON list .json"
            ) from error
        yield _object_record(path, f"line {number}", fields)


def _read_json(path: Path) -> Iterator[Record]:
    try:
        rows = json.loads("".join(line for _, line in _lines(path)))
    except json.JSONDecodeError as error:
        remedy = "Rename JSON Lines to .jsonl" if error.msg == "Extra data" else "Write it again as one JSON list"
        raise ValueError(
            f"{path}, line {error.lineno}: not JSON ({error.msg} at column {error.colno}). {remedy}"
        ) from error
    if not isinstance(rows, list):
        raise ValueError(f"{path}: expected a list of objects, found {describe_value(rows)}. Write [{{...}}, ...]")
    for index, fields in enumerate(rows):
        yield _object_record(path, f"item {index}", fields)


def _read_csv(path: Path) -> Iterator[Record]:
    """Yield rows of a CSV file with a header line. Every value is text."""
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    header: list[str] | None = None
    try:
        for values in reader:
            if not values:
                continue
            if header is None:
                if len(set(values)) < len(values) or not all(name.strip() for name in values):
                    raise ValueError(f"{path}, line 1: column names must be unique and not empty, found {values}")
                header = values
                continue
            if len(values) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(values)} values for {len(header)} columns "
                    f"({', '.join(header)}). Put values with commas or newlines in double quotes"
                )
            yield Record(f"{path.name}, line {reader.line_num}", dict(zip(header, values, strict=True)))
    except csv.Error as error:
        raise ValueError(
            f'{path}, line {reader.line_num}: not CSV ({error}). Quote with " and double quotes inside a value'
        ) from error


def _read_parquet(path: Path) -> Iterator[Record]:
    head = _head(path)
    if not head.startswith(b"PAR1"):
        found, remedy = identify_content(head)
        raise ValueError(f"{path} ends in .parquet but is {found}. {remedy}")
    import pyarrow as pa  # slow to import, and only needed here
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for fields in batch.to_pylist():
                    yield Record(f"{path.name}, row {row}", fields)
                    row += 1
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}, row {row}: damaged Parquet file ({reason}). Download or write it again") from error


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".json": _read_json,
    ".json.gz": _read_json,
    ".csv": _read_csv,
    ".csv.gz": _read_csv,
    ".parquet": _read_parquet,
}
"""The reader of each known extension."""
