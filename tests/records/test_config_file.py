"""YAML as the library reads and writes it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from grao.records.config_file import format_yaml, load_yaml, parse_yaml

NUMBERS = {"1e-6": 1e-6, "1E5": 1e5, "-2e+3": -2000.0, "1.5e-6": 1.5e-6, "1.e2": 100.0, "1e-06": 1e-6}


@pytest.mark.parametrize(("text", "value"), NUMBERS.items())
def test_numbers_with_exponents_are_numbers(text: str, value: float) -> None:
    """Oracle: Python's float; PyYAML alone reads the first as text."""
    assert parse_yaml(f"x: {text}") == {"x": value}
    assert parse_yaml(f"x: '{text}'") == {"x": text}


@pytest.mark.parametrize("text", ["e5", "1e", "12e3x", "1e-6 tokens", "v1e5", "0x1e", "1_000"])
def test_other_words_are_read_as_before(text: str) -> None:
    """Oracle: PyYAML's own reader."""
    assert parse_yaml(f"x: {text}") == yaml.safe_load(f"x: {text}")


VALUES: list[Any] = [
    1e-6,
    1e300,
    1 / 3,
    -0.0,
    0,
    7,
    True,
    None,
    "",
    "1e-6",
    "1E5",
    "no",
    "null",
    "3",
    "a: b",
    "∑\n x",
    [],
]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Oracle: equality by type and value, through a file and through JSON's exact floats; PyYAML reads the same."""
    content = {f"key{i}": value for i, value in enumerate(VALUES)} | {"list": VALUES, "deep": {"a": {"b": VALUES}}}
    text = format_yaml(content)
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    read = load_yaml(tmp_path / "c.yaml")
    assert json.dumps(read) == json.dumps(content)
    assert json.dumps(yaml.safe_load(text)) == json.dumps(content)
    assert "&" not in text  # no anchors, although VALUES occurs twice


def test_a_repeated_key_is_named_with_both_lines(tmp_path: Path) -> None:
    """Oracle: the lines counted by hand; a section below is looked at too."""
    path = tmp_path / "c.yaml"
    path.write_text("objective:\n  beta: 0.5\n  lam: 0.6\n  beta: 0.3\n")
    with pytest.raises(
        ValueError, match=r"c\.yaml is not valid YAML: the key 'beta' is given twice, first in line 2"
    ) as raised:
        load_yaml(path)
    assert "Keep one of them" in str(raised.value)
    assert "line 4" in str(raised.value)


def test_merge_keys_may_repeat(tmp_path: Path) -> None:
    """Oracle: the YAML merge-key rule (a section's own value wins), through two levels."""
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, y: 4}\n"
    assert parse_yaml(text) == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": {"x": 3, "y": 4}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2\n", "contains a list. Write a mapping"),
        ("", "contains nothing. Write a mapping"),
        ("just text", "contains a str. Write a mapping"),
        ("a: [1, 2", "is not valid YAML: "),
        ("a: !!python/object/apply:os.getcwd []", "is not valid YAML: "),
    ],
)
def test_what_is_no_config(tmp_path: Path, text: str, message: str) -> None:
    """Oracle: the error message, with the file's name."""
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{path} {message}")):
        load_yaml(path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """Oracle: the error message."""
    (tmp_path / "c.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(ValueError, match=r"c\.yaml is not valid YAML: 'utf-8' codec"):
        load_yaml(tmp_path / "c.yaml")


def test_no_file_and_a_directory(tmp_path: Path) -> None:
    """Oracle: the error messages."""
    with pytest.raises(FileNotFoundError, match=re.escape(f"there is no config file {tmp_path / 'c.yaml'}")):
        load_yaml(tmp_path / "c.yaml")
    with pytest.raises(IsADirectoryError, match=re.escape(f"{tmp_path} is a directory. Pass the YAML file in it")):
        load_yaml(tmp_path)
