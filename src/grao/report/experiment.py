"""An experiment's record as a section: methods × settings over seeds, claims, tuning, answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from grao.report import figures as fig
from grao.report.answers import Answer, AnswerSet, Asked, limited
from grao.report.comparison import present_answers, read_json
from grao.report.measured import Curve, Interval95, Measured, Metric
from grao.report.scales import extent, figures, is_number
from grao.report.section import Cell, Figure, Interval, Section, Table, Verdict, present
from grao.report.training_run import conversation

FILE = "summary.json"
BETA, LAM = ("beta", "β", "objective.beta"), ("lam", "lambda", "λ", "objective.lam")
GROUP_SIZE = ("num_generations", "samples_per_prompt", "group_size")
LABELS = {
    "score": "Score",
    "score_by_compute": "Score",
    "reward": "Reward",
    "kl": "KL",
}
COST = ("kl", "length", "mean_length", "cpu_seconds", "seconds", "tokens_trained", "tokens_sampled", "steps_to_half")


def experiment_section(path: Path, given: str, *, sensitive: bool | None) -> Section:
    """Everything the record holds; what it does not hold has no figure."""
    record = read_json(path / FILE)
    plan = record.get("plan") or {}
    aggregates = record.get("aggregates") or []
    measured = [_measured(one) for one in aggregates]
    metrics = _metrics(plan, measured)
    answers, answer_notes = _answers(record, sensitive)
    notes = [] if measured else [f"{FILE} holds no aggregates: nothing was measured yet."]
    return Section(
        title=str(plan.get("title") or plan.get("name") or path.resolve().name),
        kind="Experiment",
        source=given,
        lead=str(plan.get("description") or ""),
        facts=_facts(plan, measured),
        figures=_figures(record, measured, metrics),
        more=_more(measured, metrics),
        tables=tuple(table for table in (_claims(record), _tuning(record)) if table is not None),
        answers=present_answers(answers),
        provenance=record.get("provenance"),
        notes=present((*notes, *answer_notes)),
    )


def _measured(raw: Mapping[str, Any]) -> Measured:
    axes = dict(raw.get("axes") or {})
    setting = " · ".join(f"{key}: {_shown(value)}" for key, value in axes.items() if key != "method")
    n = raw.get("n")
    return Measured(
        name=str(axes.get("method", setting or "run")),
        setting=setting if "method" in axes else "",
        axes=axes,
        n=int(n) if is_number(n) else None,
        metrics={key: Interval95.read(e) for key, e in (raw.get("metrics") or {}).items()},
        by_category={
            category: {key: Interval95.read(e) for key, e in found.items()}
            for category, found in (raw.get("by_category") or {}).items()
        },
        rewards={key: value for key, value in (raw.get("rewards") or {}).items() if is_number(value)},
        curves={key: Curve.read(curve) for key, curve in (raw.get("curves") or {}).items()},
    )


def _metrics(plan: Mapping[str, Any], measured: Sequence[Measured]) -> list[Metric]:
    """As the plan describes them, then those it does not."""
    described = plan.get("metrics") or {}
    keys = dict.fromkeys([*described, *(key for one in measured for key in one.metrics)])
    return [
        Metric(
            key,
            str(about.get("label") or LABELS.get(key, key)),
            str(about.get("unit") or ""),
            str(about.get("better") or "none"),
        )
        for key in keys
        for about in [described.get(key) or {}]
    ]


def _figures(record: Mapping[str, Any], measured: Sequence[Measured], metrics: Sequence[Metric]) -> tuple[Figure, ...]:
    if not measured or not metrics:
        return ()
    main = metrics[0]
    if (map_ := _plane(record, measured, main)) is not None:
        return (map_, *_curve_figures(measured, metrics))
    kl = next((metric for metric in metrics if metric.key == "kl"), None)
    return fig.those(
        *(_over_axes(measured, main) or [_bars(measured, main)]),
        fig.frontier(measured, kl, main) if kl is not None and main.key != "kl" else None,
        *_curve_figures(measured, metrics),
        fig.by_category(measured, main),
        *(_bars(measured, metric) for metric in metrics[1:] if metric.key not in COST),
        fig.quartiles(measured, main.unit or main.label),
    )


def _more(measured: Sequence[Measured], metrics: Sequence[Metric]) -> tuple[Figure, ...]:
    return fig.those(*(_bars(measured, metric) for metric in metrics[1:] if metric.key in COST))


def _bars(measured: Sequence[Measured], metric: Metric) -> Figure | None:
    groups: dict[str, list[tuple[str, Interval95]]] = {}
    for one in measured:
        if metric.key in one.metrics:
            groups.setdefault(one.setting or metric.label, []).append((one.name, one.get(metric.key)))
    counts = {one.n for one in measured if one.n is not None}
    over = f" over {counts.pop()} seeds" if len(counts) == 1 else ""
    return fig.bars(metric.label, f"Means{over} with 95 % intervals.", groups, metric.axis)


def _over_axes(measured: Sequence[Measured], metric: Metric) -> list[Figure | None]:
    """Lines over an axis of at least three numbers that is the only one beside the method; else nothing."""
    axes = {key for one in measured for key in one.axes if key != "method"}
    if len(axes) == 1:
        axis = axes.pop()
        values = {one.axes.get(axis) for one in measured}
        if len(values) >= 3 and all(is_number(value) for value in values):
            return [fig.over_axis(measured, axis, metric)]
    return []


def _curve_figures(measured: Sequence[Measured], metrics: Sequence[Metric]) -> tuple[Figure, ...]:
    labels = LABELS | {metric.key: metric.label for metric in metrics}
    keys = dict.fromkeys(key for one in measured for key in one.curves)
    plain = [key for key in keys if not key.startswith(("loss/", "grad/share/"))]
    return fig.those(
        *(fig.curves(measured, key, labels.get(key, key)) for key in plain),
        fig.term_areas(
            measured,
            "loss/",
            "Loss, term by term",
            "Signed, means over seeds: what raises the loss stands above 0, what lowers it below.",
            signed=True,
        ),
        fig.term_areas(
            measured,
            "grad/share/",
            "Whose gradient is it?",
            "‖∇term‖ over the sum of all terms' norms, means over seeds.",
            signed=False,
        ),
    )


def _plane(record: Mapping[str, Any], measured: Sequence[Measured], metric: Metric) -> Figure | None:
    """The map, where β and λ were both varied."""
    keys = {key for one in measured for key in one.axes}
    beta, lam = (next((key for key in names if key in keys), None) for names in (BETA, LAM))
    if beta is None or lam is None:
        return None
    others = [key for key in keys if key not in (beta, lam)]
    placed = [_without_axes(one, others) for one in measured]
    size = next((v for v in _found(record.get("plan"), GROUP_SIZE)), None)
    size = size if size is not None else next((v for v in _found(record.get("provenance"), GROUP_SIZE)), None)
    return fig.plane(placed, beta, lam, metric, size or 8, assumed=size is None)


def _without_axes(one: Measured, others: Sequence[str]) -> Measured:
    setting = " · ".join(str(one.axes[key]) for key in others if key in one.axes)
    return Measured(one.name, setting, one.axes, one.n, one.metrics)


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


def _facts(plan: Mapping[str, Any], measured: Sequence[Measured]) -> tuple[tuple[str, str], ...]:
    axes = plan.get("axes") or {}
    facts = [("plan", str(plan.get("name", "?"))), ("settings measured", str(len(measured)))]
    seeds = sorted({one.n for one in measured if one.n is not None})
    if seeds:
        facts.append(("seeds a setting", str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"))
    if isinstance(axes, Mapping):
        facts += [
            (str(axis), ", ".join(map(_shown, values)) if isinstance(values, list) else _shown(values))
            for axis, values in axes.items()
            if axis != "method"
        ]
    return tuple(facts)


# --- tables ----------------------------------------------------------------------------------------------------------


def _claims(record: Mapping[str, Any]) -> Table | None:
    claims = record.get("claims") or []
    if not claims:
        return None
    effects = [Interval95.read(claim.get("effect")) for claim in claims]
    domains = {
        unit: extent(
            (
                value
                for claim, e in zip(claims, effects, strict=True)
                if claim.get("unit") == unit
                for value in (e.value, e.low, e.high)
            ),
            include=(0.0,),
            margin=0.08,
        )
        for unit in {claim.get("unit") for claim in claims}
    }
    rows = tuple(
        (
            str(claim.get("claim", "")),
            Verdict(str(claim.get("verdict", "undecided here"))),
            Interval(e.value, e.low, e.high, domains[claim.get("unit")]),
            _effect(e, str(claim.get("unit") or "")),
            e.n,
            str(claim.get("rule") or ""),
            str(claim.get("source") or ""),
            str(claim.get("plan") or ""),
        )
        for claim, e in zip(claims, effects, strict=True)
    )
    return Table(
        "Claims of the paper",
        "Verdicts are computed from the records by the rule beside them. Intervals of one unit share a scale; the "
        "stroke is 0.",
        ("claim", "verdict", "effect", "value [95 %]", "n", "rule", "source", "plan"),
        rows,
    )


def _effect(e: Interval95, unit: str) -> str:
    bounds = f" [{figures(e.low)}, {figures(e.high)}]" if is_number(e.low) and is_number(e.high) else ""
    return f"{figures(e.value)}{bounds} {unit}".strip()


def _tuning(record: Mapping[str, Any]) -> Table | None:
    rows: list[tuple[Cell, ...]] = []
    for tuned in record.get("tuning") or []:
        axes = ", ".join(_shown(value) for value in (tuned.get("axes") or {}).values())
        chosen = tuned.get("chosen") or {}
        for tried in tuned.get("grid") or []:
            setting = tried.get("setting") or {}
            value = Interval95.read(tried.get("value")).value
            rows.append((axes, _setting(setting), value, "chosen" if setting == chosen else ""))
    if not rows:
        return None
    return Table(
        "Tuning",
        "What was tried for each method on validation prompts, with seeds of their own, and what was chosen.",
        ("method", "setting", "validation", ""),
        tuple(rows),
    )


def _setting(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {_shown(value)}" for key, value in setting.items())


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


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
    caption = "Test prompts, their references, and what each method answered (one seed)."
    return AnswerSet("Answers", caption, names, kept, notes, sensitive=bool(sensitive)), ()


def _at(values: Any, place: int) -> Any:
    return values[place] if isinstance(values, list) and place < len(values) else None
