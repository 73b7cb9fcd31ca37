"""`grao demo`: train a small base model, align it in seven ways, and put the outcomes side by side.

Everything runs through the ordinary configuration and trainer; only the task is synthetic. The learning rates were
chosen on validation prompts with one small grid for all methods (docs/log.md); `grao experiment main` tunes them anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
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
from grao.evaluation import Estimate
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
    """One objective of a method, at its learning rate."""

    objective: Mapping[str, Any]
    """As in a configuration: its name, and the fields that depart from the defaults."""
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Method:
    """One line of the table."""

    label: str
    folder: str
    """Where its run lies, below the demo's."""
    stages: tuple[Stage, ...]
    """One, or a chain: each goes on from the model that the one before it left."""
    sections: Mapping[str, Any] = field(default_factory=dict)
    """What else its configuration holds, such as `critic`."""

    def at(self, learning_rates: Sequence[float]) -> Method:
        """The same method at other learning rates, one a stage."""
        stages = zip(self.stages, learning_rates, strict=True)
        return replace(self, stages=tuple(replace(stage, learning_rate=rate) for stage, rate in stages))


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
    """Write task, base model and a run for each method under `output`, print the comparison, return it.

    Args:
        output: a directory; an earlier demo in it is replaced.
        seed: of the data, the base model and the runs.
        steps: optimiser steps a method, 16 prompts × 8 samples each; the stages of a chain divide them.
        eps: how often the base model refuses harmful prompts; None = the task's 1 %, which leaves nothing to explore.
        methods: what to compare; the last one is held against every other.
        console: where to print.

    Raises:
        ValueError: fewer steps than a chain has stages.
        FileExistsError: something else than a base model made here lies in the base model's place.
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
        _say(base.outcome, console)
        for method, config in zip(methods, configs, strict=True):
            bar.update(shown, advance=1, description=f"aligning it with {method.label}, {steps} steps")
            results.append(_align(method.label, config, rows, rubric, base))
            _say(results[-1], console)
    against = differences(results[-1], results)
    runs = {method.label: method.folder for method in methods}
    _write_record(output / "comparison.json", seed, steps, results, against, runs, _prompts(rows, rubric))
    print_tables(console, [*comparison_tables(results, against), answers_table(rows, results)])
    console.print(
        f"{time.perf_counter() - started:.0f} s in all. Runs, metrics and models: {output}. One seed: see "
        "docs/methods.md for what this can and cannot say.",
        highlight=False,
    )
    return results


def method_config(method: Method, output: Path, steps: int, seed: int) -> RunConfig:
    """The configuration of one run: what a user would write in YAML.

    Raises:
        ValueError: fewer steps than stages.
    """
    return build(RunConfig, method_mapping(method, output, steps, seed))


def method_mapping(method: Method, output: Path, steps: int, seed: int) -> dict[str, Any]:
    """The same before it is checked, as plain data."""
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
        shares = _divided(steps, len(method.stages))
        objective = [
            {**stage.objective, "steps": share, "learning_rate": stage.learning_rate}
            for stage, share in zip(method.stages, shares, strict=True)
        ]
    return {
        "model": {"path": str(_base(output))},
        "data": {"source": str(output / "task" / "train.jsonl")},
        "objective": objective,
        "rewards": [{"path": Dialogue.reward}],
        "rollout": {"num_generations": SAMPLES_PER_PROMPT, "max_new_tokens": MAX_NEW_TOKENS},
        "monitor": {"completions_every": 0},
        **method.sections,
        "trainer": trainer,
    }


def _divided(steps: int, stages: int) -> list[int]:
    """Equal shares; what is left over goes to the earlier stages, a step each."""
    if steps < stages:
        raise ValueError(f"{steps} steps cannot be divided among {stages} stages: give at least {stages}")
    return [steps // stages + (place < steps % stages) for place in range(stages)]


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread: models this small lose by more, and sums then run in one order whatever the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _prepare(output: Path, seed: int, eps: float | None) -> tuple[Base, list[EncodedExample], RewardSet]:
    """Task and base model on disk; the base as it answers, the test prompts, the rubric."""
    task = Dialogue()
    write_task(task, output / "task", seed=seed, eps=eps, quiet=True)
    rubric = RewardSet([load_reward(task.rubric)])
    policy = load_policy(ModelConfig(str(_base(output))))
    rows = Encoder(policy.tokenizer).encode_all(load_examples(output / "task" / "test.jsonl"))[0]
    outcome = measure("base", policy, rows, rubric, max_new_tokens=MAX_NEW_TOKENS)
    return Base(FrozenPolicy(policy.model), outcome), rows, rubric


def _align(label: str, config: RunConfig, rows: Sequence[EncodedExample], rubric: RewardSet, base: Base) -> Outcome:
    started = time.process_time()
    run = train(config, overwrite=True, console=Console(file=StringIO()))
    seconds = time.process_time() - started
    policy = load_policy(ModelConfig(str(run.model)))
    return measure(label, policy, rows, rubric, base=base, max_new_tokens=MAX_NEW_TOKENS, seconds=seconds)


def _base(output: Path) -> Path:
    return output / "task" / "base"


def _say(outcome: Outcome, console: Console) -> None:
    trained = f", {outcome.seconds:.0f} CPU s" if outcome.seconds else ""
    console.print(f"{outcome.name}: score {outcome.score.value:.2f}{trained}", highlight=False)


def _prompts(rows: Sequence[EncodedExample], rubric: RewardSet) -> list[dict[str, Any]]:
    """What was asked, in the order of the answers: category, reference, and the rubric's score of the reference."""
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


def _write_record(
    path: Path,
    seed: int,
    steps: int,
    results: Sequence[Outcome],
    against: Mapping[str, Estimate],
    runs: Mapping[str, str],
    prompts: Sequence[Mapping[str, Any]],
) -> None:
    """What a report is made from: outcomes, the folders of the runs behind them, and the prompts they answered."""
    record = {
        "seed": seed,
        "steps": steps,
        "results": [result.as_dict() for result in results],
        "differences": {"of": results[-1].name, "less": {name: asdict(d) for name, d in against.items()}},
        "runs": dict(runs),
        "prompts": list(prompts),
    }
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
