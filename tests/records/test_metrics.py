"""Lines of metrics.jsonl."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grao.records.metrics import append_metrics, drop_metrics_after, read_metrics


def test_a_line_by_hand(tmp_path: Path) -> None:
    """Oracle: the bytes, written by hand; `step` first although the mapping holds it last."""
    path = tmp_path / "metrics.jsonl"
    append_metrics(path, 3, {"reward": 0.25, "done": True, "phase": "grpo", "kl": None, "step": 3})
    assert path.read_bytes() == b'{"step": 3, "reward": 0.25, "done": true, "phase": "grpo", "kl": null}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float32("nan"), np.array(np.inf)])
def test_what_json_cannot_hold_is_null(tmp_path: Path, value: object) -> None:
    """Oracle: a strict reader of JSON, which refuses NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    append_metrics(tmp_path / "m", 1, {"loss": value})
    assert json.loads((tmp_path / "m").read_bytes(), parse_constant=refuse) == {"step": 1, "loss": None}


def test_scalars_of_numpy_and_torch_are_numbers(tmp_path: Path) -> None:
    """Oracle: the Python numbers they were made from; 0.1 in float32 keeps float32's value."""
    import torch

    append_metrics(
        tmp_path / "m", 1, {"a": np.float64(0.1), "b": np.int64(7), "c": torch.tensor(0.5), "d": np.float32(0.1)}
    )
    assert read_metrics(tmp_path / "m") == [{"step": 1, "a": 0.1, "b": 7, "c": 0.5, "d": 0.10000000149011612}]


@pytest.mark.parametrize(("value", "kind"), [([1.0], "list"), (np.zeros(2), "ndarray"), ({}, "dict")])
def test_another_type_is_named(tmp_path: Path, value: object, kind: str) -> None:
    """Oracle: the error message; and nothing was written."""
    expected = f"the metric 'loss' is a {kind}. Log a number, a boolean, a string or None"
    with pytest.raises(ValueError, match=re.escape(expected)):
        append_metrics(tmp_path / "m", 1, {"loss": value})
    assert not (tmp_path / "m").exists()


def test_another_step_among_the_values_is_refused(tmp_path: Path) -> None:
    """Oracle: the error message."""
    with pytest.raises(ValueError, match="the metrics of step 2 contain another step, 3"):
        append_metrics(tmp_path / "m", 2, {"step": 3})


def test_pandas_reads_the_same_numbers(tmp_path: Path) -> None:
    """Oracle: pandas' own reader of JSON lines; null becomes its NaN."""
    for step in range(1, 4):
        append_metrics(tmp_path / "m", step, {"reward": step / 8, "kl": None if step == 2 else 1.0})
    frame = pd.read_json(tmp_path / "m", lines=True)
    assert frame["step"].tolist() == [1, 2, 3]
    assert frame["reward"].tolist() == [0.125, 0.25, 0.375]
    assert frame["kl"].isna().tolist() == [False, True, False]


def test_lines_of_later_steps_are_dropped_wherever_they_stand(tmp_path: Path) -> None:
    """Oracle: the kept lines by hand, byte for byte; the torn tail goes too."""
    path = tmp_path / "m"
    path.write_bytes(b'{"step": 1}\n{"step": 3}\n{"step": 2, "x": 1}\n{"step": 2, "x": 2}\n{"st')
    drop_metrics_after(path, 2)
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2, "x": 1}\n{"step": 2, "x": 2}\n'
    drop_metrics_after(path, -1)
    assert path.read_bytes() == b""


def test_no_file_is_no_metrics(tmp_path: Path) -> None:
    """Oracle: the empty list; and truncation makes no file."""
    drop_metrics_after(tmp_path / "m", 0)
    assert read_metrics(tmp_path / "m") == []
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (b"{oops", "not JSON"),
        (b"[1]", "not an object with an integer `step`"),
        (b'{"loss": 1}', "not an object with an integer `step`"),
        (b'{"step": "1"}', "not an object with an integer `step`"),
    ],
)
def test_a_bad_line_in_the_middle_is_named_by_its_number(tmp_path: Path, bad: bytes, what: str) -> None:
    """Oracle: the place and the words; it is not the torn tail, so it is an error."""
    path = tmp_path / "m"
    path.write_bytes(b'{"step": 1}\n' + bad + b'\n{"step": 3}\n')
    for read in (lambda: read_metrics(path), lambda: drop_metrics_after(path, 1)):
        with pytest.raises(ValueError, match=re.escape(f"{path}, line 2: {what}")):
            read()
