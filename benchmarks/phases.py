"""Where our step's time goes, and how much of each phase is matrix products that no trick of ours can save.

    python benchmarks/phases.py --threads 2 --repeats 3

The step of training_step.py, in a process of its own. While it runs, every call of a linear layer is recorded with its
number of tokens: prefill, every step of decoding, scoring, and what the backward pass runs again. Right after it the
same products run alone, in the same order on the same weights. What they take is the *floor* of the phase; floor /
seconds is 1 where nothing but products took time. Two floors:

- `F.linear`, the product that PyTorch's layers make;
- `packed`: oneDNN's, on weights laid out for it beforehand, the fastest that we found on CPUs, most of all for the few
  rows of decoding. (∂W = ∂yᵀ x has no weights; it is the same in both.) Left out where this torch does not have it.

A linear layer's backward pass is two products, so training is three a layer; the head is four, as its logits are
computed again in the backward pass. `backward, nothing twice` is the floor without that. Scoring may read the head's
weights without calling it as a module; it then counts with the number of scored tokens, in these four products.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

from torch import nn

from grao.compat.torch_packed_linear import can_pack
from limited_side import LimitedSide, Limits, free_memory
from matmuls import Call, CallRecorder, Products, counted, least_tokens
from side_by_side import OURS
from speed_results import Step, facts, print_facts, recorded
from step_meter import REST, StepMeter
from training_step import BACKWARD, FORWARD, GLUE, OPTIMISER, ROLLOUT, SETTINGS, grao_trainer
from workload import Workload, add_size_arguments, size_of, workloads

RESULTS = Path(__file__).parent / "results" / "phases.json"
LEAST_BACKWARD = "backward, nothing twice"
PHASES = (ROLLOUT, GLUE, FORWARD, BACKWARD, LEAST_BACKWARD, OPTIMISER, REST)
STEP = "step"
SECONDS = 600
"""A step with its floors may take; the first includes loading."""


class FloorPipe:
    """A step meter's end of the pipe: adds the floors to each step's report before it goes on."""

    def __init__(self, turns: Any) -> None:
        self._turns = turns
        self.recorder: CallRecorder | None = None
        self.head: Any = None
        self._products = {"F.linear": Products(packed=False)}
        if can_pack(nn.Linear(4, 4)):
            self._products["packed"] = Products(packed=True)

    def recv(self) -> Any:
        return self._turns.recv()

    def send(self, step: Step) -> None:
        assert self.recorder is not None
        calls = training_calls(self.recorder.take(), self.head, sum(map(sum, step["completion_tokens"])))
        check_all_seen(calls[ROLLOUT], self.head, step)
        floors = {name: floors_of(products, calls) for name, products in self._products.items()}
        seen = {phase: counted(calls[phase]) for phase in (ROLLOUT, FORWARD, BACKWARD)}
        self._turns.send({**step, "floors": floors, "linear_calls": seen})


def training_calls(recorded: Mapping[str, list[Call]], head: Any, scored_tokens: int) -> dict[str, list[Call]]:
    """The calls by phase; a head that was not called as a module is added to scoring and to what runs again."""
    calls = {FORWARD: [], BACKWARD: [], **recorded}
    if all(call.layer is not head for call in calls[FORWARD]):
        for phase in (FORWARD, BACKWARD):
            calls[phase] = [*calls[phase], Call(head, scored_tokens)]
    return calls


def check_all_seen(rollout: Sequence[Call], head: Any, step: Step) -> None:
    """Every prompt token, and every sampled one but each sample's last, goes through every layer.

    Raises:
        RuntimeError: some did not, so something multiplies outside `nn.Linear`, and the floor would be too low.
    """
    samples = list(chain.from_iterable(step["completion_tokens"]))
    needed = sum(step["prompt_tokens"]) + sum(samples) - len(samples)
    seen = least_tokens(rollout, but=head)
    if seen < needed:
        raise RuntimeError(
            f"a linear layer was seen with {seen} tokens in the rollout, and {needed} at least went through it: "
            "something multiplies by its weight without calling the module, and must be recorded in another way"
        )


def floors_of(products: Products, calls: Mapping[str, list[Call]]) -> dict[str, float]:
    """Seconds of the products alone, by phase."""
    least = products.backward_seconds(calls[FORWARD])
    return {
        ROLLOUT: products.forward_seconds(calls[ROLLOUT]),
        FORWARD: products.forward_seconds(calls[FORWARD]),
        BACKWARD: least + products.forward_seconds(calls[BACKWARD]),
        LEAST_BACKWARD: least,
    }


def run_with_floors(turns: Any, workload: Workload) -> None:
    """In the new process: our side of training_step.py, with its products recorded and run again."""
    pipe = FloorPipe(turns)
    meter = StepMeter(pipe)
    trainer = grao_trainer(meter, workload)
    pipe.head = trainer.model.get_output_embeddings()
    pipe.recorder = CallRecorder(meter.clock)
    with pipe.recorder.recording():
        trainer.train()


def measure(workload: Workload, threads: int, logs: Path) -> list[Step]:
    """Every step but the first, which is the warm-up.

    Raises:
        RuntimeError: the process failed; holds what it died of.
    """
    limits = Limits(SECONDS, free_memory(), threads)
    side = LimitedSide(run_with_floors, workload, limits, logs / f"{workload.name}.log")
    steps = [side.turn({"completion_tokens": None}) for _ in workload.prompts]
    side.close()
    if side.failure is not None:
        raise RuntimeError(f"{workload.name} failed of {side.failure.kind}: {side.failure.said}")
    return [step for step in steps[1:] if step is not None]


def rows_of(steps: Sequence[Step]) -> dict[str, dict[str, Any]]:
    """By phase, medians over the steps: seconds, share of the step, and for each floor its seconds and floor/seconds.

    The last row is the step: its floor is the sum of those of rollout, forward and backward.
    """
    return {phase: _row([_of_phase(step, phase) for step in steps]) for phase in (*PHASES, STEP)}


def _of_phase(step: Step, phase: str) -> dict[str, Any]:
    """Seconds of one phase of one step, of the whole step, and its floors."""
    if phase == STEP:
        floors = {name: sum(floor[p] for p in (ROLLOUT, FORWARD, BACKWARD)) for name, floor in step["floors"].items()}
        return {"seconds": step["seconds"], "step": step["seconds"], "floors": floors}
    floors = {name: floor[phase] for name, floor in step["floors"].items() if phase in floor}
    measured = BACKWARD if phase == LEAST_BACKWARD else phase
    return {"seconds": step["parts"].get(measured, 0.0), "step": step["seconds"], "floors": floors}


def _row(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = list(found[0]["floors"])
    return {
        "seconds": median(f["seconds"] for f in found),
        "share": median(f["seconds"] / f["step"] for f in found),
        "floors": {name: median(f["floors"][name] for f in found) for name in names},
        "floor_over_seconds": {name: median(f["floors"][name] / f["seconds"] for f in found) for name in names},
    }


def show(workload: Workload, steps: Sequence[Step], rows: Mapping[str, Mapping[str, Any]]) -> None:
    floors = list(rows[STEP]["floors"])
    print(f"\n{workload.title(steps)}; medians of {len(steps)} steps")
    print(
        f"  {'phase':26s}{'seconds':>9s}{'share':>8s}"
        + "".join(f"{name + ' floor, s':>20s}{'floor/seconds':>15s}" for name in floors)
    )
    for phase, row in rows.items():
        cells = "".join(
            f"{row['floors'][name]:20.3f}{row['floor_over_seconds'][name]:15.2f}" for name in row["floors"]
        )
        print(f"  {phase:26s}{row['seconds']:9.3f}{row['share']:8.1%}{cells}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size_arguments(parser)
    parser.set_defaults(repeats=3, workloads=("uneven", "even"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    size = size_of(args)
    found = facts(args.threads)
    print_facts(found)
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for workload in workloads(args.workloads, Path(folder), size, hh=args.hh, gsm8k=args.gsm8k):
            steps = measure(workload, args.threads, Path(folder))
            rows = rows_of(steps)
            show(workload, steps, rows)
            calls = steps[-1]["linear_calls"]
            kept = recorded({OURS: [{k: v for k, v in step.items() if k != "linear_calls"} for step in steps]})
            measured[workload.name] = {"phases": rows, "steps": kept[OURS], "linear_calls_of_the_last_step": calls}
    content = {
        **found,
        "size": asdict(size),
        "settings": SETTINGS,
        "workloads": measured,
        "load_average_after": os.getloadavg(),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\nwritten to {args.output}")


if __name__ == "__main__":
    main()
