"""`grao demo`: train a small base model, align it in seven ways, and compare the outcomes.

Everything runs through the ordinary configuration and trainer; only the task is synthetic. The learning rates were
chosen on validation prompts with one small grid for all methods (docs/log.md).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from transformers.utils import logging as transformers_logging

from grao.configuration import build
from grao.data import EncodedExample, Encoder, load_examples
from grao.demo.dialogue import Dialogue
from grao.demo.outcome import Base, Outcome, differences, measure
from grao.demo.outcome_tables import answers_table, comparison_tables
from grao.demo.synthetic_task import write_task
from grao.evaluation.metric_tables import print_tables
from grao.policy import FrozenPolicy, ModelConfig, load_policy
from grao.rewards import RewardSet, load_reward
from grao.terminal import make_console
from grao.training import RunConfig, train

MAX_NEW_TOKENS = 32
PROMPTS_PER_STEP = 16
SAMPLES_PER_PROMPT = 8


@dataclass(frozen=True, slots=True)
class Stage:
    """One objective of a method, with its learning rate."""

    objective: Mapping[str, Any]
    """As in a configuration: its name, and the fields that differ from the defaults."""
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the table."""

    label: str
    folder: str
    """Folder of its run, below the demo's."""
    stages: tuple[Stage, ...]
    """One stage, or a chain: each starts from the model of the one before."""
    sections: Mapping[str, Any] = field(default_factory=dict)
    """Further sections of its configuration, such as `critic`."""


METHODS = (
    Method("SFT", "sft", (Stage({"name": "sft"}, 3e-3),)),
    Method("DPO", "dpo", (Stage({"name": "dpo"}, 1e-4),)),
    Method("PPO", "ppo", (Stage({"name": "ppo"}, 3e-4),)),
    Method("GRPO", "grpo", (Stage({"name": "grpo"}, 3e-4),)),
    Method("SFT → GRPO", "sft-grpo", (Stage({"name": "sft"}, 3e-3), Stage({"name": "grpo"}, 1e-3))),
    Method("GRAO (paper)", "grao", (Stage({"name": "grao"}, 3e-3),)),
    Method("GRAO (recommended)", "grao-recommended", (Stage({"name": "grao-recommended"}, 1e-3),)),
)


def run_demo(
    output: str | Path,
    *,
    seed: int = 0,
    steps: int = 60,
    eps: float | None = None,
    methods: Sequence[Method] = METHODS,
    console: Console | None = None,
) -> list[Outcome]:
    """Write task, base model and one run per method to `output`; print the comparison and return it.

    Args:
        output: A directory. An earlier demo in it is replaced.
        seed: Seed of the data, the base model and the runs.
        steps: Optimiser steps per method, of 16 prompts × 8 samples each. The stages of a chain share them.
        eps: How often the base model refuses harmful prompts. By default 1 %, which leaves nothing to explore.
        methods: What to compare. The last one is compared with every other.
        console: Where to print.

    Raises:
        ValueError: If there are fewer steps than stages in a chain.
        FileExistsError: If the base model's place holds something else than a base model written here.
    """
    console = console or make_console()
    output = Path(output)
    configs = [method_config(method, output, steps, seed) for method in methods]
    transformers_logging.disable_progress_bar()
    started = time.perf_counter()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with _one_thread(), Progress(*columns, console=console, transient=True) as bar:
        shown = bar.add_task("training a base model on the mini-dialogue task", total=len(methods) + 1)
        base, rows, rubric = _prepare(output, seed, eps)
        results = [base.outcome]
        _print_score(base.outcome, console)
        for method, config in zip(methods, configs, strict=True):
            bar.update(shown, advance=1, description=f"aligning it with {method.label}, {steps} steps")
            results.append(_align(method.label, config, rows, rubric, base))
            _print_score(results[-1], console)
    against = differences(results[-1], results)
    record = {
        "seed": seed,
        "steps": steps,
        "results": [result.as_dict() for result in results],
        "differences": {"of": results[-1].name, "less": {name: asdict(d) for name, d in against.items()}},
        "runs": {method.label: method.folder for method in methods},
        "prompts": _prompts(rows, rubric),
    }
    (output / "comparison.json").write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
    print_tables(console, [*comparison_tables(results, against), answers_table(rows, results)])
    console.print(
        f"{time.perf_counter() - started:.0f} s in total. Runs, metrics and models: {output}. This is one seed: "
        "docs/methods.md says what it can and cannot show.",
        highlight=False,
    )
    return results


