"""Over seeds: means, curves on common points, pairs."""

from __future__ import annotations

from typing import Any

import pytest

from grao.evaluation import student_mean
from research.seed_statistics import at, curve_by_compute, curve_by_step, difference_of, over_seeds, paired


def record(seed: int, method: str = "GRAO", **more: Any) -> dict[str, Any]:
    return {"identity": {"axes": {"method": method}, "seed": seed}, "diverged": None, "metrics": {}, **more}


def test_over_seeds_is_students_interval() -> None:
    """Oracle: `student_mean`; one seed has no interval, none has nothing."""
    expected = student_mean([1.0, 2.0, 4.0])
    assert over_seeds([1.0, 2.0, 4.0]) == {
        "value": expected.value,
        "low": expected.low,
        "high": expected.high,
        "n": 3,
    }
    assert over_seeds([1.5]) == {"value": 1.5, "low": None, "high": None, "n": 1}
    assert over_seeds([]) is None


def test_records_of_a_level_without_those_that_diverged() -> None:
    """Oracle: by hand."""
    records = [record(0), record(1, diverged="the loss is nan"), record(2, "GRPO")]
    assert list(at(records, {"method": "GRAO"})) == [0]
    assert list(at(records, {})) == [0, 2]


def test_pairs_have_both_sides() -> None:
    """Oracle: by hand: seed 1 is missing on one side, seed 2 has no such metric."""
    first = {seed: record(seed, metrics={"score": 5.0}) for seed in (0, 1, 2)}
    second = {0: record(0, metrics={"score": 3.0}), 2: record(2, metrics={"kl": 1.0})}
    assert paired(first, second, difference_of("score")) == {0: 2.0}


def test_a_curve_over_steps() -> None:
    """Oracle: by hand: the steps that both seeds measured; None leaves a point to the other seed."""
    records = [
        record(0, series={"step": [1, 2, 3], "kl": [0.0, None, 4.0]}),
        record(1, series={"step": [1, 2], "kl": [2.0, 3.0]}),
        record(2),
    ]
    curve = curve_by_step(records, "series", "kl", "steps")
    assert curve is not None
    assert (curve["x"], curve["value"], curve["x_label"]) == ([1, 2], [1.0, 3.0], "steps")
    assert curve["low"][1] is None
    assert curve_by_step(records, "series", "entropy", "steps") is None


def test_a_curve_over_compute_is_interpolated() -> None:
    """Oracle: straight lines: seed 0 scores what it spent, seed 1 twice that; they share [0, 6]."""
    records = [
        record(0, curve={"step": [0, 1], "flops": [0.0, 6.0], "score": [0.0, 6.0]}),
        record(1, curve={"step": [0, 1, 2], "flops": [0.0, 4.0, 12.0], "score": [0.0, 8.0, 24.0]}),
    ]
    curve = curve_by_compute(records, "score", "flops", "FLOPs")
    assert curve is not None
    assert curve["x"] == pytest.approx([0.5 * i for i in range(13)])
    assert curve["value"] == pytest.approx([0.75 * i for i in range(13)])
    assert curve_by_compute(records, "ras", "flops", "FLOPs") is None
