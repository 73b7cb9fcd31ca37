"""Read a run directory back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from grao.records import RunDirectory, read_run


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.create(tmp_path / "run", {"objective": {"beta": 0.5}})
    run.append_metrics(1, {"reward": 0.25, "phase": "train"})
    run.append_metrics(1, {"eval_reward": 1})
    run.append_metrics(2, {"reward": float("nan")})
    run.append_metrics(3, {"reward": 0.75})
    run.write_completions(1, [{"text": "a"}, {"text": "b"}])
    run.write_completions(3, [{"text": "c"}])
    run.write_completions(2, [{"text": "held out"}], held_out=True)
    return run


def test_what_was_written_is_read(run: RunDirectory) -> None:
    """Oracle: the values of the fixture, by hand; an incomplete line is left out."""
    with run.metrics_file.open("ab") as file:
        file.write(b'{"step": 4, "rewa')
    record = read_run(str(run.path))
    assert record.config == {"objective": {"beta": 0.5}}
    assert "python" in record.environment
    assert [line["step"] for line in record.metrics] == [1, 1, 2, 3]
    assert record.series("reward") == ([1, 3], [0.25, 0.75])
    assert record.series("eval_reward") == ([1], [1.0])
    assert record.completion_steps() == [1, 3]
    assert [row["text"] for row in record.completions()] == ["a", "b", "c"]
    assert list(record.completions(3)) == [{"step": 3, "text": "c"}]
    assert list(record.completions(held_out=True)) == [{"step": 2, "text": "held out"}]
    assert list(record.completions(2, held_out=True)) == [{"step": 2, "text": "held out"}]


def test_a_run_without_metrics_or_completions(tmp_path: Path) -> None:
    """Oracle: empty, and the message says that there are none."""
    record = read_run(RunDirectory.create(tmp_path, {}).path)
    assert (record.metrics, list(record.completions()), record.completion_steps()) == ((), [], [])
    with pytest.raises(KeyError, match=r"has no metric 'reward'\. No metrics were logged"):
        record.series("reward")


def test_an_unknown_name_lists_the_known_ones(run: RunDirectory) -> None:
    """Oracle: the error messages."""
    record = read_run(run.path)
    with pytest.raises(KeyError, match=r"has no metric 'rewards'\. Use one of eval_reward, phase, reward"):
        record.series("rewards")
    with pytest.raises(KeyError, match=re.escape("has no completions of step 2. Use one of [1, 3]")):
        record.completions(2)


def test_not_a_run(tmp_path: Path) -> None:
    """Oracle: the error messages, for a missing directory and for another directory."""
    with pytest.raises(FileNotFoundError, match="absent is not a run directory: it does not exist"):
        read_run(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"is not a run directory: it has no config\.yaml"):
        read_run(tmp_path)
