"""Local files: the rows read, and the error of each broken file."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grao.data.files import extension_of, read_file

ROWS: list[dict[str, Any]] = [
    {"prompt": "3 + 4 =", "reference": "7\nand no more", "level": 1},
    {"prompt": 'say "so", please', "reference": "ü → 𝄞", "level": 2},
]


def text_of(extension: str) -> str:
    if extension.startswith(".jsonl"):
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    if extension.startswith(".json"):
        return json.dumps(ROWS, indent=1)
    return 'prompt,reference,level\n3 + 4 =,"7\nand no more",1\n"say ""so"", please",ü → 𝄞,2\n'


def write(folder: Path, extension: str) -> Path:
    path = folder / f"rows{extension}"
    if extension == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        data = text_of(extension).encode()
        path.write_bytes(gzip.compress(data) if extension.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("extension", [".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet"])
def test_every_extension_gives_the_rows_written(tmp_path: Path, extension: str) -> None:
    """Oracle: the rows themselves; a CSV holds text only, so there the level is text."""
    expected = [{**row, "level": str(row["level"])} for row in ROWS] if "csv" in extension else ROWS
    assert [record.fields for record in read_file(write(tmp_path, extension))] == expected


@pytest.mark.parametrize("extension", [".jsonl", ".jsonl.gz", ".csv", ".parquet"])
def test_the_datasets_library_reads_the_same_rows(tmp_path: Path, extension: str) -> None:
    """Oracle: `datasets.load_dataset` on the same file (it guesses that a CSV's level is a number)."""
    path = write(tmp_path, extension)
    builder = {".jsonl": "json", ".jsonl.gz": "json", ".csv": "csv", ".parquet": "parquet"}[extension]
    theirs = datasets.load_dataset(builder, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    ours = [{**record.fields, "level": int(record.fields["level"])} for record in read_file(path)]
    assert ours == list(theirs)


def test_a_record_names_its_line(tmp_path: Path) -> None:
    """Oracle: counted by hand; the first CSV row spans lines 2 and 3 and is known by where it ends."""
    where = {
        extension: [r.where for r in read_file(write(tmp_path, extension))]
        for extension in (".jsonl", ".csv", ".json")
    }
    assert where[".jsonl"] == ["rows.jsonl, line 1", "rows.jsonl, line 2"]
    assert where[".csv"] == ["rows.csv, line 3", "rows.csv, line 4"]
    assert where[".json"] == ["rows.json, item 0", "rows.json, item 1"]


def test_a_byte_order_mark_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    """Oracle: the row without them; its line is counted with the blank one."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf\n{"prompt": "a"}\n\n')
    assert [(r.where, r.fields) for r in read_file(path)] == [("rows.jsonl, line 2", {"prompt": "a"})]


def test_the_longest_extension_counts() -> None:
    """Oracle: by hand."""
    assert extension_of("a/B.JSONL.GZ") == ".jsonl.gz"
    assert extension_of("a/json") is None


HTML = b"\n<!DOCTYPE html>\n<html><body>Not found</body></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
PARQUET = b"PAR1\x15\x04\x15"
GOOD = b'{"prompt": "a"}\n'

BROKEN: list[tuple[str, bytes, str]] = [
    # name, bytes, error
    ("rows.txt", b"a", r"rows\.txt has no known extension\. Use one of \.jsonl, .*\.parquet"),
    ("rows.jsonl", b"", r"rows\.jsonl is empty \(0 bytes\)"),
    ("rows.parquet", b"", r"rows\.parquet is empty"),
    ("rows.jsonl.gz", gzip.compress(b"", mtime=0), r"rows\.jsonl\.gz contains an empty file"),
    (
        "rows.jsonl",
        GOOD + b'{"prompt": \n',
        r"rows\.jsonl, line 2: not JSON \(Expecting value at column 11\).*one JSON object per line",
    ),
    ("rows.jsonl", GOOD + b'["a"]\n', r"line 2: expected a JSON object, found list \['a'\]"),
    ("rows.jsonl", b'[\n{"prompt": "a"}\n]', r"line 1: not JSON.*one JSON list \.json"),
    ("rows.jsonl", GOOD + b'{"prompt": "\xff"}\n', r"line 2: byte 0xff is not UTF-8\. Save the file as UTF-8"),
    ("rows.jsonl", HTML, r"line 2: expected \.jsonl text, found an HTML page"),
    ("rows.jsonl", LFS, r"found a Git LFS pointer, not the data\. Fetch the data with `git lfs pull`"),
    ("rows.jsonl", PARQUET, r"found a Parquet file\. Rename it to \.parquet"),
    ("rows.jsonl", gzip.compress(GOOD, mtime=0), r"found gzip-compressed data\. Add \.gz to its name"),
    ("rows.jsonl.gz", GOOD, r"ends in \.gz but is text that begins '\{\"prompt\": \"a\"\}"),
    ("rows.jsonl.gz", HTML, r"ends in \.gz but is an HTML page\. Download the file itself"),
    ("rows.jsonl.gz", gzip.compress(HTML, mtime=0), r"line 2: expected \.jsonl\.gz text, found an HTML page"),
    (
        "rows.jsonl.gz",
        gzip.compress(GOOD * 2000, mtime=0)[:-8],
        r"damaged or truncated after line 2000\. Download it again",
    ),
    ("rows.jsonl.gz", gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8, r"is damaged after line 1 \(CRC check failed"),
    ("rows.json", GOOD + GOOD, r"rows\.json, line 2: not JSON \(Extra data.*Rename JSON Lines to \.jsonl"),
    ("rows.json", b'[{"prompt": "a"},\n {"prompt"', r"rows\.json, line 2: not JSON.*Write it again as one JSON list"),
    ("rows.json", b'{"data": []}', r"expected a list of objects, found dict"),
    ("rows.json", b'[{"prompt": "a"}, 3]', r"item 1: expected a JSON object, found int 3"),
    ("rows.csv", b"prompt,reference\na,b\nc\n", r"line 3: 1 values for 2 columns \(prompt, reference\)"),
    ("rows.csv", b"prompt,reference\na,b,c\n", r"line 2: 3 values for 2 columns.*double quotes"),
    ("rows.csv", b"prompt,prompt\na,b\n", r"line 1: column names must be unique and not empty"),
    ("rows.csv", b'prompt,reference\na,"b\n', r"line 2: not CSV \(unexpected end of data\)"),
    ("rows.csv", HTML, r"expected \.csv text, found an HTML page"),
    ("rows.parquet", b"just text\n", r"ends in \.parquet but is text that begins 'just text"),
    ("rows.parquet", LFS, r"ends in .parquet but is a Git LFS pointer"),
    ("rows.parquet", b"\x80\x81\x82", r"ends in .parquet but is bytes that begin b'\\x80\\x81\\x82'"),
    ("rows.parquet", PARQUET + b"\0" * 20, r"rows\.parquet, row 0: damaged Parquet file"),
]


@pytest.mark.parametrize(("name", "data", "message"), BROKEN)
def test_the_error_of_a_broken_file_names_line_defect_and_remedy(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    """Oracle: the defect that was written into the file, and the line it was written on."""
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match="(?s)" + message) as raised:
        list(read_file(path))
    assert str(path) in str(raised.value)


def test_rows_before_a_broken_line_are_read_lazily(tmp_path: Path) -> None:
    """Oracle: the first row arrives although the second is broken."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + b"{")
    assert next(iter(read_file(path))).fields == {"prompt": "a"}


def test_a_truncated_parquet_file_is_named(tmp_path: Path) -> None:
    """Oracle: a good file with its footer cut off."""
    path = write(tmp_path, ".parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*damaged Parquet.*Download"):
        list(read_file(path))
