"""Completion files, one per step."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from grao.records.completions import (
    completion_files,
    drop_completions_after,
    read_completions,
    write_completions,
)

ROWS: list[dict[str, Any]] = [
    {"prompt": "3 + 4 =", "completion": "7", "correct": 1.0, "advantage": 0.5, "row": 17, "finish": "stop"},
    {"prompt": "3 + 4 =", "completion": "é ∑\n8", "correct": None, "advantage": 0, "row": 17, "finish": "length"},
]


def test_pandas_opens_a_step(tmp_path: Path) -> None:
    """Oracle: pandas, against the rows written; `step` comes first, None is missing, an integer 0 joins floats."""
    path = write_completions(tmp_path, 10, ROWS)
    assert path == tmp_path / "completions_00010.parquet"
    frame = pd.read_parquet(path)
    assert frame.columns.tolist() == ["step", "prompt", "completion", "correct", "advantage", "row", "finish"]
    assert frame["step"].tolist() == [10, 10]
    assert frame["completion"].tolist() == ["7", "é ∑\n8"]
    assert frame["correct"].isna().tolist() == [False, True]
    assert frame["advantage"].tolist() == [0.5, 0.0]


def test_pandas_opens_the_folder_while_a_file_is_being_written(tmp_path: Path) -> None:
    """Oracle: pandas on the folder, with the half-written file that a kill leaves behind."""
    write_completions(tmp_path, 1, ROWS)
    write_completions(tmp_path, 2, ROWS[:1])
    (tmp_path / ".completions_00003.parquet.tmp").write_bytes(b"PAR1 half")
    assert sorted(pd.read_parquet(tmp_path)["step"].tolist()) == [1, 1, 2]
    assert list(completion_files(tmp_path)) == [1, 2]


def test_columns_are_those_of_every_row(tmp_path: Path) -> None:
    """Oracle: the union by hand, in order of appearance."""
    path = write_completions(tmp_path, 1, [{"a": 1}, {"b": "x", "a": 2}, {"c": None}])
    assert list(read_completions([path])) == [
        {"step": 1, "a": 1, "b": None, "c": None},
        {"step": 1, "a": 2, "b": "x", "c": None},
        {"step": 1, "a": None, "b": None, "c": None},
    ]


def test_conversations_become_json_and_lists_of_numbers_stay(tmp_path: Path) -> None:
    """Oracle: `json.loads` gives the conversation back; text beside a conversation is no mixed column."""
    turns = [{"role": "user", "content": "naïve?"}]
    path = write_completions(tmp_path, 1, [{"prompt": turns, "ids": [1, 2]}, {"prompt": "text", "ids": [3]}])
    first, second = read_completions([path])
    assert json.loads(first["prompt"]) == turns
    assert "naïve" in first["prompt"]
    assert second["prompt"] == "text"
    assert first["ids"] == [1, 2]


def test_nan_is_not_unscored(tmp_path: Path) -> None:
    """Oracle: what was put in. A reward function's NaN and an unscored None stay two things."""
    path = write_completions(tmp_path, 1, [{"r": float("nan")}, {"r": None}])
    first, second = read_completions([path])
    assert math.isnan(first["r"])
    assert second["r"] is None


def test_a_mixed_column_is_named(tmp_path: Path) -> None:
    """Oracle: the start of the error message; and no file is left."""
    expected = "the completions column 'reward' mixes float, str ("
    with pytest.raises(ValueError, match=re.escape(expected)):
        write_completions(tmp_path, 1, [{"reward": 1.0}, {"reward": "high"}])
    assert list(tmp_path.iterdir()) == []


def test_no_rows_is_an_error(tmp_path: Path) -> None:
    """Oracle: the error message."""
    with pytest.raises(ValueError, match="no completions to write at step 4"):
        write_completions(tmp_path, 4, [])


def test_a_step_is_replaced_and_later_ones_can_be_dropped(tmp_path: Path) -> None:
    """Oracle: by hand; six digits sort after five, and files of other names stay."""
    for step in (5, 99_999, 100_000):
        write_completions(tmp_path, step, ROWS)
    write_completions(tmp_path, 5, [{"prompt": "new"}])
    (tmp_path / "completions_old.parquet").touch()
    assert list(completion_files(tmp_path)) == [5, 99_999, 100_000]
    assert list(read_completions([tmp_path / "completions_00005.parquet"])) == [{"step": 5, "prompt": "new"}]
    drop_completions_after(tmp_path, 5)
    assert list(completion_files(tmp_path)) == [5]
    assert (tmp_path / "completions_old.parquet").exists()


def test_a_missing_folder_has_no_completions(tmp_path: Path) -> None:
    """Oracle: the empty list, and no error from truncation."""
    drop_completions_after(tmp_path / "absent", 0)
    assert completion_files(tmp_path / "absent") == {}


def test_files_of_a_killed_writer_are_complete_and_a_prefix(
    tmp_path: Path, kill_while: Callable[[Callable[[int], None], float], int]
) -> None:
    """Oracle: the writer's rule (step n holds n % 50 + 1 rows of text n) and its count; pandas opens every file."""
    draw = random.Random(2)
    for trial in range(6):
        folder = tmp_path / str(trial)
        folder.mkdir()

        def write_for_ever(report: int, folder: Path = folder) -> None:
            for step in itertools.count():
                write_completions(folder, step, [{"text": str(step) * 100}] * (step % 50 + 1))
                os.write(report, b".")

        reported = kill_while(write_for_ever, draw.uniform(0.0, 0.1))
        found = completion_files(folder)
        assert list(found) == list(range(len(found)))
        assert reported <= len(found) <= reported + 1
        for step, path in found.items():
            assert pd.read_parquet(path)["text"].tolist() == [str(step) * 100] * (step % 50 + 1)
