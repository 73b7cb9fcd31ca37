"""The learning rates of the demo: the same small grid for every stage of every method, judged on validation prompts.

    python benchmarks/demo_learning_rates.py --output runs/tune --jobs 4

A chain of stages tries every pair of rates, so it gets more tries than the methods it is held against, never fewer.
The best mean score over three seeds (data, base model and run) decides. Prints every run, the losing ones too, and
writes them, sorted, to benchmarks/results/demo_learning_rates.json (not with --methods: half a table would look like a
whole one). The seeds and the prompts are not the demo's: test prompts are never looked at. Each process has one
thread, so the figures do not depend on --jobs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from transformers.utils import logging as transformers_logging

from grao.data import Encoder, load_examples
from grao.evaluation import Estimate
from grao.experiments.comparison import measure
from grao.experiments.demo import MAX_NEW_TOKENS, METHODS, Method, method_config
from grao.experiments.tasks import Dialogue, write_task
from grao.policy import ModelConfig, load_policy
from grao.rewards import RewardSet, load_reward
from grao.training import train

GRID = (1e-4, 3e-4, 1e-3, 3e-3)
SEEDS = (100, 101, 102)
STEPS = 60
N_VALIDATION = 200
RESULTS = Path(__file__).parent / "results" / "demo_learning_rates.json"


@dataclass(frozen=True)
class Tried:
    """One run of a setting and what it earned on the validation prompts."""

    method: str
    learning_rates: tuple[float, ...]
    seed: int
    score: Estimate
    ras: Estimate

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:.0e}" for rate in self.learning_rates)
        return f"{self.method:18s} {rates:14s}  seed {self.seed}  score {self.score}  RAS {self.ras}"

    def as_dict(self) -> dict[str, Any]:
        def interval(e: Estimate) -> list[float]:
            return [e.value, e.low, e.high]

        return {
            "method": self.method,
            "learning_rates": self.learning_rates,
            "seed": self.seed,
            "score": interval(self.score),
            "ras": interval(self.ras),
            "n": self.score.n,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/tune"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    names = [method.folder for method in METHODS]
    parser.add_argument("--methods", nargs="+", choices=names, default=names, help="only these; no results written")
    args = parser.parse_args()
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}, {args.jobs} processes of one thread", flush=True)
    started = time.perf_counter()
    _one_thread()
    tried = []
    spawn = get_context("spawn")  # a forked torch keeps locks of threads that it no longer has
    with ProcessPoolExecutor(args.jobs, mp_context=spawn, initializer=_one_thread) as pool:
        chosen = [method for method in METHODS if method.folder in args.methods]
        list(pool.map(_prepare, [args.output / str(seed) for seed in SEEDS], SEEDS))
        waiting = [
            pool.submit(_try, m.folder, at, args.output / str(seed), seed)
            for seed in SEEDS
            for m in chosen
            for at in _settings(m)
        ]
        for done in as_completed(waiting):
            tried.append(done.result())
            print(f"{len(tried):3d}/{len(waiting)}  {tried[-1]}", flush=True)
    tried.sort(key=lambda one: (names.index(one.method), one.learning_rates, one.seed))
    print(f"\nMean score over seeds {SEEDS}, the best of each method marked; {time.perf_counter() - started:.0f} s:")
    for method in chosen:
        means = _means(tried, method)
        for rates, mean in means.items():
            shown = ", ".join(f"{rate:.0e}" for rate in rates)
            print(f"{method.folder:18s} {shown:14s} {mean:6.2f} {'*' if mean == max(means.values()) else ''}")
    if len(chosen) == len(METHODS):
        record = {"seeds": SEEDS, "steps": STEPS, "versions": versions, "tried": [one.as_dict() for one in tried]}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _settings(method: Method) -> Iterator[Method]:
    """The method at every rate of the grid, in a folder of its own; at every pair of rates where it has two stages."""
    for rates in itertools.product(GRID, repeat=len(method.stages)):
        yield replace(method.at(rates), folder=f"{method.folder}/{'-'.join(f'{rate:.0e}' for rate in rates)}")


def _means(tried: Sequence[Tried], method: Method) -> dict[tuple[float, ...], float]:
    """Mean score over the seeds, by learning rates."""
    scores: dict[tuple[float, ...], list[float]] = {}
    for one in tried:
        if one.method == method.folder:
            scores.setdefault(one.learning_rates, []).append(one.score.value)
    return {rates: sum(values) / len(values) for rates, values in scores.items()}


def _prepare(output: Path, seed: int) -> None:
    write_task(Dialogue(), output / "task", n_validation=N_VALIDATION, seed=seed, quiet=True)


def _one_thread() -> None:
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()


def _try(name: str, method: Method, output: Path, seed: int) -> Tried:
    run = train(method_config(method, output, STEPS, seed), overwrite=True, console=Console(file=StringIO()))
    policy = load_policy(ModelConfig(str(run.model)))
    rows = Encoder(policy.tokenizer).encode_all(load_examples(output / "task" / "validation.jsonl"))[0]
    rubric = RewardSet([load_reward(Dialogue.rubric)])
    result = measure(method.label, policy, rows, rubric, max_new_tokens=MAX_NEW_TOKENS)
    return Tried(name, tuple(stage.learning_rate for stage in method.stages), seed, result.score, result.ras)


if __name__ == "__main__":
    main()
