"""The growth curves: which points, what a table and a curve hold of them, and what becomes of a side that fails."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SIDES = """
import os, time

def well(turns, work):
    turns.send([turns.recv(), work])

def hungry(turns, gibibytes):
    import torch
    turns.recv()
    turns.send(torch.ones(gibibytes * 2**28).sum().item())

def killed(turns, work):
    turns.recv()
    os.kill(os.getpid(), 9)

def slow(turns, work):
    turns.recv()
    time.sleep(60)

def wrong(turns, work):
    turns.recv()
    raise ValueError("a mistake")
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A file of benchmarks/, imported as the scripts there import it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def side(*seconds: float, failure: dict[str, str] | None = None) -> dict[str, Any]:
    return {"steps": [{"seconds": s, "peak_bytes": int(s * 2**20)} for s in seconds], "failure": failure}


@pytest.fixture
def record() -> dict[str, Any]:
    """Three points on the group axis, one of which TRL does not survive, and one on the vocabulary's."""
    base = {"group": 2, "prompt_tokens": 8, "new_tokens": 6, "vocabulary": 320}
    died = side(failure={"kind": "memory", "said": "killed by the system"})
    return {
        "threads": 1,
        "base": base,
        "size": {"prompts": 2, "shape": "tiny", "steps": 3},
        "axes": {"group": [2, 4, 8], "prompt_tokens": [8], "new_tokens": [6], "vocabulary": [320, 8192]},
        "points": [
            {**base, "grao": side(1.0, 3.0), "TRL": side(6.0, 8.0)},
            {**base, "group": 8, "grao": side(4.0, 4.0), "TRL": died},
            {**base, "group": 4, "grao": side(2.0, 2.0), "TRL": side(9.0, 9.0)},
            {**base, "vocabulary": 8192, "grao": side(5.0, 5.0), "TRL": side(7.0, 7.0)},
        ],
    }


def test_points_vary_one_axis_at_a_time(module: Any) -> None:
    """By hand: the base point once, though it lies on both axes that have it, and no point off both."""
    growth = module("growth")
    found = growth.points(growth.Point(2, 8, 6, 320), {"group": (1, 2, 3), "new_tokens": (6, 12)})
    assert [(p.group, p.prompt_tokens, p.new_tokens, p.vocabulary) for p in found] == [
        (2, 8, 6, 320),
        (1, 8, 6, 320),
        (3, 8, 6, 320),
        (2, 8, 12, 320),
    ]
    assert len(growth.points(growth.Point(), growth.AXES)) == 5 + 5 + 4 + 3 - 3


def test_a_curve_is_the_points_on_its_axis(module: Any, record: dict[str, Any]) -> None:
    """By hand, medians in order of the axis; what failed has no value, and no other axis's points are on it."""
    curve = module("growth_figure").curve
    assert curve(record, "group", "grao", "seconds") == [(2, 2.0), (4, 2.0), (8, 4.0)]
    assert curve(record, "group", "TRL", "seconds") == [(2, 7.0), (4, 9.0), (8, None)]
    assert curve(record, "vocabulary", "TRL", "peak_bytes") == [(320, 7 * 2**20), (8192, 7 * 2**20)]


def test_a_line_of_the_table_by_hand(module: Any, record: dict[str, Any]) -> None:
    """Medians 2 and 7 s, 2 and 7 MiB, hence ratios of 3.5; and a side that failed says of what, and has no ratio."""
    growth = module("growth")
    lines = [growth.line(point).split() for point in record["points"]]
    assert lines[0] == ["2", "8", "6", "320", "2.00", "7.00", "2", "7", "3.5", "3.5"]
    assert lines[1] == ["8", "8", "6", "320", "4.00", "(memory)", "4", "(memory)"]
    assert len(growth.header()) == len(growth.line(record["points"][0]))


def test_the_figure_shows_both_sides_and_what_did_not_finish(
    module: Any, record: dict[str, Any], tmp_path: Path
) -> None:
    """Its text, which is kept as text; and the same bytes from the same record."""
    files = [tmp_path / name for name in ("one.svg", "two.svg")]
    for file in files:
        module("growth_figure").draw(record, file)
    drawn = files[0].read_text(encoding="utf-8")
    for words in ("grao", "TRL", "TRL, did not finish", "vocabulary", "8k", "seconds a step", "peak memory, GiB"):
        assert f">{words}<" in drawn
    assert "grao, did not finish" not in drawn
    assert files[1].read_bytes() == files[0].read_bytes()


