"""A training run as a section: curves, loss terms, and completions step by step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from grao.records import RunRecord, read_run
from grao.report.charts import StackedAreas
from grao.report.colours import SECOND, THIRD
from grao.report.completion_tables import browse
from grao.report.curves import CurveTable, Lines_, curves_figure, has, lines_panel
from grao.report.scales import figures, is_number
from grao.report.section import Figure, Panel, Section, present
from grao.report.svg import asset

FIGURES: list[dict[str, Any]] = yaml.safe_load(asset("training_figures.yaml"))
"""Title, caption and panels of each figure; a panel maps metrics to the names of their lines."""

COMPARED = (
    ("reward", "reward"),
    ("eval_reward", "held-out reward"),
    ("logprobs/reference", "log-probability of the reference"),
    ("kl", "KL to the frozen policy"),
    ("entropy", "entropy"),
    ("completions/mean_length", "length in tokens"),
    ("groups/zero_variance", "groups without spread"),
)
"""Metrics that several runs are compared by, and their panels' titles."""

NOT_CURVES = {"step", "epoch", "num_tokens", "loss"}


def training_section(path: Path, given: str, *, sensitive: bool | None) -> Section:
    """Read a run that is finished, still runs, or was killed.

    Raises:
        ValueError: If the configuration is not of a training run, or a line of metrics cannot be read.
    """
    run = read_run(path)
    if "objective" not in run.config:
        raise ValueError(
            f"{path}/config.yaml has no objective, so this is no training run. If it is an evaluation, finish "
            "it first: a report reads its evaluation.json"
        )
    method = method_name(run.config)
    answers = [browse(run, held_out=held_out, sensitive=sensitive) for held_out in (False, True)]
    figures_ = _figures(run, method)
    notes = [] if run.metrics else ["No metrics were logged: the run ended or was killed before its first log."]
    return Section(
        title=path.resolve().name,
        kind="Training run",
        source=given,
        lead=f"{method} on {_data_name(run.config)}",
        facts=_facts(run, method),
        figures=figures_,
        more=_other(run, method),
        answers=tuple(found for found, _ in answers if found is not None),
        provenance={"config": run.config, "environment": run.environment},
        notes=present((*notes, *(note for _, said in answers for note in said))),
    )


def method_name(config: Mapping[str, Any]) -> str:
    """Return the name of the objective, or the names of a chain's objectives."""
    objective = config.get("objective")
    stages = objective if isinstance(objective, list) else [objective]
    return " → ".join(_objective_name(stage) for stage in stages if isinstance(stage, Mapping)) or "unknown objective"


def _objective_name(described: Mapping[str, Any]) -> str:
    """Return the name or path of an objective, or those of a sum's parts."""
    if "sum" in described:
        return " + ".join(_objective_name(part) for part in described["sum"])
    return str(described.get("name") or described.get("path", "?"))


def compared_runs(runs: Mapping[str, RunRecord]) -> tuple[Figure, ...]:
    """Return the curves of several runs on common axes, and the loss terms of the runs that log them."""
    table = CurveTable()
    panels = []
    for metric, title in COMPARED:
        band = metric.startswith("eval_")
        series = [
            table.line(run.metrics, metric, name, style_of=name, band=band, raw=False) for name, run in runs.items()
        ]
        panels.append(lines_panel(title, series, labelled=False))
    curves = curves_figure(
        "Training, side by side",
        "Each method's training batches: these are the rewards it learns from, not test scores. KL is in nats per "
        "token and measured on some steps only.",
        table,
        panels,
        legend=runs,
    )
    return tuple(figure for figure in (curves, _compared_terms(runs)) if figure is not None)


# --- figures ---------------------------------------------------------------------------------------------------------


def _figures(run: RunRecord, method: str) -> tuple[Figure, ...]:
    found: list[Figure | None] = []
    for about in FIGURES:
        table = CurveTable()
        panels = [_panel(table, run, method, name, lines) for name, lines in about["panels"].items()]
        found.append(curves_figure(about["title"], about["caption"], table, panels))
    found.insert(1, _terms_figure(run.metrics))
    return tuple(figure for figure in found if figure is not None)


def _panel(table: CurveTable, run: RunRecord, method: str, title: str, lines: Mapping[str, str]) -> Panel | None:
    several = sum(has(run.metrics, metric) for metric in lines) > 1
    styles = [method, SECOND, THIRD]
    series = [
        table.line(
            run.metrics,
            metric,
            label,
            style_of=styles[place] if several else method,
            band=metric.startswith("eval_"),
        )
        for place, (metric, label) in enumerate(lines.items())
    ]
    return lines_panel(title, series)


