"""A map over two numbers, with lines along which theory expects no change."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from grao.report.charts.chart import Chart, label, places
from grao.report.colours import HEAT_STEPS, Styles
from grao.report.scales import extent, figures
from grao.report.svg import drawing, element, path

WIDEST = 760.0
"""Of a map: wider cells say no more."""


@dataclass(frozen=True, slots=True)
class EqualLine:
    """Points (x, y) of a line on the map, and its name."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class HeatMap(Chart):
    """One cell for each pair of values that was tried."""

    title: str
    x_label: str
    y_label: str
    xs: tuple[float, ...]
    """In order; so are `ys`."""
    ys: tuple[float, ...]
    cells: tuple[tuple[float, float, float, int], ...]
    """x, y, value, and the row in the table behind the figure."""
    lines: tuple[EqualLine, ...] = ()

    def draw(self, width: float, styles: Styles) -> Markup:
        """See `Chart.draw`."""
        left, top = 46.0, 30.0
        right = min(width, WIDEST) - (70 if self.lines else 14)
        side = (right - left) / max(len(self.xs), 1)
        tall = min(side, 60.0)
        bottom = top + tall * len(self.ys)
        columns = {x: left + side * (i + 0.5) for i, x in enumerate(self.xs)}
        rows = {y: bottom - tall * (i + 0.5) for i, y in enumerate(self.ys)}
        low, high = extent(value for _, _, value, _ in self.cells)
        body = [label(4.0, 8.0, f"↑ {self.y_label}", class_="axis-title")]
        body += [label(left - 8, at, figures(y, 2), anchor="end") for y, at in rows.items()]
        body += [label(at, bottom + 13, figures(x, 2), anchor="middle") for x, at in columns.items()]
        body.append(label((left + right) / 2, bottom + 29, self.x_label, class_="axis-title", anchor="middle"))
        steps = [min(HEAT_STEPS - 1, int(HEAT_STEPS * (cell[2] - low) / (high - low))) for cell in self.cells]
        for (x, y, *_), step in zip(self.cells, steps, strict=True):
            body.append(_cell(columns[x], rows[y], side, tall, step))
        body += self._lines(columns, rows, right, top)
        digits = 3 if side > 34 else 2
        for (x, y, value, _), step in zip(self.cells, steps, strict=True):
            body.append(_number(columns[x], rows[y], step, figures(value, digits)))
        found = [(columns[x], rows[y], row) for x, y, _, row in self.cells]
        return drawing(width, bottom + 38, self.title, self.describe(), *body, places(found))

    def describe(self) -> str:
        """Return the highest and the lowest cell, in words."""
        if not self.cells:
            return "no data"
        most, least = max(self.cells, key=lambda c: c[2]), min(self.cells, key=lambda c: c[2])
        told = (f"{word} {figures(c[2])} at {self.x_label} {figures(c[0])}, {self.y_label} {figures(c[1])}"
                for word, c in (("most", most), ("least", least)))  # fmt: skip
        return "; ".join(told)

    def _lines(self, columns: dict[float, float], rows: dict[float, float], right: float, top: float) -> list[Markup]:
        """Each as far as the map goes, its name where it leaves: beside the map, or above it."""
        body = []
        for line in self.lines:
            inside = [
                (x, _between(x, self.xs, columns), _between(y, self.ys, rows))
                for x, y in line.points
                if self.xs[0] <= x <= self.xs[-1] and self.ys[0] <= y <= self.ys[-1]
            ]
            if len(inside) < 2:
                continue
            d = path([(a, b) for _, a, b in inside])
            body += [element("path", d=d, class_="equal-halo"), element("path", d=d, class_="equal")]
            last, a, b = inside[-1]
            if last == self.xs[-1]:
                body.append(label(right + 6, b, line.name, class_="equal-name"))
            else:
                body.append(label(a, top - 8, line.name, class_="equal-name", anchor="middle"))
        return body


def _between(value: float, known: Sequence[float], placed: dict[float, float]) -> float:
    """The place of a value between the cells of its neighbours."""
    i = min(max(bisect_right(known, value), 1), len(known) - 1)
    a, b = known[i - 1], known[i]
    return placed[a] + (value - a) / (b - a) * (placed[b] - placed[a])


def _cell(x: float, y: float, side: float, tall: float, step: int) -> Markup:
    return element(
        "rect",
        x=x - side / 2 + 1,
        y=y - tall / 2 + 1,
        width=side - 2,
        height=tall - 2,
        class_="cell",
        style=f"fill:var(--heat-{step})",
    )


def _number(x: float, y: float, step: int, text: str) -> Markup:
    """In the ink that the cell asks for, with the cell's colour around it where a line passes below."""
    ink = "heat-high-ink" if step >= 4 else "heat-low-ink"
    return label(x, y, text, class_="cell-text", anchor="middle", paint=f"var(--{ink});stroke:var(--heat-{step})")
