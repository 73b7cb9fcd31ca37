"""Which matrix products a phase runs: a small model's listed by hand, others counted by torch's own counter."""

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
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from grao.compat.torch_packed_linear import can_pack

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A file of benchmarks/, imported as the scripts there import it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_the_products_of_a_small_model_by_hand(module: Any) -> None:
    """One layer, 2 heads of width 4 on 1 key head, hidden 8: q and o are 8 → 8, k and v 8 → 4, gate and up 8 → 12,
    down 12 → 8, the head 8 → 20. 3 rows of 5 tokens are 15; of these, each row's last reaches the head. Then 3 rows
    of one token, with a layer whose `forward` was replaced, as an engine with weights of its own does."""
    workload, matmuls, meter = module("workload"), module("matmuls"), module("step_meter")
    shape = workload.Shape(hidden=8, layers=1, heads=2, kv_heads=1, intermediate=12, vocabulary=20)
    model = workload.random_model(shape, seed=0)
    clock = meter.PartClock()
    recorder = matmuls.CallRecorder(clock)
    ids = torch.randint(2, 20, (3, 5))
    with recorder.recording(), clock.part("rollout"), torch.no_grad():
        model(input_ids=ids, logits_to_keep=1)
        plain = model.lm_head.forward
        model.lm_head.forward = lambda x: plain(x)
        model(input_ids=ids[:, :1])
    model(input_ids=ids)  # outside, and not recorded
    calls = recorder.take()
    assert calls.keys() == {"rollout"}
    assert recorder.take() == {}
    found = {(c["tokens"], c["inputs"], c["outputs"]): c["times"] for c in matmuls.counted(calls["rollout"])}
    layer = {(8, 8): 2, (8, 4): 2, (8, 12): 2, (12, 8): 1}
    assert found == {(n, *shape): times for n in (15, 3) for shape, times in layer.items()} | {(3, 8, 20): 2}
    assert sum(call.flops for call in calls["rollout"]) == 2 * (18 * (2 * 64 + 2 * 32 + 3 * 96) + 6 * 160)
    assert matmuls.least_tokens(calls["rollout"], but=model.lm_head) == 18


def test_calls_belong_to_the_part_that_they_run_in(module: Any) -> None:
    """By hand: one call in `outer`, one in `inner` within it, one in no part, which is the rest."""
    matmuls, meter = module("matmuls"), module("step_meter")
    layer, clock = nn.Linear(3, 2), meter.PartClock()
    recorder = matmuls.CallRecorder(clock)
    with recorder.recording():
        with clock.part("outer"):
            layer(torch.zeros(4, 3))
            with clock.part("inner"):
                layer(torch.zeros(5, 6, 3))
        layer(torch.zeros(7, 3))
    tokens = {part: [call.tokens for call in calls] for part, calls in recorder.take().items()}
    assert tokens == {"outer": [4], "inner": [30], "rest": [7]}


def test_the_floors_run_one_product_forward_and_two_backward(module: Any) -> None:
    """torch's FLOP counter: over the same calls twice, less once, so that warming up cancels; and over a real
    forward and backward pass, which is what the products stand for."""
    matmuls = module("matmuls")
    layers = [nn.Linear(6, 10, bias=False), nn.Linear(10, 4, bias=False)]
    calls = [matmuls.Call(layer, 7) for layer in layers]
    products = matmuls.Products(packed=False)

    def counted(run: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    forward = counted(lambda: products.forward_seconds(calls * 2)) - counted(lambda: products.forward_seconds(calls))
    backward = counted(lambda: products.backward_seconds(calls * 2)) - counted(
        lambda: products.backward_seconds(calls)
    )
    x = torch.randn(7, 6, requires_grad=True)
    assert forward == sum(call.flops for call in calls) == counted(lambda: layers[1](layers[0](x)))
    assert forward + backward == counted(lambda: layers[1](layers[0](x)).sum().backward())


def test_packed_products_are_the_layers_own(module: Any) -> None:
    """`F.linear` for y = x Wᵀ; autograd for ∂x = ∂y W."""
    matmuls = module("matmuls")
    if not can_pack(nn.Linear(4, 4)):
        pytest.skip("this torch has no packed linear layers")
    layer, products = nn.Linear(16, 24, bias=False), matmuls.Products(packed=True)
    x, grad = torch.randn(5, 16, requires_grad=True), torch.randn(5, 24)
    y = layer(x)
    y.backward(grad)
    with torch.no_grad():
        torch.testing.assert_close(products._multiply(x, layer), y)
        torch.testing.assert_close(products._multiply_back(grad, layer), x.grad)


def test_a_head_that_no_hook_sees_counts_with_its_scored_tokens(module: Any) -> None:
    """By hand: 9 scored tokens, forward and again in the backward pass; nothing is added where the head was seen, in
    chunks of 4 and 5, of which the second was not run again."""
    matmuls, phases = module("matmuls"), module("phases")
    body, head = nn.Linear(2, 2), nn.Linear(2, 30)
    added = phases.training_calls({"forward": [matmuls.Call(body, 12)]}, head, 9)
    tokens = {phase: [(call.layer, call.tokens) for call in calls] for phase, calls in added.items()}
    assert tokens == {"forward": [(body, 12), (head, 9)], "backward": [(head, 9)]}
    chunks = {"forward": [matmuls.Call(head, 4), matmuls.Call(head, 5)], "backward": [matmuls.Call(head, 4)]}
    assert phases.training_calls(chunks, head, 9) == chunks


def test_a_rollout_that_multiplies_elsewhere_is_refused(module: Any) -> None:
    """By hand: prompts of 4 and 3 tokens and samples of 2, 1, 5 and 1 need 7 + (1 + 0 + 4 + 0) = 12 of every layer but
    the head."""
    matmuls, phases = module("matmuls"), module("phases")
    one, other, head = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 30)
    step = {"prompt_tokens": [4, 3], "completion_tokens": [[2, 1], [5, 1]]}
    calls = [matmuls.Call(head, 6), matmuls.Call(one, 7), matmuls.Call(one, 9), matmuls.Call(other, 12)]
    phases.check_all_seen(calls, head, step)
    with pytest.raises(RuntimeError, match="seen with 11 tokens in the rollout, and 12 at least"):
        phases.check_all_seen([*calls[:3], matmuls.Call(other, 11)], head, step)


