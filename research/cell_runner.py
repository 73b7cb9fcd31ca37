"""Run one cell in its own process: train with the ordinary trainer, measure, write the record."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich.console import Console
from transformers import AutoTokenizer

from grao.data import EncodedExample, Encoder, load_examples
from grao.demo.outcome import Base, Outcome, measure
from grao.objectives import GRAO
from grao.policy import FrozenPolicy, LoadedPolicy, ModelConfig, load_policy
from grao.records import RunRecord, read_run
from grao.records.durable import write_atomically
from grao.rewards import RewardSet, load_reward
from grao.training import RunConfig, train
from research.cell import Cell
from research.compute_cost import ComputeCost, active_parameters, cost_by_step
from research.expert_routing import expert_metrics
from research.paper_bounds import bound_metrics, largest_gradient
from research.seeded_task import SeededTask, TaskConfig
from research.training_phases import phase_metrics


@dataclass(frozen=True, slots=True)
class Places:
    """Return where a cell reads and writes."""

    seeded_task: SeededTask
    record: Path
    timings: Path
    work: Path
    """Directory of the run, deleted once the record is written."""


def run_cell(cell: Cell, places: Places, identity: Mapping[str, Any]) -> None:
    """Write the record of a cell, completely or not at all.

    A run whose loss, gradient or logits are not finite has diverged: its record says so and has no metrics.
    """
    started, processor = time.perf_counter(), time.process_time()
    shutil.rmtree(places.work, ignore_errors=True)
    try:
        found = _trained(cell, places) if cell.trained else _untrained(cell, places)
        record = {"identity": dict(identity), "diverged": None, **found}
    except FloatingPointError as error:
        record = {"identity": dict(identity), "diverged": str(error), "metrics": {}}
    times = {"wall_seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - processor}
    write_atomically(places.timings, as_json(times))
    write_atomically(places.record, as_json(record))
    shutil.rmtree(places.work, ignore_errors=True)


def as_json(content: Mapping[str, Any]) -> bytes:
    """Return a record's bytes; the same content gives the same bytes."""
    return (json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode()


def _untrained(cell: Cell, places: Places) -> dict[str, Any]:
    longest = cell.config(places.seeded_task, places.work).rollout.max_new_tokens
    rows, rubric = _rows(cell, places.seeded_task)
    experts = expert_metrics(load_policy(ModelConfig(str(places.seeded_task.base))), rows)
    return _measured(cell, _base(places.seeded_task, rows, rubric, longest).outcome, rows, experts)


def _trained(cell: Cell, places: Places) -> dict[str, Any]:
    config = cell.config(places.seeded_task, places.work)
    run = train(config, overwrite=True, console=Console(width=120))
    policy, record = load_policy(ModelConfig(str(run.model))), read_run(run.directory)
    rows, rubric = _rows(cell, places.seeded_task)
    longest = config.rollout.max_new_tokens
    base = _base(places.seeded_task, rows, rubric, longest) if cell.purpose == "test" else None
    outcome = measure("policy", policy, rows, rubric, base=base, max_new_tokens=longest)
    spent, series = cost_by_step(record, config, active_parameters(policy.model)), _series(record, cell.series)
    extra = {
        "steps": max(spent),
        **asdict(spent[max(spent)]),
        **phase_metrics(series),
        **expert_metrics(policy, rows),
        **(_bounds(places.seeded_task, policy, config, series) if cell.bounds else {}),
    }
    found = _measured(cell, outcome, rows, extra)
    if cell.curves is not None:
        found["curve"] = _curve(record, cell.task, spent)
        found["metrics"] |= _steps_to(found["curve"], cell.curves.thresholds)
    return {**found, "series": series}


def _bounds(
    seeded: SeededTask, policy: LoadedPolicy, config: RunConfig, series: Mapping[str, Any]
) -> dict[str, float]:
    """Return the bounds of a GRAO run, with the largest gradient over validation references before and after."""
    objective = config.make_objective()
    if not isinstance(objective, GRAO):
        return {}
    examples = load_examples(seeded.rows("validation"))
    rows = Encoder(policy.tokenizer).encode_all(examples)[0]
    base = load_policy(ModelConfig(str(seeded.base)))
    largest = max(largest_gradient(base, rows), largest_gradient(policy, rows))
    return bound_metrics(objective, config.rollout.num_generations, largest, series)


def _base(seeded: SeededTask, rows: Sequence[EncodedExample], rubric: RewardSet, longest: int) -> Base:
    policy = load_policy(ModelConfig(str(seeded.base)))
    return Base(FrozenPolicy(policy.model), measure("base", policy, rows, rubric, max_new_tokens=longest))


def _rows(cell: Cell, seeded: SeededTask) -> tuple[list[EncodedExample], RewardSet]:
    """Return validation prompts for a cell of tuning, test prompts for all others, and the rubric."""
    examples = load_examples(seeded.rows("validation" if cell.purpose == "tuning" else "test"))
    tokenizer = AutoTokenizer.from_pretrained(seeded.base)
    return Encoder(tokenizer).encode_all(examples)[0], RewardSet([load_reward(cell.task.make().rubric)])


def _measured(
    cell: Cell, outcome: Outcome, rows: Sequence[EncodedExample], metrics: Mapping[str, float]
) -> dict[str, Any]:
    """Return the part of the record about the answers."""
    categories = [str(row.example.columns["category"]) for row in rows]
    n = len(rows)
    estimates = {
        "score": outcome.score,
        "ras": outcome.ras,
        "ras_ties_half": outcome.ras_ties_half,
        "nag": outcome.nag,
        "nag_win": outcome.nag_win,
        "kl": outcome.kl,
        "length": outcome.mean_length,
    }
    record: dict[str, Any] = {
        "metrics": {
            **{name: estimate.value for name, estimate in estimates.items() if estimate is not None},
            "win_rate": outcome.wins / n,
            "tie_rate": outcome.ties / n,
            "loss_rate": outcome.losses / n,
            "verdict": fmean(outcome.verdicts),
            **metrics,
        },
        "by_category": {category: _category(outcome, categories, category) for category in sorted(set(categories))},
        "rewards": _distribution(outcome.scores),
    }
    if cell.keep_answers:
        task = cell.task.make()
        prompts, references = [str(r.example.prompt) for r in rows], [r.example.reference or "" for r in rows]
        record["answers"] = {
            "prompts": prompts,
            "categories": categories,
            "references": references,
            "reference_scores": [task.score(p, y) for p, y in zip(prompts, references, strict=True)],
            "answers": list(outcome.answers),
            "scores": list(outcome.scores),
        }
    return record


def _category(outcome: Outcome, categories: Sequence[str], category: str) -> dict[str, float]:
    places = [i for i, own in enumerate(categories) if own == category]
    return {
        "score": fmean(outcome.scores[i] for i in places),
        "ras": fmean(outcome.verdicts[i] > 0 for i in places),
        "n": len(places),
    }


def _distribution(scores: Sequence[float]) -> dict[str, float]:
    """Return mean, population variance and quartiles (linear between answers) of the scores."""
    q25, q50, q75 = np.quantile(scores, (0.25, 0.5, 0.75)).tolist()
    return {"mean": fmean(scores), "variance": float(np.var(scores)), "q25": q25, "q50": q50, "q75": q75}


def _series(record: RunRecord, names: Sequence[str]) -> dict[str, list[Any]]:
    """Return training metrics by step, None where a step lacks one. Metrics that no step has are left out."""
    lines = [line for line in record.metrics if "loss" in line]
    series: dict[str, list[Any]] = {"step": [line["step"] for line in lines]}
    for name in names:
        values = [line.get(name) for line in lines]
        if any(value is not None for value in values):
            series[name] = values
    return series


def _curve(record: RunRecord, task: TaskConfig, spent: Mapping[int, ComputeCost]) -> dict[str, list[float]]:
    """Return mean score, RAS and verdict of greedy validation answers, and the compute used so far."""
    curve: dict[str, list[float]] = {}
    made = task.make()
    for step in record.completion_steps(held_out=True):
        scored: dict[str, list[float]] = {"sample": [], "reference": []}
        for row in record.completions(step, held_out=True):
            scored[row["kind"]].append(made.score(row["prompt"], row["completion"]))
        verdicts = [float((x > y) - (x < y)) for x, y in zip(scored["sample"], scored["reference"], strict=True)]
        point = {
            "step": step,
            "score": fmean(scored["sample"]),
            "ras": fmean(verdict > 0 for verdict in verdicts),
            "verdict": fmean(verdicts),
            **asdict(spent[step]),
        }
        for name, value in point.items():
            curve.setdefault(name, []).append(value)
    return curve


def _steps_to(curve: Mapping[str, Sequence[float]], thresholds: Mapping[str, float]) -> dict[str, float]:
    """Return `steps_to_{metric}`: the first measured step that reaches the threshold, if any does."""
    found = {}
    for name, threshold in thresholds.items():
        reached = [step for step, value in zip(curve["step"], curve[name], strict=True) if value >= threshold]
        if reached:
            found[f"steps_to_{name}"] = float(reached[0])
    return found
