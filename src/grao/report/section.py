"""What a page is made of: sections with facts, figures, tables and answers. No markup: that is the page's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grao.report.answers import AnswerSet
from grao.report.charts import Chart

Cell = str | float | int | bool | None


CUT = "Intervals wider than a panel are cut at its edge; the data has them whole."


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart of a figure."""

    title: str
    chart: Chart


@dataclass(frozen=True, slots=True)
class Figure:
    """Charts side by side that share one question, one legend and one table of data."""

    title: str
    caption: str
    """What it shows, how it was measured, and what an interval means."""
    panels: tuple[Panel, ...]
    columns: tuple[str, ...]
    """Of the table behind it: what a pointer on the chart reads out, and what the CSV holds."""
    rows: tuple[tuple[Cell, ...], ...]
    legend: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What is missing, thinned or smoothed."""
    wide: bool = False
    """One panel over the whole page, drawn a second time for a phone."""

    @property
    def all_notes(self) -> tuple[str, ...]:
        """The notes, and whether intervals were cut."""
        cut = any(panel.chart.is_cut for panel in self.panels)
        return (*self.notes, CUT) if cut else self.notes


@dataclass(frozen=True, slots=True)
class Interval:
    """A number with its interval, drawn small inside a table."""

    value: float | None
    low: float | None
    high: float | None
    domain: tuple[float, float] = (-1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a claim holds."""

    text: str


@dataclass(frozen=True, slots=True)
class Twofold:
    """A text, and a small one below it."""

    text: str
    below: str


CLAIMS = "Claims of the paper"
"""The one table that stands before the figures."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is read as such."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell | Interval | Verdict | Twofold, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """One directory on the page."""

    title: str
    kind: str
    """What the directory is: a training run, a comparison, ..."""
    source: str
    """Its path, as it was given."""
    lead: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    figures: tuple[Figure, ...] = ()
    more: tuple[Figure, ...] = ()
    """Shown folded."""
    tables: tuple[Table, ...] = ()
    answers: tuple[AnswerSet, ...] = ()
    provenance: Any = None
    """Anything JSON holds; shown folded."""
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """Of everything that needs a colour here."""
        figures = (*self.figures, *self.more)
        drawn = {name for figure in figures for panel in figure.panels for name in panel.chart.names}
        return (
            drawn
            | {name for figure in figures for name in figure.legend}
            | {name for answers in self.answers if answers.coloured for name in answers.names}
        )


def present(values: Sequence[str | None]) -> tuple[str, ...]:
    """Those that there are."""
    return tuple(value for value in values if value)
