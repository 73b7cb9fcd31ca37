"""Rows of local files: JSON, JSON Lines and CSV (also gzip-compressed), and Parquet.

Reading is plain on purpose: a row is what the file says, in the file's order, and every error names file and line.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from grao.data.row import Record, shown

FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "gzip-compressed data", "add .gz to its name"),
    (b"PAR1", "a Parquet file", "rename it to .parquet"),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data", "unpack it"),
    (b"version https://git-lfs", "a Git LFS pointer, not the data", "fetch the data with `git lfs pull`"),
    (b"<!doctype html", "an HTML page", "download the file itself (on a hub: the /resolve/ link, not /blob/)"),
    (b"<html", "an HTML page", "download the file itself (on a hub: the /resolve/ link, not /blob/)"),
)
"""How files that are not what their ending says begin, what they are, and the remedy."""


def read_file(path: Path) -> Iterator[Record]:
    """The rows of one local file, by its ending.

    Raises:
        ValueError: the ending is not known, the file is empty, or it does not hold what its ending says.
    """
    ending = ending_of(path)
    if ending is None:
        raise ValueError(f"{path} has no ending that can be read: use one of {', '.join(READERS)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): download or write it again")
    return READERS[ending](path)


def ending_of(path: Path | str) -> str | None:
    """The known ending of a path, the longest that fits; None where there is none.

    >>> ending_of("data/train.jsonl.gz")
    '.jsonl.gz'
    """
    name = str(path).lower()
    return max((ending for ending in READERS if name.endswith(ending)), key=len, default=None)


def what_is(head: bytes) -> tuple[str, str]:
    """What a file seems to be by its first bytes, and the remedy."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, description, remedy in FOREIGN:
        if head.startswith(magic) or start.lower().startswith(magic):
            return description, remedy
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)  # a character cut at the end is no error
    except UnicodeDecodeError:
        return f"bytes that begin {head[:12]!r}", "check how it was written"
    return f"text that begins {text[:40]!r}", "check its ending and how it was written"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 file, unzipped where it is .gz; a byte-order mark is taken off."""
    zipped = path.name.lower().endswith(".gz")
    number, begun = 0, False
    with gzip.open(path, "rb") if zipped else path.open("rb") as file:
        try:
            for number, raw in enumerate(file, 1):
                line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
                if not begun and line.strip():
                    begun = True
                    _refuse_foreign(path, number, line)
                yield number, line.decode("utf-8")
        except gzip.BadGzipFile as error:
            found, remedy = what_is(_head(path))
            if found == FOREIGN[0][1]:
                raise ValueError(f"{path} is damaged after line {number} ({error}): download it again") from error
            raise ValueError(f"{path} ends in .gz but is not gzip: it is {found}; {remedy}") from error
        except (EOFError, zlib.error) as error:
            raise ValueError(f"{path} is damaged or cut short after line {number}: download it again") from error
        except UnicodeDecodeError as error:
            bad = error.object[error.start]
            raise ValueError(
                f"{path}, line {number}: byte 0x{bad:02x} is not UTF-8; save the file as UTF-8"
            ) from error
    if number == 0:
        raise ValueError(f"{path} holds an empty file: download or write it again")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(200)


def _refuse_foreign(path: Path, number: int, line: bytes) -> None:
    found, remedy = what_is(line[:200])
    if any(found == description for _, description, _ in FOREIGN):
        raise ValueError(f"{path}, line {number}: expected {ending_of(path)} text, found {found}; {remedy}")


def _read_jsonl(path: Path) -> Iterator[Record]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            fields = json.loads(line.rstrip())
        except json.JSONDecodeError as error:
            found = shown(line.strip())
            raise ValueError(
                f"{path}, line {number}: not JSON ({error.msg} at column {error.colno}): {found}; each line of a "
                ".jsonl file is one whole JSON object (a file with one list of objects ends in .json)"
            ) from error
        if not isinstance(fields, dict):
            raise ValueError(f"{path}, line {number}: expected a JSON object, found {shown(fields)}")
        yield Record(where, fields)


def _read_json(path: Path) -> Iterator[Record]:
    text = "".join(line for _, line in _lines(path))
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        lines = error.msg == "Extra data"
        remedy = "it looks like JSON Lines: rename it to .jsonl" if lines else "write it again as one JSON list"
        raise ValueError(
            f"{path}, line {error.lineno}: not JSON ({error.msg} at column {error.colno}); {remedy}"
        ) from error
    if not isinstance(rows, list):
        raise ValueError(f"{path}: expected a list of objects at the top, found {shown(rows)}; write [{{...}}, ...]")
    for place, fields in enumerate(rows):
        if not isinstance(fields, dict):
            raise ValueError(f"{path}, item {place}: expected a JSON object, found {shown(fields)}")
        yield Record(f"{path.name}, item {place}", fields)


def _read_csv(path: Path) -> Iterator[Record]:
    """Rows of a CSV file with a header line; every value is text."""
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    header: list[str] | None = None
    try:
        for values in reader:
            if not values:
                continue
            if header is None:
                header = _header(path, values)
                continue
            if len(values) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(values)} values under {len(header)} column names "
                    f"({', '.join(header)}); put values that hold commas or newlines in double quotes"
                )
            yield Record(f"{path.name}, line {reader.line_num}", dict(zip(header, values, strict=True)))
    except csv.Error as error:
        raise ValueError(
            f'{path}, line {reader.line_num}: not CSV ({error}); quote with " and double a quote inside a value'
        ) from error


def _header(path: Path, names: list[str]) -> list[str]:
    if len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise ValueError(f"{path}, line 1: column names must be unique and not empty, found {names}")
    return names


def _read_parquet(path: Path) -> Iterator[Record]:
    head = _head(path)
    if not head.startswith(b"PAR1"):
        found, remedy = what_is(head)
        raise ValueError(f"{path} ends in .parquet but is not Parquet: it is {found}; {remedy}")
    from grao.data.parquet import read_parquet

    return read_parquet(path)


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".json": _read_json,
    ".json.gz": _read_json,
    ".csv": _read_csv,
    ".csv.gz": _read_csv,
    ".parquet": _read_parquet,
}
"""Endings that can be read, and how."""
