"""Does each method improve the base model on what it optimises? Five seeds, two base models a seed.

    python benchmarks/methods_over_seeds.py --output runs/seeds --jobs 4

Each seed is a `grao demo` of its own (data, base model, runs), once with a base that refuses 1 % of harmful prompts
and once with one that refuses 40 %. For each method: the mean over seeds of its test score less the base's (rubric
points), and of its mean verdict less the base's (the training reward: 1, 0, −1 against the reference), each with
Student's interval. Prints the table and writes it, with every seed's figures, to
benchmarks/results/methods_over_seeds.json. None of the seeds is the one that chose the learning rates.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from transformers.utils import logging as transformers_logging

from grao.evaluation import student_mean
from grao.experiments.demo import run_demo

SEEDS = (0, 1, 2, 3, 4)
REGIMES = (0.01, 0.4)
RESULTS = Path(__file__).parent / "results" / "methods_over_seeds.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    args = parser.parse_args()
    started = time.perf_counter()
    found: dict[float, dict[int, list[dict[str, Any]]]] = {eps: {} for eps in REGIMES}
    spawn = get_context("spawn")  # a forked torch keeps locks of threads that it no longer has
    with ProcessPoolExecutor(args.jobs, mp_context=spawn, initializer=_one_thread) as pool:
        waiting = {
            pool.submit(_demo, args.output / f"eps{eps:g}-seed{seed}", eps, seed): (eps, seed)
            for seed in SEEDS
            for eps in REGIMES
        }
        for number, done in enumerate(as_completed(waiting), 1):
            eps, seed = waiting[done]
            found[eps][seed] = done.result()
            print(
                f"{number}/{len(waiting)}  eps {eps:g}, seed {seed}: {time.perf_counter() - started:.0f} s", flush=True
            )
    regimes = {f"{eps:g}": _summary([found[eps][seed] for seed in SEEDS]) for eps in REGIMES}
    for eps, rows in regimes.items():
        print(f"\neps {eps}: difference to the base, mean over {len(SEEDS)} seeds [95 %]")
        for row in rows:
            print(f"  {row['method']:20s} score {_shown(row['score'])}   verdict {_shown(row['verdict'])}")
    record = {
        "seeds": SEEDS,
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "regimes": regimes,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _one_thread() -> None:
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()


def _demo(output: Path, eps: float, seed: int) -> list[dict[str, Any]]:
    outcomes = run_demo(output, seed=seed, eps=eps, console=Console(file=StringIO(), width=120))
    return [{"method": o.name, "score": o.score.value, "verdict": sum(o.verdicts) / len(o.verdicts)} for o in outcomes]


def _summary(seeds: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row a method: the seeds' differences to their own base, and their mean with its interval."""
    rows = []
    for place in range(1, len(seeds[0])):
        row: dict[str, Any] = {"method": seeds[0][place]["method"]}
        for measure in ("score", "verdict"):
            differences = [one[place][measure] - one[0][measure] for one in seeds]
            mean = student_mean(differences)
            row[measure] = {"seeds": differences, "mean": mean.value, "low": mean.low, "high": mean.high}
        rows.append(row)
    return rows


def _shown(found: dict[str, Any]) -> str:
    excludes_zero = found["low"] > 0 or found["high"] < 0
    return f"{found['mean']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]{' *' if excludes_zero else '  '}"


if __name__ == "__main__":
    main()
