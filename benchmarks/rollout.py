"""Sampling alone: grao's `LocalEngine` against `generate` of transformers, in float32 on the CPU.

    python benchmarks/rollout.py --threads 2 --repeats 5

The same model, prompts, number of completions a prompt and number of tokens, at temperature 1, the distribution not
truncated. Each side has a process of its own; they take turns, step by step, and the first step is not counted.
`generate` gets each prompt once a completion, padded on the left, which is how TRL calls it (and faster than its
`num_return_sequences`, which copies the cache as well). Ours also returns each token's log-probability and the text.

- `even`: prompts and completions all of full length. It is what gives `rollout_vs_generate`: nothing can be left out.
- `uneven`: real prompts, and completions that end. Those of `generate` are made to end after as many tokens as ours,
  as in training_step.py.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList

from generate import EndsAt
from side_by_side import OURS, take_turns
from speed_results import RESULTS, Ratio, Step, facts, paired_ratio, print_facts, print_table, recorded, spread, write
from step_meter import StepMeter
from workload import Size, Workload, add_size_arguments, size_of, workloads

THEIRS = "generate"


def run_grao(turns: Any, workload: Workload) -> None:
    from grao.policy import ModelConfig, load_policy
    from grao.rollout import LocalEngine, SampleRequest, SamplingParams, draw_seed

    policy = load_policy(ModelConfig(str(workload.model)))
    engine = LocalEngine(policy.model, policy.tokenizer)
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
    model: Any = AutoModelForCausalLM.from_pretrained(workload.model, dtype="float32").eval()
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


def ratio_of(steps: dict[str, list[Step]]) -> Ratio:
    return paired_ratio(*([step["seconds"] for step in steps[side]] for side in (THEIRS, OURS)))


def show(workload: Workload, steps: dict[str, list[Step]], ratio: Ratio) -> None:
    tokens = {side: [sum(chain.from_iterable(s["completion_tokens"])) for s in done] for side, done in steps.items()}
    rates = {
        side: [n / step["seconds"] for n, step in zip(tokens[side], done, strict=True)] for side, done in steps.items()
    }
    print_table(
        f"{workload.title(steps[OURS])}; median [range] of {len(steps[OURS])} steps",
        tuple(steps),
        {
            "rollout, s": [spread([step["seconds"] for step in done]) for done in steps.values()],
            "tokens a second": [spread(rates[side], digits=0) for side in steps],
        },
    )
    print(f"  {'generate / grao':22s} {ratio}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size_arguments(parser)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    size: Size = size_of(args)
    found = facts(args.threads)
    print_facts(found)
    measured: dict[str, Any] = {}
    ratios: dict[str, Ratio] = {}
    with tempfile.TemporaryDirectory() as folder:
        for workload in workloads(args.workloads, Path(folder), size, args.data):
            steps = take_turns(
                {OURS: run_grao, THEIRS: run_generate}, workload, threads=args.threads, logs=Path(folder)
            )
            ratio = ratio_of(steps)
            show(workload, steps, ratio)
            measured[workload.name] = {"ratio": asdict(ratio), **recorded(steps)}
            if workload.name == "even":
                ratios["rollout_vs_generate"] = ratio
    write(args.output, "rollout", {**found, "size": asdict(size), "workloads": measured}, ratios)


if __name__ == "__main__":
    main()