def test_rows_of_phases_by_hand(module: Any) -> None:
    """One step of 10 s. Rollout 4 s with a floor of 1 s: a share of 0.4, a quarter of it products. Backward 3 s, floor
    1.5 s, of which 1.2 s with nothing twice. The step's floor is 1 + 0.5 + 1.5 = 3 s."""
    parts = {"rollout": 4.0, "glue": 0.5, "forward": 2.0, "backward": 3.0, "optimiser": 0.3, "rest": 0.2}
    floor = {"rollout": 1.0, "forward": 0.5, "backward": 1.5, "backward, nothing twice": 1.2}
    rows = module("phases").rows_of([{"seconds": 10.0, "parts": parts, "floors": {"F.linear": floor}}])
    assert rows["rollout"] == {
        "seconds": 4.0,
        "share": 0.4,
        "floors": {"F.linear": 1.0},
        "floor_over_seconds": {"F.linear": 0.25},
    }
    assert rows["backward"]["floor_over_seconds"] == {"F.linear": 0.5}
    assert rows["backward, nothing twice"]["floor_over_seconds"] == {"F.linear": pytest.approx(0.4)}
    assert rows["glue"] == {"seconds": 0.5, "share": 0.05, "floors": {}, "floor_over_seconds": {}}
    assert rows["step"]["floor_over_seconds"] == {"F.linear": pytest.approx(0.3)}


@pytest.mark.slow
def test_phases_of_a_tiny_step(tmp_path: Path) -> None:
    """By hand, even workload: 2 prompts of 9 tokens and 6 samples of 6, whose last tokens run through nothing: 48
    tokens through each of 2 × 7 layers in the rollout. So in scoring, but for a sample in the middle of its group of
    three, which has no weight in the loss and need not run. 36 are scored; and the parts sum to the step."""
    file = tmp_path / "phases.json"
    tiny = "--shape=tiny --threads=1 --repeats=2 --prompts=2 --group=3 --prompt-tokens=9 --new-tokens=6"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "phases.py"), *tiny.split(), "--workloads=even", f"--output={file}"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(file.read_text(encoding="utf-8"))
    even = record["workloads"]["even"]
    assert len(even["steps"]) == 2, "the warm-up does not count"

    def tokens(phase: str, head: bool) -> int:
        seen = even["linear_calls_of_the_last_step"][phase]
        return sum(c["tokens"] * c["times"] for c in seen if (c["outputs"] == 320) is head)

    assert tokens("rollout", head=False) == 2 * 7 * 48
    assert tokens("forward", head=False) in [2 * 7 * (48 - 5 * unweighted) for unweighted in (0, 1, 2)]
    assert tokens("forward", head=True) == 36
    assert even["phases"].keys() == {*even["steps"][0]["parts"], "backward, nothing twice", "step"}
    for step in even["steps"]:
        assert sum(step["parts"].values()) == pytest.approx(step["seconds"])
        assert step["floors"]["F.linear"]["backward"] >= step["floors"]["F.linear"]["backward, nothing twice"] > 0
    assert "backward, nothing twice" in done.stdout
    assert {"cpu", "versions", "threads", "load_average_before", "load_average_after"} <= record.keys()
