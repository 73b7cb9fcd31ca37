"""A record of an experiment as a section: methods × settings over seeds, claims, tuning, answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from grao.report import figures as fig
from grao.report.answers import Answer, AnswerSet, Asked, limited
from grao.report.completion_tables import conversation
from grao.report.measured import Interval95, Metric, settings_of, shown
from grao.report.record_file import read_json
from grao.report.scales import is_number
from grao.report.section import Figure, Section, present
from grao.report.training_run import COMPARED
from research.report import experiment_figures as own
from research.report.experiment_figures import Curve, SeedMeans
from research.report.experiment_tables import claims_of, tuning_of

FILE = "summary.json"
BETA, LAM = ("beta", "β", "objective.beta"), ("lam", "lambda", "λ", "objective.lam")
GROUP_SIZE = ("num_generations", "samples_per_prompt", "group_size")
BESIDE = ("ras", "nag", "nag_win")
"""Metrics shown beside the main one, which is the plan's first."""
RATES = ("win_rate", "tie_rate", "loss_rate")
BY_COMPUTE = "_by_compute"
LOGGED = {name: label[:1].upper() + label[1:] for name, label in COMPARED} | {
    "frac_reward_zero_std": "Groups without spread",
    "advantage/reference_negative": "References with a negative advantage",
    "logprobs/samples": "Log-probability of the samples",
}
"""Logged metrics in words; others keep their names."""
STACKED = ("loss/", "grad/share/")


def experiment_section(path: Path, given: str, *, sensitive: bool | None) -> Section:
    """Read a record. What it lacks has no figure."""
    record = read_json(path / FILE)
    plan = record.get("plan") or {}
    aggregates = record.get("aggregates") or []
    compared = _compared(record)
    settings = _varied(aggregates, compared)
    measured = [_measured(one, compared, settings) for one in aggregates]
    metrics = _metrics(plan, measured)
    answers, answer_notes = _answers(record, sensitive)
    notes = [] if measured else [f"{FILE} holds no aggregates: nothing was measured yet."]
    return Section(
        title=str(plan.get("title") or plan.get("name") or path.resolve().name),
        kind="Experiment",
        source=given,
        lead=str(plan.get("description") or ""),
        facts=_facts(plan, measured, compared),
        figures=_figures(record, measured, metrics),
        more=_more(measured, metrics),
        tables=tuple(table for table in (claims_of(record), tuning_of(record)) if table is not None),
        answers=() if answers is None else (answers,),
        provenance=record.get("provenance"),
        notes=present((*notes, *_diverged(aggregates), *answer_notes)),
    )


def claims_of_all(paths: Sequence[Path]) -> list[Section]:
    """Return all claims of several experiments in one table with counts of verdicts; nothing for one experiment."""
    if len(paths) < 2:
        return []
    claims = [claim for path in paths for claim in read_json(path / FILE).get("claims") or []]
    table = claims_of({"claims": claims})
    if table is None:
        return []
    counts = Counter(str(claim.get("verdict")) for claim in claims)
    facts = tuple((verdict, f"{count} of {len(claims)}") for verdict, count in sorted(counts.items()))
    lead = f"What {len(paths)} experiments say of every claim they tested. Each one's figures are in its own section."
    return [Section("All claims", "Experiments", ", ".join(map(str, paths)), lead, facts=facts, tables=(table,))]


def _compared(record: Mapping[str, Any]) -> str:
    """Return the axis whose levels are compared; the others are settings."""
    return str((record.get("plan") or {}).get("compared") or "method")


def _varied(aggregates: Sequence[Mapping[str, Any]], compared: str) -> list[str]:
    """Return the other axes with more than one level."""
    levels: dict[str, set[str]] = {}
    for one in aggregates:
        for key, value in (one.get("axes") or {}).items():
            levels.setdefault(key, set()).add(shown(value))
    return [key for key, found in levels.items() if key != compared and len(found) > 1]


