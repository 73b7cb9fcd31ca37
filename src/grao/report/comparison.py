"""A comparison (`grao demo`) as a section: outcomes of several methods on one task, and their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pvariance, quantiles
from typing import Any

from grao.records import RunRecord, read_run
from grao.report import figures as fig
from grao.report.answers import Answer, AnswerSet, Asked, limited
from grao.report.completion_tables import conversation
from grao.report.measured import Interval95, Measured, Metric, read_counts
from grao.report.record_file import read_json
from grao.report.scales import is_number
from grao.report.section import Figure, Section, present
from grao.report.training_run import compared_runs

FILE = "comparison.json"
SCORE = Metric("score", "Score", "rubric points", "higher")
KL = Metric("kl", "KL to the base", "nats per answer", "lower")
METRICS = (
    Metric("ras", "RAS: beats the reference", "share of answers", "higher"),
    Metric("nag", "NAG: better minus worse than the base", "share of answers", "higher"),
    Metric("nag_win", "NAG, wins: better than the base", "share of answers", "higher"),
    KL,
    Metric("mean_length", "Length", "tokens per answer"),
    Metric("seconds", "Training", "CPU seconds", "lower"),
)


def comparison_section(path: Path, given: str, *, sensitive: bool | None) -> Section:
    """Read the methods of a record, and the curves of their runs."""
    record = read_json(path / FILE)
    results = record.get("results") or []
    if not results:
        return Section(path.resolve().name, "Comparison", given, notes=(f"{FILE} has no results.",))
    measured = [_measured(result) for result in results]
    n = measured[0].get("score").n
    runs, missing = _runs(path, record)
    answers, answer_notes = _answers(record, results, sensitive)
    return Section(
        title=path.resolve().name,
        kind="Comparison of methods",
        source=given,
        lead="One base model, aligned in several ways on one task. All answer the same prompts with the same seeds.",
        facts=_facts(record, measured, n),
        figures=fig.those(
            fig.bars(
                "Score",
                f"Mean over {n} test prompts that no training saw; 95 % bootstrap intervals over prompts. They do "
                "not cover other training seeds: there is one.",
                {"score": [(m.name, m.get("score")) for m in measured]},
                SCORE.axis,
                wide=True,
            ),
            fig.by_category(measured, SCORE),
            fig.frontier(measured, KL, SCORE),
            _differences(record),
            fig.verdicts(measured),
            fig.quartiles(measured, SCORE.unit),
            fig.metric_bars(
                "Wins, distance and cost", "95 % intervals where there are several items.", measured, METRICS
            ),
            *compared_runs(runs),
        ),
        answers=() if answers is None else (answers,),
        provenance={key: record[key] for key in record if key not in ("results", "prompts", "differences")},
        notes=present((*missing, *answer_notes)),
    )


def score_statistics(scores: Sequence[Any]) -> dict[str, float]:
    """Return mean, population variance and quartiles of the finite scores; empty with fewer than two."""
    finite = [float(score) for score in scores if is_number(score)]
    if len(finite) < 2:
        return {}
    q25, q50, q75 = quantiles(finite, n=4, method="inclusive")
    return {"mean": fmean(finite), "variance": pvariance(finite), "q25": q25, "q50": q50, "q75": q75}


def _measured(result: Mapping[str, Any]) -> Measured:
    keys = ("score", *(metric.key for metric in METRICS))
    metrics = {key: Interval95.read(result[key]) for key in keys if result.get(key) is not None}
    if not result.get("seconds"):
        metrics.pop("seconds", None)  # the base was not trained
    return Measured(
        name=str(result.get("name", "?")),
        n=metrics.get("score", Interval95()).n,
        metrics=metrics,
        by_category={c: {"score": Interval95.read(e)} for c, e in (result.get("by_category") or {}).items()},
        rewards=score_statistics(result.get("scores") or ()),
        verdicts=read_counts(result),
    )


def _facts(record: Mapping[str, Any], measured: Sequence[Measured], n: int | None) -> tuple[tuple[str, str], ...]:
    scored = [(value, m.name) for m in measured if is_number(value := m.get("score").value)]
    return (
        ("methods", str(len(measured))),
        ("test prompts", str(n)),
        ("optimiser steps per method", str(record.get("steps", "?"))),
        ("seed", str(record.get("seed", "?"))),
        ("highest score", max(scored)[1] if scored else "none"),
    )


def _differences(record: Mapping[str, Any]) -> Figure | None:
    found = record.get("differences") or {}
    of, less = found.get("of"), found.get("less") or {}
    return fig.differences(
        f"Difference to {of}",
        f"Score of {of} minus that of each method, on the same prompts: paired bootstrap over prompts, 95 % each, not "
        "adjusted for their number.",
        {"difference": [(name, Interval95.read(e)) for name, e in less.items()]},
        "rubric points",
    )


def _runs(path: Path, record: Mapping[str, Any]) -> tuple[dict[str, RunRecord], list[str]]:
    """Return the runs that the record names by method, and notes on missing ones."""
    runs, missing = {}, []
    for name, folder in (record.get("runs") or {}).items():
        try:
            runs[name] = read_run(path / folder)
        except FileNotFoundError:
            missing.append(f"The run of {name} ({folder}/) is missing: its curves are left out.")
    if not record.get("runs"):
        missing.append("The record names no runs: training curves are left out.")
    return runs, missing


def _answers(
    record: Mapping[str, Any], results: Sequence[Mapping[str, Any]], sensitive: bool | None
) -> tuple[AnswerSet | None, tuple[str, ...]]:
    names = tuple(str(result.get("name", "?")) for result in results)
    texts = [result.get("answers") or () for result in results]
    count = max(map(len, texts))
    prompts = record.get("prompts") or [{} for _ in range(count)]
    asked = [
        Asked(
            prompt=conversation(about.get("prompt")) or f"prompt {place + 1} (the record does not have its text)",
            category=about.get("category"),
            reference=about.get("reference"),
            reference_score=about.get("reference_score"),
            answers=tuple(
                Answer(who, str(texts[who][place]), _at(result.get("scores"), place))
                for who, result in enumerate(results)
                if place < len(texts[who])
            ),
        )
        for place, about in enumerate(prompts)
    ]
    asked = [one for one in asked if one.answers]
    if not asked:
        return None, ("The record has no answers.",)
    kept, notes = limited("Answers", asked)
    caption = "Every test prompt with its reference and each method's answer."
    return AnswerSet("Answers", caption, names, kept, notes, sensitive=bool(sensitive)), ()


def _at(values: Sequence[Any] | None, place: int) -> float | None:
    value = values[place] if values is not None and place < len(values) else None
    return float(value) if is_number(value) and value is not None else None
