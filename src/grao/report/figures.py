"""Figures of a comparison: bars, frontier, verdicts, categories, quartiles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from grao.report.charts import Bar, Bars, Point, Quartiles, Scatter, Spread, Verdicts
from grao.report.measured import Interval95, Measured, Metric, settings_of
from grao.report.scales import domain_of, is_number
from grao.report.section import Cell, Figure, Panel

ESTIMATE = ("value", "low", "high", "n")
Rows = list[tuple[Cell, ...]]


def bars(
    title: str, caption: str, groups: Mapping[str, Sequence[tuple[str, Interval95]]], unit: str, *, wide: bool = False
) -> Figure | None:
    """Return one panel per group on one scale, or None without values. `wide`: one group, as wide as the page."""
    values = [e for group in groups.values() for _, e in group]
    if not any(is_number(e.value) for e in values):
        return None
    bounds = [bound for e in values for bound in (e.low, e.high)]
    domain = domain_of([e.value for e in values], bounds, include=(0.0,), margin=0.02)
    rows, panels = _bar_panels(groups, dict.fromkeys(groups, unit), domain)
    return Figure(title, caption, panels, ("panel", "method", *ESTIMATE), tuple(rows), notes=_gaps(values), wide=wide)


def metric_bars(title: str, caption: str, measured: Sequence[Measured], metrics: Sequence[Metric]) -> Figure | None:
    """Return one panel per metric, each on its own scale. Metrics without values are left out."""
    known = [m for m in metrics if any(is_number(one.get(m.key).value) for one in measured)]
    groups = {m.label: [(one.name, one.get(m.key)) for one in measured if _has(one, m.key)] for m in known}
    if not groups:
        return None
    rows, panels = _bar_panels(groups, {m.label: m.axis for m in known}, None)
    lacking = {one.name: [m.label for m in known if not _has(one, m.key)] for one in measured}
    missing = [f"{name} has no value for: {'; '.join(labels)}." for name, labels in lacking.items() if labels]
    return Figure(title, caption, panels, ("panel", "method", *ESTIMATE), tuple(rows), notes=tuple(missing))


def _has(measured: Measured, metric: str) -> bool:
    return is_number(measured.get(metric).value)


def _bar_panels(
    groups: Mapping[str, Sequence[tuple[str, Interval95]]],
    units: Mapping[str, str],
    domain: tuple[float, float] | None,
    *,
    dots: bool = False,
) -> tuple[Rows, tuple[Panel, ...]]:
    rows: Rows = []
    panels = []
    for group, found in groups.items():
        drawn = []
        for name, e in found:
            drawn.append(Bar(name, e.value, e.low, e.high, len(rows)))
            rows.append((group, name, e.value, e.low, e.high, e.n))
        panels.append(Panel(group, Bars(group, units[group], tuple(drawn), domain, dots)))
    return rows, tuple(panels)


def differences(
    title: str, caption: str, groups: Mapping[str, Sequence[tuple[str, Interval95]]], unit: str
) -> Figure | None:
    """Return points with intervals around 0, one panel per group, on one scale."""
    values = [e for group in groups.values() for _, e in group]
    if not any(is_number(e.value) for e in values):
        return None
    bounds = [bound for e in values for bound in (e.low, e.high)]
    domain = domain_of([e.value for e in values], bounds, include=(0.0,), margin=0.04)
    rows, panels = _bar_panels(groups, dict.fromkeys(groups, unit), domain, dots=True)
    return Figure(title, caption, panels, ("panel", "less", *ESTIMATE), tuple(rows), notes=_gaps(values))


def frontier(measured: Sequence[Measured], x: Metric, y: Metric) -> Figure | None:
    """Return gain against cost, one panel per setting. The base, which has no KL to itself, is at 0."""
    rows: Rows = []
    panels = []
    for setting in settings_of(measured):
        points = []
        title = setting or f"{y.label} against {x.label}"
        for one in (m for m in measured if m.setting == setting):
            a, b = one.get(x.key), one.get(y.key)
            at = a.value if is_number(a.value) else 0.0 if one.name == "base" else None
            if at is None or not is_number(b.value):
                continue
            points.append(Point(one.name, at, b.value, len(rows), a.low, a.high, b.low, b.high))
            rows.append((title, one.name, at, a.low, a.high, b.value, b.low, b.high))
        if len(points) > 1:
            panels.append(
                Panel(title, Scatter(title, f"{x.label} ({x.unit})" if x.unit else x.label, y.label, tuple(points)))
            )
    if not panels:
        return None
    columns = ("panel", "method", *(f"{m.label}{end}" for m in (x, y) for end in ("", " low", " high")))
    caption = (
        f"{y.label} against {x.label}: up is better, left is closer to the base. The faint line joins the methods "
        "that no other method beats in both. Bars are 95 % intervals."
    )
    return Figure("What does the gain cost?", caption, tuple(panels), columns, tuple(rows), wide=len(panels) == 1)


def verdicts(measured: Sequence[Measured]) -> Figure | None:
    """Return wins, ties and losses, one panel per setting."""
    rows: Rows = []
    panels = []
    for setting in settings_of(measured):
        counted = [(m.name, *m.verdicts) for m in measured if m.setting == setting and m.verdicts is not None]
        if counted:
            title = setting or "answers against their references"
            panels.append(Panel(title, Verdicts(title, tuple(counted), len(rows))))
            rows += [(title, *row) for row in counted]
    if not panels:
        return None
    caption = "Answers that score above, equal to and below the reference of their prompt."
    return Figure(
        "Against the reference", caption, tuple(panels), ("panel", "method", "wins", "ties", "losses"), tuple(rows)
    )


def by_category(measured: Sequence[Measured], metric: Metric) -> Figure | None:
    """Return one panel per category and setting."""
    groups: dict[str, list[tuple[str, Interval95]]] = {}
    for setting in settings_of(measured):
        for one in (m for m in measured if m.setting == setting):
            for category, found in one.by_category.items():
                title = " · ".join(part for part in (setting, category) if part)
                if metric.key in found:
                    groups.setdefault(title, []).append((one.name, found[metric.key]))
    return bars(f"{metric.label} by category", "The same per kind of prompt, on one scale.", groups, metric.axis)


def quartiles(measured: Sequence[Measured], unit: str) -> Figure | None:
    """Return mean, deviation and quartiles of the scores, one panel per setting."""
    rows: Rows = []
    groups: dict[str, tuple[Spread, ...]] = {}
    needed = ("mean", "variance", "q25", "q50", "q75")
    for setting in settings_of(measured):
        spreads = []
        title = setting or "scores"
        for one in (m for m in measured if m.setting == setting and all(is_number(m.rewards.get(k)) for k in needed)):
            mean, variance, q25, q50, q75 = (float(one.rewards[key]) for key in needed)
            spreads.append(Spread(one.name, mean, math.sqrt(max(variance, 0.0)), q25, q50, q75, len(rows)))
            rows.append((title, one.name, mean, variance, q25, q50, q75))
        if spreads:
            groups[title] = tuple(spreads)
    if not groups:
        return None
    domain = Quartiles("", unit, tuple(one for spreads in groups.values() for one in spreads)).own_domain()
    panels = [Panel(title, Quartiles(title, unit, spreads, domain)) for title, spreads in groups.items()]
    caption = "Boxes span the quartiles; a stroke marks the median, a point the mean ± one standard deviation."
    return Figure("How the scores spread", caption, tuple(panels), ("panel", "method", *needed), tuple(rows))


def _gaps(values: Iterable[Interval95]) -> tuple[str, ...]:
    """Return notes on missing intervals and values."""
    values = list(values)
    without = sum(is_number(e.value) and not (is_number(e.low) and is_number(e.high)) for e in values)
    missing = sum(not is_number(e.value) for e in values)
    said = []
    if without:
        said.append(f"{without} of {len(values)} values have no interval: they have one seed or one item.")
    if missing:
        said.append(f"{missing} of {len(values)} values are missing.")
    return tuple(said)


def those(*found: Figure | None) -> tuple[Figure, ...]:
    """Return the figures that are not None."""
    return tuple(figure for figure in found if figure is not None)