def _measured(raw: Mapping[str, Any], compared: str, settings: Sequence[str]) -> SeedMeans:
    axes = dict(raw.get("axes") or {})
    setting = " · ".join(f"{key}: {shown(axes[key])}" for key in settings if key in axes)
    n = raw.get("n")
    metrics = {key: Interval95.read(e) for key, e in (raw.get("metrics") or {}).items()}
    return SeedMeans(
        name=shown(axes[compared]) if compared in axes else setting or "run",
        setting=setting if compared in axes else "",
        axes=axes,
        n=int(n) if is_number(n) else None,
        metrics=metrics,
        by_category={
            category: {key: Interval95.read(e) for key, e in found.items()}
            for category, found in (raw.get("by_category") or {}).items()
        },
        rewards={key: value for key, value in (raw.get("rewards") or {}).items() if is_number(value)},
        verdicts=_verdicts(metrics),
        curves={key: Curve.read(curve) for key, curve in (raw.get("curves") or {}).items()},
    )


def _verdicts(metrics: Mapping[str, Interval95]) -> tuple[float, float, float] | None:
    """Shares of wins, ties and losses, where all three were measured."""
    wins, ties, losses = (metrics.get(key, Interval95()).value for key in RATES)
    if is_number(wins) and is_number(ties) and is_number(losses):
        return float(wins), float(ties), float(losses)
    return None


def _metrics(plan: Mapping[str, Any], measured: Sequence[SeedMeans]) -> list[Metric]:
    """As the plan describes them, then those it does not."""
    described = plan.get("metrics") or {}
    keys = dict.fromkeys([*described, *(key for one in measured for key in one.metrics)])
    return [
        Metric(key, _capital(str(about.get("label") or key)), str(about.get("unit") or ""), str(about.get("better")))
        for key in keys
        for about in [described.get(key) or {}]
    ]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _figures(
    record: Mapping[str, Any], measured: Sequence[SeedMeans], metrics: Sequence[Metric]
) -> tuple[Figure, ...]:
    """What answers the plan's question; everything else is folded (`_more`)."""
    if not measured or not metrics:
        return ()
    main = metrics[0]
    named = {metric.key: metric for metric in metrics}
    maps = [_plane(record, measured, named[key]) for key in (main.key, *BESIDE) if key in named]
    if any(maps):
        return fig.those(*maps, *_main_curves(measured, named, main))
    return fig.those(
        *(_over_axes(measured, main, _compared(record)) or [_bars(measured, main)]),
        fig.frontier(measured, named["kl"], main) if "kl" in named and main.key != "kl" else None,
        *_main_curves(measured, named, main),
        fig.by_category(measured, main),
        _differences(record, main),
        fig.verdicts(measured),
        fig.quartiles(measured, main.unit or main.label),
        *_by_metric(measured, [named[key] for key in BESIDE if key in named], "Against reference and base"),
    )


def _more(measured: Sequence[SeedMeans], metrics: Sequence[Metric]) -> tuple[Figure, ...]:
    """Every metric and curve that no figure above shows."""
    if not measured or not metrics:
        return ()
    left = [metric for metric in metrics[1:] if metric.key not in (*BESIDE, *RATES)]
    named = {metric.key: metric for metric in metrics}
    held_out = [key for key in _curve_keys(measured) if _is_held_out(key, named) and not _is_of(key, metrics[0])]
    return fig.those(
        *_by_metric(measured, left, "All other metrics"),
        *_curves(measured, held_out, named, "Other held-out curves"),
    )


def _by_metric(measured: Sequence[SeedMeans], metrics: Sequence[Metric], title: str) -> list[Figure | None]:
    """One figure with a panel a metric; where there are several settings, one figure a metric."""
    if len(settings_of(measured)) > 1:
        return [_bars(measured, metric) for metric in metrics]
    return [fig.metric_bars(title, f"Means{_seeds(measured)} with 95 % intervals.", measured, metrics)]


