"""The benchmarks: their arithmetic by hand, and that each runs and writes what benchmarks/README.md says."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
TINY = "--shape=tiny --threads=1 --repeats=2 --prompts=2 --group=3 --prompt-tokens=9 --new-tokens=6"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A file of benchmarks/, imported as the scripts there import it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def hh_rows(tmp_path: Path) -> Path:
    """Transcripts as HH-RLHF writes them, of harmless sums."""
    file = tmp_path / "rows.jsonl"
    rows = []
    for i in range(40):
        prompt = f"\n\nHuman: What is {i} plus {i * 7}{', please' * (i % 5)}?\n\nAssistant:"
        rows.append({"chosen": f"{prompt} It is {8 * i}.", "rejected": f"{prompt} Ask me later."})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def run_benchmark(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *TINY.split(), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_ratio_is_theirs_over_ours_turn_by_turn(module: Any) -> None:
    """By hand: 8/2 = 4, 9/3 = 3, 10/1 = 10; the median is 4, though that of the sums would be 27/6 = 4.5."""
    ratio = module("speed_results").paired_ratio([8.0, 9.0, 10.0], [2.0, 3.0, 1.0])
    assert (ratio.median, ratio.low, ratio.high, ratio.n) == (4.0, 3.0, 10.0, 3)
    assert str(ratio) == "4.00 [3.00, 10.00]"


def test_the_ratios_of_a_step_by_hand(module: Any) -> None:
    """Step 12/3 = 4; training (4 + 5 + 1)/(1 + 1 + 0) = 5, rollout, glue and rest left out; memory 300/100 = 3."""

    def step(seconds: float, forward: float, backward: float, optimiser: float, peak: int) -> dict[str, Any]:
        parts = {"forward": forward, "backward": backward, "optimiser": optimiser}
        parts["rollout"] = seconds - sum(parts.values())
        return {"seconds": seconds, "parts": parts, "peak_bytes": peak}

    steps = {"grao": [step(3, 1, 1, 0, 100)], "TRL": [step(12, 4, 5, 1, 300)]}
    found = module("training_step").ratios_of("uneven", steps)
    assert {name: ratio.median for name, ratio in found.items()} == {
        "step_uneven_vs_trl": 4.0,
        "train_uneven_vs_trl": 5.0,
        "memory_uneven_vs_trl": 3.0,
    }


def test_the_file_keeps_other_benchmarks_and_drops_what_was_not_measured_again(module: Any, tmp_path: Path) -> None:
    """By hand: `b` is measured anew, `a` was the same section's and is not, `c` is of another section."""
    results, file = module("speed_results"), tmp_path / "speed.json"
    one, two = results.paired_ratio([2.0], [1.0]), results.paired_ratio([3.0], [1.0])
    results.write(file, "first", {}, {"a": one, "b": one})
    results.write(file, "second", {}, {"c": one})
    results.write(file, "first", {}, {"b": two})
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["ratios"] == {"b": 3.0, "c": 2.0}
    assert record["spreads"].keys() == record["ratios"].keys()


