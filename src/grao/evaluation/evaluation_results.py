"""From stored items to figures: summaries, differences, evaluation.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from grao.evaluation.evaluation_directory import EvaluationDirectory
from grao.evaluation.evaluation_metric import Metric
from grao.evaluation.evaluation_plan import EvaluationPlan, PlannedModel
from grao.evaluation.fingerprint import Fingerprint
from grao.evaluation.items import Item
from grao.evaluation.items_file import read_accounting, read_items
from grao.evaluation.model_summary import ModelMetrics, Summary, differences, summarise

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What an evaluation found."""

    directory: Path
    items: Mapping[str, Sequence[Item]]
    """By model, the base first: the answers to the rows that every model can read."""
    summaries: Mapping[str, Summary]
    differences: Mapping[Pair, Metric]
    """(later model, earlier one) → how much more reward."""


def conclude(
    plan: EvaluationPlan,
    directory: EvaluationDirectory,
    made_from: Mapping[str, Fingerprint],
    settings: Mapping[str, Any],
) -> EvaluationResult:
    """Figures from the stored items alone, and so the same after any number of kills; written as JSON."""
    items = _compared_items(plan, directory)
    base = items[plan.base.name]
    summaries = {
        model.name: _without_kl(
            summarise(
                items[model.name],
                None if model is plan.base else base,
                verifiable=plan.verifiable,
                k=plan.config.k,
            ),
            model,
        )
        for model in plan.base_first
    }
    against = differences(items)
    found = {
        "config": settings,
        "versions": json.loads((directory.path / "environment.json").read_bytes()),
        "rows": {
            "compared": len(plan.compared),
            "too_long": {name: list(rows) for name, rows in plan.unread.items()},
        },
        "models": {
            model.name: {
                "made_from": made_from[model.name].digest,
                "summary": summaries[model.name].as_dict(),
                "accounting": _accounting(plan, directory, model),
            }
            for model in plan.base_first
        },
        "differences": [
            {"model": later, "against": earlier, "reward": asdict(figure)}
            for (later, earlier), figure in against.items()
        ],
    }
    directory.write(directory.figures_file, json.dumps(found, indent=1, allow_nan=False).encode())
    return EvaluationResult(directory.path, items, summaries, against)


def _compared_items(plan: EvaluationPlan, directory: EvaluationDirectory) -> dict[str, list[Item]]:
    compared = plan.compared
    return {
        model.name: [item for item in read_items(directory.items_file(model.name)) if item.row in compared]
        for model in plan.base_first
    }


def _without_kl(summary: Summary, model: PlannedModel) -> Summary:
    """The reason in place of a KL that was not measured."""
    if model.no_kl is None:
        return summary

    def told(figures: ModelMetrics) -> ModelMetrics:
        return replace(figures, kl=Metric.missing(model.no_kl or ""))

    return Summary(told(summary.all), {name: told(figures) for name, figures in summary.by_category.items()})


def _accounting(
    plan: EvaluationPlan, directory: EvaluationDirectory, model: PlannedModel
) -> dict[str, dict[str, float]]:
    """Total and mean of what rewards logged, call by call: counts are read by the one, shares by the other.

    Also of answers to rows that another model cannot read, as they were paid for too.
    """
    logged: dict[str, list[float]] = {}
    for index in range(len(plan.parts)):
        for name, values in read_accounting(directory.part(model.name, index)).items():
            logged.setdefault(name, []).extend(values)
    return {name: {"total": sum(values), "mean": fmean(values)} for name, values in sorted(logged.items()) if values}