def _bars(measured: Sequence[SeedMeans], metric: Metric) -> Figure | None:
    groups: dict[str, list[tuple[str, Interval95]]] = {}
    for one in measured:
        if metric.key in one.metrics:
            groups.setdefault(one.setting or metric.label, []).append((one.name, one.get(metric.key)))
    caption = f"Means{_seeds(measured)} with 95 % intervals."
    return fig.bars(metric.label, caption, groups, metric.axis, wide=len(groups) == 1)


def _seeds(measured: Sequence[SeedMeans]) -> str:
    counts = {one.n for one in measured if one.n is not None}
    return f" over {counts.pop()} seeds" if len(counts) == 1 else " over seeds"


def _over_axes(measured: Sequence[SeedMeans], metric: Metric, compared: str) -> list[Figure | None]:
    """Lines over an axis of at least three numbers that is the only one beside the compared; else nothing."""
    axes = {key for one in measured for key in one.axes if key != compared}
    if len(axes) == 1:
        axis = axes.pop()
        values = {one.axes.get(axis) for one in measured}
        if len(values) >= 3 and all(is_number(value) for value in values):
            return [own.over_axis(measured, axis, metric)]
    return []


def _differences(record: Mapping[str, Any], metric: Metric) -> Figure | None:
    """What the last of the compared gains over each other one, paired by seed."""
    rows = [row for row in record.get("differences") or [] if row.get("metric") == metric.key]
    if not rows:
        return None
    last = rows[-1].get("of")
    groups: dict[str, list[tuple[str, Interval95]]] = {}
    for row in rows:
        if row.get("of") == last:
            setting = " · ".join(shown(value) for value in (row.get("axes") or {}).values())
            groups.setdefault(setting, []).append((str(row.get("less")), Interval95.read(row)))
    return fig.differences(
        f"Difference to {last}",
        f"{metric.label} of {last} minus that of each method: mean over seeds, which share rows and base model; "
        "95 % each, not adjusted for their number.",
        groups,
        metric.unit or metric.label,
    )


# --- curves ----------------------------------------------------------------------------------------------------------


def _curve_keys(measured: Sequence[SeedMeans]) -> list[str]:
    return list(dict.fromkeys(key for one in measured for key in one.curves))


def _is_held_out(key: str, named: Mapping[str, Metric]) -> bool:
    """A curve of a test metric, not of what training logged: those have one by compute too."""
    return key.endswith(BY_COMPUTE) or (key in named and key != "kl")


def _is_of(key: str, metric: Metric) -> bool:
    return key.removesuffix(BY_COMPUTE) == metric.key


def _main_curves(measured: Sequence[SeedMeans], named: Mapping[str, Metric], main: Metric) -> list[Figure | None]:
    keys = _curve_keys(measured)
    logged = [key for key in keys if not _is_held_out(key, named) and not key.startswith(STACKED)]
    return [
        *_curves(measured, [key for key in keys if _is_of(key, main)], named, "Learning curves"),
        own.term_areas(
            measured,
            "loss/",
            "Loss, term by term",
            "Signed, means over seeds: what raises the loss stands above 0, what lowers it below.",
            signed=True,
        ),
        own.term_areas(
            measured,
            "grad/share/",
            "Whose gradient is it?",
            "‖∇term‖ over the sum of all terms' norms, means over seeds.",
            signed=False,
        ),
        *_curves(measured, logged, named, "What training logged"),
    ]


def _curves(
    measured: Sequence[SeedMeans], keys: Sequence[str], named: Mapping[str, Metric], title: str
) -> list[Figure | None]:
    """One figure with a panel a curve; where there are several settings, one figure a curve."""
    labels = {}
    for key in keys:
        metric = named.get(key.removesuffix(BY_COMPUTE))
        name = metric.label if metric is not None else LOGGED.get(key, key)
        labels[key] = f"{name} by compute" if key.endswith(BY_COMPUTE) else name
    if len(settings_of(measured)) > 1:
        return [own.curves(measured, {key: label}, label) for key, label in labels.items()]
    return [own.curves(measured, labels, title)]