def test_only_a_run_that_was_cut_off_is_gone_on_with(module: Any, tmp_path: Path) -> None:
    """By hand: with the same sizes, versions and machine; a run that came to its end is measured anew."""
    growth, file = module("growth"), tmp_path / "growth.json"
    run = {key: key for key in growth.SAME} | {"axes": {"group": (1, 2)}}
    assert growth.resumed(file, run) == []
    for complete, changed, kept in ((False, {}, ["a point"]), (True, {}, []), (False, {"threads": 4}, [])):
        file.write_text(json.dumps({**run, **changed, "complete": complete, "points": ["a point"]}))
        assert growth.resumed(file, run) == kept


def test_failures_are_told_apart(module: Any) -> None:
    """What torch's allocator says of a refused allocation, what Python says, a kill without words, and a mistake."""
    read = module("limited_side").read_failure
    refused = "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."
    assert read(1, f"Traceback\n  {refused}\nafterwards\n") == module("limited_side").Failure("memory", refused)
    assert read(1, "MemoryError\n").kind == "memory"
    assert read(-9, "loaded\n").kind == "memory"
    assert read(1, "Traceback\nKeyError: 'x'\n") == module("limited_side").Failure(
        "error", "exit code 1: KeyError: 'x'"
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited through setrlimit as Linux has it")
def test_a_side_may_fail_in_each_way(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes: one that answers, one within its memory and one beyond, and three that fail otherwise. The sum
    of 2²⁸ ones a gibibyte shows that the allowed memory was really had."""
    (tmp_path / "planted_sides.py").write_text(SIDES)
    monkeypatch.syspath_prepend(str(tmp_path))
    limited, sides = module("limited_side"), importlib.import_module("planted_sides")
    limits = limited.Limits(seconds=20, bytes=3 * 2**30, threads=1)

    def turn(run: Any, work: int, limits: Any = limits) -> tuple[Any, str | None]:
        one = limited.LimitedSide(run, work, limits, tmp_path / "log")
        answers = one.turn("go"), None if one.failure is None else one.turn("again")
        one.close()
        assert answers[1] is None, "a side that failed takes no more turns"
        return answers[0], None if one.failure is None else one.failure.kind

    assert turn(sides.well, 7) == (["go", 7], None)
    assert turn(sides.hungry, 1) == (2**28, None)
    assert turn(sides.hungry, 4) == (None, "memory")
    assert turn(sides.killed, 0) == (None, "memory")
    assert turn(sides.wrong, 0) == (None, "error")
    assert turn(sides.slow, 0, limited.Limits(seconds=0.1, bytes=3 * 2**30, threads=1)) == (None, "time")


@pytest.mark.slow
def test_growth_of_a_tiny_step_is_gone_on_with(tmp_path: Path) -> None:
    """Two points at the tiny size: counts of tokens by hand. Cut off after the first, the run keeps it to the last
    digit, and measures the second again."""
    file = tmp_path / "growth.json"
    tiny = "--shape=tiny --threads=1 --repeats=1 --base 2 8 6 320 --group 2 3 --prompt-tokens 8 --new-tokens 6"

    def run() -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, str(BENCHMARKS / "growth.py"), *tiny.split(), "--vocabulary=320", f"--output={file}"],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert "TRL, MiB" in done.stdout
        return json.loads(file.read_text(encoding="utf-8"))

    first = run()
    assert first["complete"]
    for group, point in zip((2, 3), first["points"], strict=True):
        for name in ("grao", "TRL"):
            assert point[name]["failure"] is None
            [step] = point[name]["steps"]
            assert (step["prompt_tokens"], step["completion_tokens"]) == (2 * 8, 2 * group * 6)
    file.write_text(json.dumps({**first, "complete": False, "points": first["points"][:1]}))
    again = run()
    assert again["complete"]
    assert again["points"][0] == first["points"][0]
    assert again["points"][1] != first["points"][1]
    assert file.with_suffix(".svg").is_file()
