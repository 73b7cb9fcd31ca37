"""What a page is made of: sections with facts, figures, tables and answers. No markup: that is the page's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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


class Html(Protocol):
    """A table cell that brings its own markup, and has escaped every text in it."""

    def __html__(self) -> str:
        """Return the markup."""
        ...


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is read as such."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell | Html, ...], ...]
    notes: tuple[str, ...] = ()
    leading: bool = False
    """Shown before the figures."""


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