def _plane(record: Mapping[str, Any], measured: Sequence[SeedMeans], metric: Metric) -> Figure | None:
    """The map, where β and λ were both varied."""
    keys = {key for one in measured for key in one.axes}
    beta, lam = (next((key for key in names if key in keys), None) for names in (BETA, LAM))
    if beta is None or lam is None:
        return None
    others = [key for key in keys if key not in (beta, lam)]
    placed = [_without_axes(one, others) for one in measured]
    size = next((v for v in _found(record.get("plan"), GROUP_SIZE)), None)
    size = size if size is not None else next((v for v in _found(record.get("provenance"), GROUP_SIZE)), None)
    return own.plane(placed, beta, lam, metric, size or 8, assumed=size is None)


def _without_axes(one: SeedMeans, others: Sequence[str]) -> SeedMeans:
    setting = " · ".join(str(one.axes[key]) for key in others if key in one.axes)
    return SeedMeans(one.name, setting, one.axes, one.n, one.metrics)


def _found(tree: Any, names: Sequence[str]) -> Iterator[int]:
    """Whole numbers under any of these keys, however deep."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if key in names and isinstance(value, int) and not isinstance(value, bool) and value > 0:
                yield value
            yield from _found(value, names)
    elif isinstance(tree, list):
        for value in tree:
            yield from _found(value, names)


def _facts(plan: Mapping[str, Any], measured: Sequence[SeedMeans], compared: str) -> tuple[tuple[str, str], ...]:
    axes = plan.get("axes") or {}
    facts = [("plan", str(plan.get("name", "?"))), ("settings measured", str(len(measured)))]
    seeds = sorted({one.n for one in measured if one.n is not None})
    if seeds:
        facts.append(("seeds per setting", str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"))
    if isinstance(axes, Mapping):
        facts += [
            (str(axis), ", ".join(map(shown, values)) if isinstance(values, list) else shown(values))
            for axis, values in axes.items()
            if axis != compared
        ]
    return tuple(facts)


def _diverged(aggregates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Runs that are in no mean, by setting."""
    lost = [(one, one.get("diverged")) for one in aggregates]
    return [
        f"{' · '.join(shown(value) for value in (one.get('axes') or {}).values())}: {count} of "
        f"{count + (one.get('n') or 0)} seeds diverged and are in no figure."
        for one, count in lost
        if is_number(count) and count > 0
    ]


# --- answers ---------------------------------------------------------------------------------------------------------


def _answers(record: Mapping[str, Any], sensitive: bool | None) -> tuple[AnswerSet | None, tuple[str, ...]]:
    found = record.get("answers") or {}
    prompts, methods = found.get("prompts") or [], found.get("methods") or {}
    if not prompts or not methods:
        return None, ()
    names = tuple(str(name) for name in methods)
    asked = [
        Asked(
            prompt=conversation(prompt),
            category=_at(found.get("categories"), place),
            reference=_at(found.get("references"), place),
            reference_score=_at(found.get("reference_scores"), place),
            answers=tuple(
                Answer(who, str(_at(own.get("answers"), place)), _at(own.get("scores"), place))
                for who, own in enumerate(methods.values())
                if _at(own.get("answers"), place) is not None
            ),
        )
        for place, prompt in enumerate(prompts)
    ]
    kept, notes = limited("Answers", asked)
    caption = "Test prompts with their references and each method's answers (one seed)."
    return AnswerSet("Answers", caption, names, kept, notes, sensitive=bool(sensitive)), ()


def _at(values: Any, place: int) -> Any:
    return values[place] if isinstance(values, list) and place < len(values) else None
