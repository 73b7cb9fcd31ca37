"""Figures of experiments only: metrics over a varied number, curves over seeds, loss terms, maps over β and λ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from grao.report.charts import Lines, Series, StackedAreas
from grao.report.figures import ESTIMATE, Rows
from grao.report.measured import Measured, Metric, settings_of
from grao.report.scales import domain_of, is_number, tick_labels, ticks
from grao.report.section import Figure, Panel
from research.report.heat_map import EqualLine, HeatMap


@dataclass(frozen=True, slots=True)
class Curve:
    """A line with a band, over seeds."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    x_label: str

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Curve:
        """Read points with finite x and value. A band with a gap is left out."""
        xs, values = list(raw.get("x") or ()), list(raw.get("value") or ())
        lows, highs = (list(raw.get(side) or ()) or [None] * len(xs) for side in ("low", "high"))
        points = [p for p in zip(xs, values, lows, highs, strict=False) if is_number(p[0]) and is_number(p[1])]
        banded = bool(points) and all(is_number(low) and is_number(high) for _, _, low, high in points)
        return cls(
            tuple(float(p[0]) for p in points),
            tuple(float(p[1]) for p in points),
            tuple(float(p[2]) for p in points) if banded else (),
            tuple(float(p[3]) for p in points) if banded else (),
            str(raw.get("x_label") or "step"),
        )


@dataclass(frozen=True, slots=True)
class SeedMeans(Measured):
    """Means over seeds of a method in a setting, with its curves."""

    curves: Mapping[str, Curve] = field(default_factory=dict)


def names_of(measured: Sequence[SeedMeans]) -> list[str]:
    """Return the methods' names in order of appearance."""
    return list(dict.fromkeys(one.name for one in measured))


def over_axis(measured: Sequence[SeedMeans], axis: str, metric: Metric) -> Figure | None:
    """A metric against a number that was varied: one line a method."""
    rows: Rows = []
    lines = []
    for name in names_of(measured):
        own = [
            (float(m.axes[axis]), m.get(metric.key))
            for m in measured
            if m.name == name and is_number(m.axes.get(axis))
        ]
        points = sorted(((x, e) for x, e in own if is_number(e.value)), key=lambda p: p[0])
        if points:
            curve = Curve.read(
                {
                    "x": [x for x, _ in points],
                    **{side: [getattr(e, side) for _, e in points] for side in ("value", "low", "high")},
                }
            )
            lines.append(Series(name, curve.x, curve.y, curve.low, curve.high, first_row=len(rows)))
            rows += [(name, x, e.value, e.low, e.high, e.n) for x, e in points]
    if not lines:
        return None
    title = f"{metric.label} by {axis}"
    return Figure(
        title,
        f"Each line is a method, its band a 95 % interval over seeds ({metric.axis}).",
        (Panel(metric.label, Lines(title, axis, tuple(lines), labelled=True)),),
        ("method", axis, *ESTIMATE),
        tuple(rows),
        legend=tuple(names_of(measured)),
        wide=True,
    )


def curves(measured: Sequence[SeedMeans], labels: Mapping[str, str], title: str) -> Figure | None:
    """Curves with their bands over seeds: one panel a curve and setting.

    Args:
        measured: whose curves.
        labels: which curves, and what each is called.
        title: of the figure.
    """
    rows: Rows = []
    panels: list[Panel] = []
    longer: set[str] = set()
    for key, label in labels.items():
        ends = {
            s: _common_end([m.curves[key] for m in measured if m.setting == s and key in m.curves])
            for s in settings_of(measured)
        }
        shown = {id(m): _until(m.curves[key], ends[m.setting]) for m in measured if key in m.curves}
        longer |= {m.name for m in measured if id(m) in shown and len(shown[id(m)].x) < len(m.curves[key].x)}
        domain = _curve_domain(list(shown.values()))
        for setting in settings_of(measured):
            name = " · ".join(part for part in (label if len(labels) > 1 else "", setting) if part) or label
            lines = []
            for one in (m for m in measured if m.setting == setting and key in m.curves):
                curve = one.curves[key]
                lines.append(_series(one.name, shown[id(one)], len(rows)))
                rows += [(name, one.name, curve.x_label, *point) for point in _points(curve)]
            if any(line.x for line in lines):
                x_label = next(m.curves[key].x_label for m in measured if key in m.curves)
                panels.append(Panel(name, Lines(name, x_label, tuple(lines), domain, labelled=False)))
    if not panels:
        return None
    names = tuple(dict.fromkeys(str(row[1]) for row in rows))
    notes: tuple[str, ...] = () if any(row[5] is not None for row in rows) else ("No bands: one seed.",)
    if longer:
        notes += (f"Cut at the length of the other curves, in full in the data: {', '.join(sorted(longer))}.",)
    columns = ("panel", "method", "over", "x", "value", "low", "high")
    caption = "Means over seeds; bands are 95 % intervals over seeds."
    return Figure(title, caption, tuple(panels), columns, tuple(rows), names, notes, wide=len(panels) == 1)