def test_parts_exclude_each_other_and_sum_to_the_whole(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: rest 0–1, outer 1–3, inner 3–7, outer 7–8, rest 8–10."""
    meter = module("step_meter")
    times = iter([0.0, 0.0, 1.0, 3.0, 7.0, 8.0, 10.0])
    monkeypatch.setattr(meter.time, "perf_counter", lambda: next(times))
    clock = meter.PartClock()
    clock.start()
    with clock.part("outer"), clock.part("inner"):
        pass
    assert clock.stop() == {"rest": 3.0, "outer": 3.0, "inner": 4.0}


def test_rows_end_where_they_are_told(module: Any) -> None:
    """By hand, limit 3: row 0 ends by token 1, row 1 by token 2, row 2 is cut off at the limit and never ends."""
    ends = module("generate").EndsAt([[1], [2], [3]], limit=3, end=0)
    for drawn, due in ((0, [True, False, False]), (1, [False, True, False]), (2, [False, False, False])):
        probs = ends(torch.zeros(3, 5 + drawn), torch.zeros(3, 4)).softmax(-1)
        assert probs[:, 0].tolist() == [1.0 if ended else 0.0 for ended in due]
        assert probs[:, 1].tolist() == pytest.approx([0.0 if ended else 1 / 3 for ended in due])


def test_lengths_are_half_the_limit_on_average(module: Any) -> None:
    """The mean summed from its definition: Σ_t t P(N = t), with all that is left at the limit."""
    rate = module("workload").half_length_rate(128)
    lengths = [((1 - rate) ** (t - 1) * rate, t) for t in range(1, 128)]
    assert sum(p * t for p, t in lengths) + (1 - rate) ** 127 * 128 == pytest.approx(64.0)


def test_the_model_ends_at_the_rate_it_was_given(module: Any) -> None:
    """The model's own softmax over prompts that did not set the rate; the identity holds to first order."""
    from grao.experiments.base_model import word_tokenizer

    workload = module("workload")
    words = [f"w{i}" for i in range(317)]
    tokenizer = word_tokenizer(words)
    for rate in (1 / 80, 1e-12):
        model = workload.random_model(workload.SHAPES["tiny"], seed=0)
        workload.set_end_rate(model, tokenizer, [" ".join(words[i : i + 40]) for i in range(8)], rate)
        with torch.no_grad():
            probs = model(torch.arange(100, 300).view(4, 50)).logits.softmax(-1)[..., 1]
        assert math.log(probs.mean()) == pytest.approx(math.log(rate), abs=0.3)


def test_sides_that_did_different_work_are_refused(module: Any) -> None:
    """One completion of one token more."""
    ours = {"prompt_tokens": [4], "completion_tokens": [[2, 3]]}
    check = module("side_by_side").check_same_tokens
    check({"grao": ours, "TRL": dict(ours)})
    with pytest.raises(ValueError, match=r"TRL and grao did different work: completion_tokens \[\[2, 4\]\]"):
        check({"grao": ours, "TRL": {**ours, "completion_tokens": [[2, 4]]}})


def check_section(section: dict[str, Any], other: str) -> None:
    """The keys that benchmarks/README.md lists, the same tokens on both sides, and parts that sum to the step."""
    assert section["threads"] == 1
    assert {"cpu", "cores", "versions", "torch_config", "load_average_before", "load_average_after"} <= section.keys()
    for name, sides in section["workloads"].items():
        ours, theirs = sides["grao"], sides[other]
        assert len(ours) == len(theirs) == 2, "the warm-up does not count"
        for a, b in zip(ours, theirs, strict=True):
            assert a["completion_tokens"] == b["completion_tokens"] > 0
            assert a["prompt_tokens"] == b["prompt_tokens"] > 0
            for step in (a, b):
                assert step["seconds"] == pytest.approx(sum(step["parts"].values()))
        if name == "even":
            assert [s["completion_tokens"] for s in ours] == [2 * 3 * 6] * 2, "P · G · T: none ends early"
            assert [s["prompt_tokens"] for s in ours] == [2 * 9] * 2


@pytest.mark.slow
def test_training_step_measures_both_workloads(tmp_path: Path, hh_rows: Path) -> None:
    """The documented keys; a ratio is that of the steps beside it, recomputed here for the two of them."""
    file = tmp_path / "speed.json"
    said = run_benchmark("training_step.py", "--output", str(file), "--data", str(hh_rows))
    record = json.loads(file.read_text(encoding="utf-8"))
    memory = {"memory_uneven_vs_trl", "memory_even_vs_trl"} if Path("/proc/self/clear_refs").exists() else set()
    assert record["ratios"].keys() == {"step_uneven_vs_trl", "train_uneven_vs_trl", "step_even_vs_trl"} | memory
    check_section(record["training_step"], "TRL")
    workloads = record["training_step"]["workloads"]
    assert workloads.keys() == {"uneven", "even"}
    for part in ("rollout", "glue", "forward", "backward", "optimiser", "rest"):
        assert all(s["parts"][part] > 0 for sides in workloads.values() for side in sides.values() for s in side)
    steps = workloads["even"]
    ratios = [t["seconds"] / o["seconds"] for o, t in zip(steps["grao"], steps["TRL"], strict=True)]
    assert record["ratios"]["step_even_vs_trl"] == pytest.approx(sum(ratios) / 2, abs=1e-3)
    assert "step_uneven_vs_trl" in said


@pytest.mark.slow
def test_rollout_measures_sampling_and_says_what_it_cannot(tmp_path: Path, hh_rows: Path) -> None:
    """The documented keys with data; without, one plain line, and no figure of an earlier run."""
    file = tmp_path / "speed.json"
    run_benchmark("rollout.py", "--output", str(file), "--data", str(hh_rows))
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["ratios"].keys() == {"rollout_vs_generate"}
    check_section(record["rollout"], "generate")
    assert record["rollout"]["workloads"].keys() == {"uneven", "even"}

    said = run_benchmark(
        "rollout.py", "--output", str(file), "--data", str(tmp_path / "absent.jsonl"), "--workloads", "uneven"
    )
    assert "uneven: NOT MEASURED, as there are no HH-RLHF rows at" in said
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["rollout"]["workloads"] == record["ratios"] == {}
