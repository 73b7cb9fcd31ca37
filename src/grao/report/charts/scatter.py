"""Points with two intervals and their names beside them: gain against cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from grao.report.charts.chart import TEXT, Chart, label, marker, places, rule, x_axis, y_axis
from grao.report.colours import Styles
from grao.report.scales import Linear, domain_of, figures, is_number, tick_labels, ticks
from grao.report.svg import drawing, element, join, path, text_width

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """A method with its cost (x) and gain (y), each with its interval if there is one."""

    name: str
    x: float
    y: float
    row: int
    x_low: float | None = None
    x_high: float | None = None
    y_low: float | None = None
    y_high: float | None = None


@dataclass(frozen=True, slots=True)
class Scatter(Chart):
    """The frontier (low x, high y) is a faint line through the points that no other point beats in both."""

    title: str
    x_label: str
    y_label: str
    points: tuple[Point, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the points."""
        return tuple(point.name for point in self.points)

    def draw(self, width: float, styles: Styles) -> Markup:
        """See `Chart.draw`."""
        height = min(430.0, 140 + width * 0.5)
        xs, ys = self._domains()
        left = 12 + max((text_width(text, TEXT) for text in tick_labels(ticks(*ys, 4))), default=20.0)
        x, y = Linear(*xs, left, width - 14), Linear(*ys, height - 40, 22.0)
        body = [y_axis(y, left, width - 14), x_axis(x, height - 40, self.x_label)]
        body.append(label(4.0, 8.0, f"↑ {self.y_label}", class_="axis-title"))
        edge = [(x(p.x), y(p.y)) for p in frontier(self.points)]
        if len(edge) > 1:
            body.append(element("path", d=path(edge), class_="frontier"))
        for p in self.points:
            body += [rule(*line, "reach", styles[p.name].paint) for line in _reaches(p, x, y)]
        body += [marker(styles[p.name], x(p.x), y(p.y), 5.0) for p in self.points]
        body.append(self._names(x, y, width, styles))
        found = [(x(p.x), y(p.y), p.row) for p in self.points]
        return drawing(width, height, self.title, self.describe(), *body, places(found))

    @property
    def is_cut(self) -> bool:
        """Return whether an interval is wider than the chart."""
        (x0, x1), (y0, y1) = self._domains()
        return any(
            is_number(bound) and not low <= bound <= high
            for p in self.points
            for bound, low, high in ((p.x_low, x0, x1), (p.x_high, x0, x1), (p.y_low, y0, y1), (p.y_high, y0, y1))
        )

    def _domains(self) -> tuple[tuple[float, float], tuple[float, float]]:
        across = [bound for p in self.points for bound in (p.x_low, p.x_high)]
        upward = [bound for p in self.points for bound in (p.y_low, p.y_high)]
        return (
            domain_of([p.x for p in self.points], across, margin=0.06),
            domain_of([p.y for p in self.points], upward, margin=0.08),
        )

    def describe(self) -> str:
        """Return each point, in words."""
        told = (f"{p.name}: {self.x_label} {figures(p.x)}, {self.y_label} {figures(p.y)}" for p in self.points)
        return "; ".join(told) or "no data"

    def _names(self, x: Linear, y: Linear, width: float, styles: Styles) -> Markup:
        taken: list[Box] = [(x(p.x) - 6, y(p.y) - 6, x(p.x) + 6, y(p.y) + 6) for p in self.points]
        for p in self.points:
            taken += [(a - 2, b - 2, c + 2, d + 2) for a, b, c, d in _reaches(p, x, y)]
        names = []
        for p in self.points:
            at, anchor, box = _free_place(x(p.x), y(p.y), text_width(p.name, TEXT), width, y.r0, taken)
            taken.append(box)
            names.append(label(*at, p.name, class_="end", anchor=anchor, paint=styles[p.name].paint))
        return join(names)


def _reaches(p: Point, x: Linear, y: Linear) -> list[Box]:
    """Return the lines of a point's intervals, cut at the chart's edges."""
    lines: list[Box] = []
    if is_number(p.x_low) and is_number(p.x_high):
        lines.append((x(max(p.x_low, x.d0)), y(p.y), x(min(p.x_high, x.d1)), y(p.y)))
    if is_number(p.y_low) and is_number(p.y_high):
        lines.append((x(p.x), y(min(p.y_high, y.d1)), x(p.x), y(max(p.y_low, y.d0))))
    return lines


def frontier(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other point beats (lower x, and y at least as high), from left to right."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, -p.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    return best


_OFFSETS = ((10, 0), (8, -11), (-8, -11), (8, 11), (-8, 11), (-10, 0), (0, -15), (0, 15))


def _free_place(
    x: float, y: float, width: float, edge: float, floor: float, taken: Sequence[Box]
) -> tuple[tuple[float, float], str, Box]:
    """Return where a name hides least: right, left, above or below its point, the nearest first."""
    half = TEXT * 0.6
    options: list[tuple[float, tuple[float, float], str, Box]] = []
    for cost, (dx, dy) in enumerate(_OFFSETS):
        anchor = "start" if dx > 0 else "end" if dx < 0 else "middle"
        start = x + dx - (0 if dx > 0 else width if dx < 0 else width / 2)
        box = (start, y + dy - half, start + width, y + dy + half)
        hidden = sum(_overlap(box, other) for other in taken)
        outside = max(0.0, -box[0]) + max(0.0, box[2] - edge) + max(0.0, box[3] - floor)
        options.append((hidden + 40 * outside + cost, (x + dx, y + dy), anchor, box))
    _, at, anchor, box = min(options, key=lambda option: option[0])
    return at, anchor, box


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
