"""Metrics over steps as lines: long runs are thinned and noisy ones smoothed, with a note for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grao.report.charts import Lines, Series
from grao.report.scales import is_number
from grao.report.section import Cell, Figure, Panel

POINTS = 240
"""Most points of a line. In longer ones, neighbours are averaged."""
SMOOTH_FROM = 20
"""Lines with at least this many points are smoothed."""

Lines_ = Sequence[Mapping[str, Any]]


def numbers(lines: Lines_, name: str) -> tuple[list[float], list[float], int]:
    """Return steps and finite values of a metric, and the number of other values."""
    points = [(line["step"], line[name]) for line in lines if name in line]
    kept = [(float(step), float(value)) for step, value in points if is_number(value)]
    return [step for step, _ in kept], [value for _, value in kept], len(points) - len(kept)


def has(lines: Lines_, name: str) -> bool:
    """Return whether the metric was logged as a number at least once."""
    return any(is_number(line.get(name)) for line in lines)


def thinned(values: Sequence[float], size: int) -> list[float]:
    """Return means of `size` neighbours each.

    >>> thinned([1, 3, 5, 7, 9], 2)
    [2.0, 6.0, 9.0]
    """
    parts = [values[i : i + size] for i in range(0, len(values), size)]
    return [sum(part) / len(part) for part in parts]


def smoothed(values: Sequence[float]) -> list[float]:
    """Return centred means over a fifteenth of the line, with fewer neighbours at its ends."""
    reach = max(1, len(values) // 30)
    parts = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


@dataclass
class CurveTable:
    """The rows behind a figure of curves. `line` fills them."""

    columns: tuple[str, ...] = ("metric", "line", "step", "value", "smoothed", "low", "high")
    rows: list[tuple[Cell, ...]] = field(default_factory=list)
    missing: int = 0
    """Number of logged values that are not finite numbers."""
    faint: bool = False
    """Whether some line is also drawn before smoothing."""
    longest: int = 1
    """Steps per point of the most thinned line."""

    def line(
        self,
        lines: Lines_,
        metric: str,
        label: str,
        *,
        style_of: str | None = None,
        band: bool = False,
        raw: bool = True,
    ) -> Series | None:
        """Return one metric of one run, or None if it has no number.

        `band` adds a band from {metric}_low to {metric}_high, `raw` a faint line of what was logged.
        """
        steps, values, missing = numbers(lines, metric)
        self.missing += missing
        if not steps:
            return None
        low, high = self._bounds(lines, metric, len(steps)) if band else ([], [])
        size = -(-len(steps) // POINTS)
        self.longest = max(self.longest, size)
        steps, values, low, high = (thinned(each, size) for each in (steps, values, low, high))
        smooth = smoothed(values) if len(values) >= SMOOTH_FROM and not low else values
        self.faint |= raw and smooth is not values
        first = len(self.rows)
        bounds = zip(low, high, strict=True) if low else ((None, None) for _ in steps)
        for step, value, drawn, (a, b) in zip(steps, values, smooth, bounds, strict=True):
            self.rows.append((metric, label, step, value, drawn, a, b))
        return Series(
            label,
            tuple(steps),
            tuple(smooth),
            tuple(low),
            tuple(high),
            raw=tuple(values) if raw and smooth is not values else (),
            first_row=first,
            style_of=style_of,
        )

    def notes(self) -> tuple[str, ...]:
        """Return the notes on these lines."""
        said = []
        if any(row[3] != row[4] for row in self.rows):
            said.append(
                f"Lines are centred means over a fifteenth of the run{'; faint: as logged' if self.faint else ''}."
            )
        if self.longest > 1:
            said.append(f"Each point is the mean of up to {self.longest} logged steps.")
        if self.missing:
            said.append(f"{self.missing} logged values are not finite numbers and are left out.")
        return tuple(said)

    @staticmethod
    def _bounds(lines: Lines_, metric: str, count: int) -> tuple[list[float], list[float]]:
        low, high = numbers(lines, f"{metric}_low")[1], numbers(lines, f"{metric}_high")[1]
        return (low, high) if len(low) == len(high) == count else ([], [])


def lines_panel(title: str, series: Iterable[Series | None], *, labelled: bool = True) -> Panel | None:
    """Return a panel of the lines that are not None, or None."""
    drawn = tuple(one for one in series if one is not None)
    return Panel(title, Lines(title, "step", drawn, labelled=labelled)) if drawn else None


def curves_figure(
    title: str, caption: str, table: CurveTable, panels: Iterable[Panel | None], legend: Iterable[str] = ()
) -> Figure | None:
    """Return a figure of the panels that are not None, or None."""
    drawn = tuple(panel for panel in panels if panel is not None)
    if not drawn:
        return None
    return Figure(title, caption, drawn, table.columns, tuple(table.rows), tuple(legend), table.notes())