def _common_end(found: Sequence[Curve]) -> float:
    """Where curves are cut, so that one much longer leaves the others room: the longest within twice the median."""
    ends = [curve.x[-1] for curve in found if curve.x]
    return max(end for end in ends if end <= 2 * median(ends)) if ends else 0.0


def _until(curve: Curve, end: float) -> Curve:
    """Its beginning."""
    n = sum(x <= end for x in curve.x)
    return Curve(curve.x[:n], curve.y[:n], curve.low[:n], curve.high[:n], curve.x_label)


def _curve_domain(found: Sequence[Curve]) -> tuple[float, float]:
    """One scale for all settings of a curve."""
    values = [value for curve in found for value in curve.y]
    return domain_of(values, [bound for curve in found for bound in (*curve.low, *curve.high)], margin=0.05)


def term_areas(measured: Sequence[SeedMeans], prefix: str, title: str, caption: str, *, signed: bool) -> Figure | None:
    """The curves that share a prefix (`loss/`, `grad/share/`), stacked: one panel a method and setting."""
    rows: Rows = []
    panels = []
    for one in measured:
        terms = {key.removeprefix(prefix): curve for key, curve in one.curves.items() if key.startswith(prefix)}
        terms = {name: curve for name, curve in terms.items() if len(curve.x) > 1}
        if len(terms) < 2:
            continue
        name = " · ".join(part for part in (one.name, one.setting) if part)
        series = []
        for term, curve in terms.items():
            series.append(_series(term, curve, len(rows)))
            rows += [(name, term, *point) for point in _points(curve)]
        x_label = next(iter(terms.values())).x_label
        alike = len({s.x for s in series}) == 1
        chart = StackedAreas(name, x_label, tuple(series), None if signed else (0.0, 1.0))
        panels.append(Panel(name, chart if alike else Lines(name, x_label, tuple(series))))
    if not panels:
        return None
    return Figure(title, caption, tuple(panels), ("panel", "term", "x", "value", "low", "high"), tuple(rows))


def _series(name: str, curve: Curve, first_row: int) -> Series:
    return Series(name, curve.x, curve.y, curve.low, curve.high, first_row=first_row)


def _points(curve: Curve) -> list[tuple[float | None, ...]]:
    """x, value, low, high of each point."""
    nothing: tuple[None, ...] = (None,) * len(curve.x)
    return list(zip(curve.x, curve.y, curve.low or nothing, curve.high or nothing, strict=True))


def plane(
    measured: Sequence[SeedMeans], beta: str, lam: str, metric: Metric, samples: int, assumed: bool
) -> Figure | None:
    """A metric over β and λ, with the lines on which joint GRAO's loss is the same up to its scale.

    β_eff = (β + λ/G) / (1 + λ) (docs/methods.md), so along β = β_eff (1 + λ) − λ/G only the step's size changes.
    """
    rows: Rows = []
    panels = []
    for setting in settings_of(measured):
        title = setting or metric.label
        cells: list[tuple[float, float, float, int]] = []
        for one in (m for m in measured if m.setting == setting):
            e, b, at = one.get(metric.key), one.axes.get(beta), one.axes.get(lam)
            if is_number(e.value) and is_number(b) and is_number(at):
                cells.append((float(at), float(b), e.value, len(rows)))
                rows.append((title, float(b), float(at), e.value, e.low, e.high, e.n))
        if not cells:
            continue
        xs, ys = tuple(sorted({cell[0] for cell in cells})), tuple(sorted({cell[1] for cell in cells}))
        lines = equal_lines(xs, ys, samples) if len(xs) > 1 and len(ys) > 1 else ()
        panels.append(Panel(title, HeatMap(title, "λ", "β", xs, ys, tuple(cells), lines)))
    if not panels:
        return None
    notes = (f"G = {samples} samples per prompt is assumed: the record does not say.",) if assumed else ()
    return Figure(
        f"{metric.label} over β and λ",
        "Lines join settings of equal effective β, (β + λ/G) / (1 + λ): along them the loss of joint GRAO differs by "
        f"a factor only ({metric.axis}).",
        tuple(panels),
        ("panel", "β", "λ", *ESTIMATE),
        tuple(rows),
        notes=notes,
        wide=len(panels) == 1,
    )


def equal_lines(lams: Sequence[float], betas: Sequence[float], samples: int) -> tuple[EqualLine, ...]:
    """Lines β = β_eff (1 + λ) − λ/G across the plane: through settings that share one, and some at round values."""
    effective = [round((b + lam / samples) / (1 + lam), 9) for b in betas for lam in lams]
    shared = sorted(e for e, count in Counter(effective).items() if count > 1)
    step = (max(effective) - min(effective)) / 8
    round_ones = [e for e in ticks(min(effective), max(effective), 4) if e > 0]
    named = [(e, f"{e:.2g}") for e in shared] + [
        (e, name)
        for e, name in zip(round_ones, tick_labels(round_ones), strict=True)
        if all(abs(e - other) > step for other in shared)
    ]
    steps = [lams[0] + (lams[-1] - lams[0]) * i / 40 for i in range(41)]
    return tuple(
        EqualLine(f"β_eff {name}", tuple((lam, e * (1 + lam) - lam / samples) for lam in steps)) for e, name in named
    )
