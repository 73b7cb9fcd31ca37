"""`grao demo`: train a small base model, align it four ways, and put the outcomes side by side.

Everything runs through the ordinary configuration and trainer; only the task is synthetic. The learning rates were
chosen on validation prompts with one small grid for all methods (benchmarks/demo_learning_rates.py; the figures are
in docs/log.md).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from transformers.utils import logging as transformers_logging

from grao.data import EncodedExample, Encoder, load_examples
from grao.experiments.comparison import Outcome, measure
from grao.experiments.tasks import Dialogue, write_task
from grao.policy import FrozenPolicy, ModelConfig, load_policy
from grao.rewards import RewardSet, load_reward
from grao.training import RunConfig, train
from grao.training.schema import build

MAX_NEW_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Method:
    """One line of the table."""

    label: str
    objective: str
    learning_rate: float

    @property
    def folder(self) -> str:
        """Where its run lies."""
        return self.objective


METHODS = (
    Method("SFT", "sft", 1e-3),
    Method("GRPO", "grpo", 3e-4),
    Method("GRAO (paper)", "grao", 1e-3),
    Method("GRAO (recommended)", "grao-recommended", 1e-3),
)


def run_demo(output: str | Path, *, seed: int = 0, steps: int = 60, console: Console | None = None) -> list[Outcome]:
    """Write task, base model and four runs under `output`, print the comparison, return it.

    Args:
        output: a directory; an earlier demo in it is replaced.
        seed: of the data, the base model and the runs.
        steps: optimiser steps a method, 16 prompts × 8 samples each.
        console: where to print.
    """
    console = console or Console(width=None if Console().is_terminal else 120)
    output = Path(output)
    transformers_logging.disable_progress_bar()
    started = time.perf_counter()
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as bar:
        shown = bar.add_task("training a base model on the mini-dialogue task")
        task = Dialogue()
        write_task(task, output / "task", seed=seed, quiet=True)
        rubric = RewardSet([load_reward(task.rubric)])
        rows = _test_rows(output)
        results = [_tested("base", output / "task" / "base", output, rows, rubric, seconds=0.0)]
        for method in METHODS:
            bar.update(shown, description=f"aligning it with {method.label}, {steps} steps")
            results.append(_align(method, output, rows, rubric, steps, seed))
    record = {"seed": seed, "steps": steps, "results": [result.as_dict() for result in results]}
    (output / "comparison.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    console.print(comparison_table(results))
    console.print(answers_table(rows, results))
    console.print(
        f"{time.perf_counter() - started:.0f} s in all. Runs, metrics and models: {output}. One seed: see "
        "docs/methods.md for what this can and cannot say.",
        highlight=False,
    )
    return results


def _align(
    method: Method, output: Path, rows: Sequence[EncodedExample], rubric: RewardSet, steps: int, seed: int
) -> Outcome:
    config = method_config(method, output, steps, seed)
    quiet = Console(file=StringIO())
    started = time.process_time()
    run = train(config, overwrite=True, console=quiet)
    seconds = time.process_time() - started
    return _tested(method.label, run.model, output, rows, rubric, seconds=seconds)


def method_config(method: Method, output: Path, steps: int, seed: int) -> RunConfig:
    """The configuration of one run: what a user would write in YAML."""
    mapping: dict[str, Any] = {
        "model": {"path": str(output / "task" / "base")},
        "data": {"source": str(output / "task" / "train.jsonl")},
        "objective": {"name": method.objective},
        "rewards": [{"path": Dialogue.reward}],
        "rollout": {"num_generations": 8, "max_new_tokens": MAX_NEW_TOKENS},
        "monitor": {"completions_every": 0},
        "trainer": {
            "output_dir": str(output / method.folder),
            "learning_rate": method.learning_rate,
            "per_device_train_batch_size": 16,
            "max_steps": steps,
            "warmup_steps": 5,
            "lr_scheduler_type": "constant_with_warmup",
            "save_steps": steps,
            "seed": seed,
        },
    }
    return build(RunConfig, mapping)


def _test_rows(output: Path) -> list[EncodedExample]:
    tokenizer = load_policy(ModelConfig(str(output / "task" / "base"))).tokenizer
    return Encoder(tokenizer).encode_all(load_examples(output / "task" / "test.jsonl"))[0]


def _tested(
    name: str, model: Path, output: Path, rows: Sequence[EncodedExample], rubric: RewardSet, *, seconds: float
) -> Outcome:
    base = None if name == "base" else FrozenPolicy(load_policy(ModelConfig(str(output / "task" / "base"))).model)
    policy = load_policy(ModelConfig(str(model)))
    return measure(name, policy, base, rows, rubric, max_new_tokens=MAX_NEW_TOKENS, seconds=seconds)


def comparison_table(results: Sequence[Outcome]) -> Table:
    """Rows are models; columns what they earn on test prompts that no training ever saw."""
    n = results[0].score.n
    table = Table(
        title=f"Mini-dialogue, {n} held-out prompts, temperature 0.7; [95 % intervals over prompts]",
        title_justify="left",
        box=SIMPLE_HEAD,
    )
    categories = list(results[0].by_category)
    for name in ("", "score", *categories, "wins", "KL", "CPU s"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for result in results:
        score, wins = result.score, result.win_rate
        table.add_row(
            result.name,
            f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]".replace("[", "\\["),
            *(f"{result.by_category[category]:.2f}" for category in categories),
            f"{wins.value:.0%} [{wins.low:.0%}, {wins.high:.0%}]".replace("[", "\\["),
            f"{result.kl:.1f}",
            f"{result.seconds:.0f}" if result.seconds else "",
        )
    table.caption = "wins: answers scored above the reference; KL: nats an answer, to the base; best possible: 6, 8, 5"
    table.caption_justify = "left"
    return table


def answers_table(rows: Sequence[EncodedExample], results: Sequence[Outcome]) -> Table:
    """One prompt of each category, and what every model answered."""
    table = Table(title="Before and after", title_justify="left", box=SIMPLE_HEAD)
    for name in ("prompt", "model", "answer", "score"):
        table.add_column(name, justify="right" if name == "score" else "left", no_wrap=name == "model")
    seen: set[str] = set()
    for place, row in enumerate(rows):
        category = str(row.example.columns["category"])
        if category in seen:
            continue
        seen.add(category)
        table.add_row(Text(str(row.example.prompt)), "reference", Text(row.example.reference or ""), "")
        for result in results:
            answer, score = Text(result.answers[place]), f"{result.scores[place]:.0f}"
            table.add_row("", result.name, answer, score, end_section=result is results[-1])
    return table
