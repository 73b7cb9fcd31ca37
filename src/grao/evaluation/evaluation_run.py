"""Run an evaluation, from its configuration to its metrics. Read top to bottom.

models × rows ─▶ answers with keyed seeds ─▶ scores, and the KL to the base ─▶ stored items ─▶ metrics, tables, JSON
                 (answer_generation.py)                                        (items_file.py)  (model_summary.py)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from grao.configuration import to_mapping
from grao.evaluation.answer_generation import answer_all
from grao.evaluation.evaluation_config import EvaluateConfig
from grao.evaluation.evaluation_directory import EvaluationDirectory
from grao.evaluation.evaluation_metric import Metric
from grao.evaluation.evaluation_plan import EvaluationPlan, PlannedModel, plan_evaluation
from grao.evaluation.fingerprint import Fingerprint, rows_digest
from grao.evaluation.items import Item
from grao.evaluation.items_file import read_accounting, read_items
from grao.evaluation.metric_tables import evaluation_tables, print_tables
from grao.evaluation.model_summary import Summary, differences, summarise
from grao.terminal import make_console


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Items and metrics of an evaluation."""

    directory: Path
    items: Mapping[str, Sequence[Item]]
    """Answers by model, the base first, to the rows that every model can read."""
    summaries: Mapping[str, Summary]
    differences: Mapping[tuple[str, str], Metric]
    """(later model, earlier model) → difference in reward."""


def evaluate(config: EvaluateConfig, *, overwrite: bool = False, console: Console | None = None) -> EvaluationResult:
    """Answer, score and compare. Stored answers in `output_dir` are kept; only missing ones are drawn and scored.

    Args:
        config: what to evaluate.
        overwrite: delete what is stored.
        console: where progress and tables are shown.

    Raises:
        ValueError, FileNotFoundError: bad input, before any weights are loaded, with what to do about it.
        RewardError: a scorer failed; stored answers stay, and the same call continues from there.
    """
    console = console or make_console()
    plan = plan_evaluation(config)
    settings = {**to_mapping(config), "base": config.base_name}
    directory = EvaluationDirectory.open(config.output_dir, settings, overwrite=overwrite)
    fingerprints = _begin(plan, directory)
    _print_plan(plan, console)
    answer_all(plan, directory, console)
    result = _conclude(plan, directory)
    _write_metrics(result, plan, directory, fingerprints, settings)
    print_tables(console, evaluation_tables(result.summaries, result.differences))
    console.print(f"metrics: {directory.metrics_file}   answers: {directory.path / 'items'}", soft_wrap=True)
    return result


def _begin(plan: EvaluationPlan, directory: EvaluationDirectory) -> dict[str, Fingerprint]:
    """Fingerprint every model and check that its stored answers were made from the same."""
    rows = rows_digest(plan.examples)
    base = Fingerprint.of(plan.base.config, rows, None, directory.fingerprint(plan.base.name))
    found = {plan.base.name: base}
    for model in plan.base_first[1:]:
        known = directory.fingerprint(model.name)
        found[model.name] = Fingerprint.of(model.config, rows, None if model.no_kl else base.digest, known)
    for name, now in found.items():
        directory.begin(name, now)
    return found


def _print_plan(plan: EvaluationPlan, console: Console) -> None:
    lines = []
    for model in plan.base_first:
        lines.append(f"{model.name}: {model.encoding}")
        if plan.config.kl and model.no_kl and model is not plan.base:
            lines.append(f"{model.name}: no KL: {model.no_kl}")
    if left_out := len(plan.examples) - len(plan.compared):
        which = ", ".join(f"{name} ({len(rows)})" for name, rows in plan.too_long.items())
        lines.append(f"left out for all models: {left_out} of {len(plan.examples)} rows, too long for {which}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _conclude(plan: EvaluationPlan, directory: EvaluationDirectory) -> EvaluationResult:
    """Compute all metrics from the stored items alone, so that they are the same after any number of kills."""
    compared = plan.compared
    items = {
        model.name: [item for item in read_items(directory.items_file(model.name)) if item.row in compared]
        for model in plan.base_first
    }
    summaries = {}
    for model in plan.base_first:
        base = None if model is plan.base else items[plan.base.name]
        summary = summarise(items[model.name], base, verifiable=plan.verifiable, k=plan.config.k)
        summaries[model.name] = summary if model.no_kl is None else _without_kl(summary, model.no_kl)
    return EvaluationResult(directory.path, items, summaries, differences(items))


def _without_kl(summary: Summary, reason: str) -> Summary:
    kl = Metric.missing(reason)
    by_category = {name: replace(metrics, kl=kl) for name, metrics in summary.by_category.items()}
    return Summary(replace(summary.all, kl=kl), by_category)


def _write_metrics(
    result: EvaluationResult,
    plan: EvaluationPlan,
    directory: EvaluationDirectory,
    fingerprints: Mapping[str, Fingerprint],
    settings: Mapping[str, Any],
) -> None:
    """Write evaluation.json."""
    found = {
        "config": settings,
        "versions": json.loads((directory.path / "environment.json").read_bytes()),
        "rows": {"compared": len(plan.compared), "too_long": plan.too_long},
        "models": {
            model.name: {
                "made_from": fingerprints[model.name].digest,
                "summary": result.summaries[model.name].as_dict(),
                "accounting": _accounting(plan, directory, model),
            }
            for model in plan.base_first
        },
        "differences": [
            {"model": later, "against": earlier, "reward": asdict(metric)}
            for (later, earlier), metric in result.differences.items()
        ],
    }
    directory.write(directory.metrics_file, json.dumps(found, indent=1, allow_nan=False).encode())


def _accounting(
    plan: EvaluationPlan, directory: EvaluationDirectory, model: PlannedModel
) -> dict[str, dict[str, float]]:
    """Return total and mean over calls of what rewards logged: use the total of counts and the mean of shares.

    Answers to rows that another model cannot read are included: they were paid for too.
    """
    logged: dict[str, list[float]] = {}
    for index in range(len(plan.parts)):
        for name, values in read_accounting(directory.part(model.name, index)).items():
            logged.setdefault(name, []).extend(values)
    return {name: {"total": sum(values), "mean": fmean(values)} for name, values in sorted(logged.items()) if values}