def _terms_figure(lines: Lines_) -> Figure | None:
    """Return each term's part of the loss and of the gradient, and its cosine with the whole gradient."""
    table = CurveTable()
    loss = _stacked(table, lines, "loss/", "loss", signed=True)
    shares = _stacked(table, lines, "grad/share/", "share of the gradient", signed=False)
    cosines = lines_panel(
        "cosine with the gradient",
        [table.line(lines, f"grad/cosine/{name}", name) for name in _terms(lines, "grad/cosine/")],
    )
    return curves_figure(
        "Term by term",
        "Signed loss: what raises it stands above 0, what lowers it below; imitation that turns negative pushes the "
        "policy away from the reference. Share of the gradient: ‖∇term‖ over the sum of all terms' norms. Cosine with "
        "the whole gradient: −1 pulls against it.",
        table,
        (loss, shares, cosines),
    )


def _compared_terms(runs: Mapping[str, RunRecord]) -> Figure | None:
    """Return the signed loss terms of every run that has several."""
    table = CurveTable()
    several = {name: run.metrics for name, run in runs.items() if len(_terms(run.metrics, "loss/")) > 1}
    return curves_figure(
        "Loss, term by term",
        "Signed: what raises the loss stands above 0, what lowers it below. Imitation that turns negative pushes the "
        "policy away from the reference.",
        table,
        [_stacked(table, lines, "loss/", f"{name}: loss", signed=True) for name, lines in several.items()],
    )


def _terms(lines: Lines_, prefix: str) -> list[str]:
    names = dict.fromkeys(key for line in lines for key in line if key.startswith(prefix))
    return [name.removeprefix(prefix) for name in names if has(lines, name)]


def _stacked(table: CurveTable, lines: Lines_, prefix: str, title: str, *, signed: bool) -> Panel | None:
    """Return areas over the steps. A term that a step does not log (another stage of a chain) is 0 there."""
    keys = [prefix + name for name in _terms(lines, prefix)]
    found = [line for line in lines if any(key in line for key in keys)]
    whole = [line for line in found if all(is_number(line.get(key, 0.0)) for key in keys)]
    table.missing += len(found) - len(whole)
    filled = [{"step": line["step"], **{key: line.get(key, 0.0) for key in keys}} for line in whole]
    series = [table.line(filled, key, key.removeprefix(prefix), raw=False) for key in keys]
    drawn = tuple(one for one in series if one is not None)
    if not drawn or len(drawn[0].x) < 2:
        return lines_panel(title, series)
    return Panel(title, StackedAreas(title, "step", drawn, None if signed else (0.0, 1.0)))


def _other(run: RunRecord, method: str) -> tuple[Figure, ...]:
    """Return the metrics that no figure above shows."""
    shown = {metric for about in FIGURES for lines in about["panels"].values() for metric in lines} | NOT_CURVES
    names = dict.fromkeys(key for line in run.metrics for key in line)
    left = [
        name
        for name in names
        if name not in shown
        and not name.startswith(("loss/", "grad/share/", "grad/cosine/"))
        and name.removesuffix("_low").removesuffix("_high") not in shown
        and has(run.metrics, name)
    ]
    table = CurveTable()
    panels = [lines_panel(name, [table.line(run.metrics, name, name, style_of=method)]) for name in left]
    figure = curves_figure(
        "All other logged metrics", "One panel per metric, by its name in metrics.jsonl.", table, panels
    )
    return (figure,) if figure is not None else ()


# --- facts -----------------------------------------------------------------------------------------------------------


def _facts(run: RunRecord, method: str) -> tuple[tuple[str, str], ...]:
    steps = [line["step"] for line in run.metrics]
    settings = run.config.get("trainer")
    planned = settings.get("max_steps") if isinstance(settings, Mapping) else None
    done = str(max(steps, default=0)) + (f" of {planned}" if is_number(planned) and planned > 0 else "")
    facts = [
        ("objective", method),
        ("model", _model_name(run.config)),
        ("data", _data_name(run.config)),
        ("steps", done),
    ]
    for metric, name in (("reward", "reward, last"), ("eval_reward", "held-out reward, last")):
        last = next((line for line in reversed(run.metrics) if is_number(line.get(metric))), None)
        if last is not None:
            facts.append((name, _with_interval(last, metric)))
    tokens = [line["num_tokens"] for line in run.metrics if is_number(line.get("num_tokens"))]
    if tokens:
        facts.append(("tokens", f"{tokens[-1]:,.0f}"))
    return tuple(facts)


def _with_interval(line: Mapping[str, Any], metric: str) -> str:
    low, high = line.get(f"{metric}_low"), line.get(f"{metric}_high")
    bounds = f" [{figures(low)}, {figures(high)}]" if is_number(low) and is_number(high) else ""
    return f"{figures(line[metric])}{bounds} at step {line['step']}"


def _model_name(config: Mapping[str, Any]) -> str:
    model = config.get("model")
    return str(model.get("path", "?")) if isinstance(model, Mapping) else "?"


def _data_name(config: Mapping[str, Any]) -> str:
    data = config.get("data")
    return str(data.get("source", "?")) if isinstance(data, Mapping) else "?"