def method_config(method: Method, output: Path, steps: int, seed: int) -> RunConfig:
    """Return the configuration of one run, as a user would write it in YAML.

    Raises:
        ValueError: If there are fewer steps than stages.
    """
    return build(RunConfig, method_mapping(method, output, steps, seed))


def method_mapping(method: Method, output: Path, steps: int, seed: int) -> dict[str, Any]:
    """Return the same as plain data, before it is checked."""
    trainer = {
        "output_dir": str(output / method.folder),
        "per_device_train_batch_size": PROMPTS_PER_STEP,
        "warmup_steps": 5,
        "lr_scheduler_type": "constant_with_warmup",
        "save_steps": steps,
        "seed": seed,
    }
    objective: dict[str, Any] | list[dict[str, Any]]
    if len(method.stages) == 1:
        (stage,) = method.stages
        objective = dict(stage.objective)
        trainer |= {"learning_rate": stage.learning_rate, "max_steps": steps}
    else:
        objective = [
            {**stage.objective, "steps": share, "learning_rate": stage.learning_rate}
            for stage, share in zip(method.stages, divide(steps, len(method.stages)), strict=True)
        ]
    return {
        "model": {"path": str(output / "task" / "base")},
        "data": {"source": str(output / "task" / "train.jsonl")},
        "objective": objective,
        "rewards": [{"path": Dialogue.reward}],
        "rollout": {"num_generations": SAMPLES_PER_PROMPT, "max_new_tokens": MAX_NEW_TOKENS},
        "monitor": {"completions_every": 0},
        **method.sections,
        "trainer": trainer,
    }


def divide(steps: int, stages: int) -> list[int]:
    """Divide steps equally; the first stages get one more each where a remainder is left.

    >>> divide(60, 2), divide(5, 2)
    ([30, 30], [3, 2])

    Raises:
        ValueError: If there are fewer steps than stages.
    """
    if steps < stages:
        raise ValueError(f"{steps} steps cannot be divided among {stages} stages: give at least {stages}")
    return [steps // stages + (place < steps % stages) for place in range(stages)] if stages else []


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one torch thread: faster for models this small, and sums run in one order on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _prepare(output: Path, seed: int, eps: float | None) -> tuple[Base, list[EncodedExample], RewardSet]:
    """Write the task; return the base model with its outcome, the test prompts and the rubric."""
    task = Dialogue()
    write_task(task, output / "task", seed=seed, eps=eps, quiet=True)
    rubric = RewardSet([load_reward(task.rubric)])
    policy = load_policy(ModelConfig(str(output / "task" / "base")))
    rows = Encoder(policy.tokenizer).encode_all(load_examples(output / "task" / "test.jsonl"))[0]
    outcome = measure("base", policy, rows, rubric, max_new_tokens=MAX_NEW_TOKENS)
    return Base(FrozenPolicy(policy.model), outcome), rows, rubric


def _align(label: str, config: RunConfig, rows: Sequence[EncodedExample], rubric: RewardSet, base: Base) -> Outcome:
    started = time.process_time()
    run = train(config, overwrite=True, console=Console(file=StringIO()))
    seconds = time.process_time() - started
    policy = load_policy(ModelConfig(str(run.model)))
    return measure(label, policy, rows, rubric, base=base, max_new_tokens=MAX_NEW_TOKENS, seconds=seconds)


def _print_score(outcome: Outcome, console: Console) -> None:
    trained = f", {outcome.seconds:.0f} CPU s" if outcome.seconds else ""
    console.print(f"{outcome.name}: score {outcome.score.value:.2f}{trained}", highlight=False)


def _prompts(rows: Sequence[EncodedExample], rubric: RewardSet) -> list[dict[str, Any]]:
    """Return the test prompts with category, reference, and the rubric's score of the reference."""
    groups = rubric.score([row.as_group() for row in rows]).groups
    return [
        {
            "prompt": row.example.prompt,
            "category": str(row.example.columns["category"]),
            "reference": row.example.reference,
            "reference_score": group.reference.reward if group.reference else None,
        }
        for row, group in zip(rows, groups, strict=True)
    ]
