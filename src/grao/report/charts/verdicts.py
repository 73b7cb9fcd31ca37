"""Wins, ties and losses as parts of a whole, one row per method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from grao.report.charts.chart import Chart, Place, label, name_column, places, row_name, x_axis
from grao.report.colours import Styles
from grao.report.scales import Linear
from grao.report.svg import drawing, element, join

ROW = 25.0
KINDS = {"win": "wins", "tie": "ties", "loss": "losses"}


@dataclass(frozen=True, slots=True)
class Verdicts(Chart):
    """One row per method: answers above, equal to and below the reference."""

    title: str
    rows: tuple[tuple[str, float, float, float], ...]
    """Name, wins, ties, losses: counts or shares."""
    first_row: int = 0
    """Row in the table behind the figure."""

    def draw(self, width: float, styles: Styles) -> Markup:
        """See `Chart.draw`."""
        left = name_column((row[0] for row in self.rows), width)
        x = Linear(0.0, 100.0, left, width - 14)
        bottom = 22 + ROW * len(self.rows)
        head = zip(KINDS, (left + 2, (left + width - 14) / 2, width - 16), ("start", "middle", "end"), strict=True)
        body = [label(at, 8.0, KINDS[kind], class_=f"head-{kind}", anchor=anchor) for kind, at, anchor in head]
        body.append(x_axis(x, bottom, "% of answers", about=4))
        found: list[Place] = []
        for place, (name, *counts) in enumerate(self.rows):
            y = 22 + ROW * (place + 0.5)
            body.append(row_name(name, left - 8, y))
            body.append(_segments(counts, x, y))
            found.append((x(50.0), y, self.first_row + place))
        return drawing(width, bottom + 38, self.title, self.describe(), *body, places(found, by="y"))

    def describe(self) -> str:
        """Return each row, in words."""
        return "; ".join(f"{n}: wins {w:g}, ties {t:g}, losses {lost:g}" for n, w, t, lost in self.rows) or "no data"


def _segments(counts: Sequence[float], x: Linear, y: float) -> Markup:
    total = sum(counts)
    parts, before = [], 0.0
    for kind, count in zip(KINDS, counts, strict=True):
        share = 100 * count / total if total else 0.0
        a, b = x(before), x(before + share)
        before += share
        if b - a > 0.5:
            fill = f"fill:var(--{kind})"
            parts.append(element("rect", x=a, y=y - 8, width=b - a, height=16.0, class_="segment", style=fill))
        if b - a > 26:
            parts.append(label((a + b) / 2, y, f"{share:.0f}", class_=f"on-{kind}", anchor="middle"))
    return join(parts)
