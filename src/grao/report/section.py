"""What a page is made of: sections with facts, figures, tables and answers. The page adds the markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from grao.report.answers import AnswerSet
from grao.report.charts import Chart

Cell = str | float | int | bool | None


CUT = "Intervals wider than a panel are cut at its edge; the data table has them in full."


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart of a figure."""

    title: str
    chart: Chart


@dataclass(frozen=True, slots=True)
class Figure:
    """Charts side by side with one question, one legend and one table of data."""

    title: str
    caption: str
    """What it shows, how it was measured, and what an interval means."""
    panels: tuple[Panel, ...]
    columns: tuple[str, ...]
    """Columns of the data behind the charts, for the pointer and the CSV file."""
    rows: tuple[tuple[Cell, ...], ...]
    legend: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What is missing, thinned or smoothed."""
    wide: bool = False
    """Whether its one panel is as wide as the page; it is drawn again for phones."""

    @property
    def all_notes(self) -> tuple[str, ...]:
        """Return the notes, and one on intervals that are cut."""
        cut = any(panel.chart.is_cut for panel in self.panels)
        return (*self.notes, CUT) if cut else self.notes


class Html(Protocol):
    """A table cell that brings its own markup, and has escaped every text in it."""

    def __html__(self) -> str:
        """Return the markup."""
        ...


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a section."""

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
    """What the directory is: a training run, a comparison, …"""
    source: str
    """Its path, as the user gave it."""
    lead: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    figures: tuple[Figure, ...] = ()
    more: tuple[Figure, ...] = ()
    """Shown folded."""
    tables: tuple[Table, ...] = ()
    answers: tuple[AnswerSet, ...] = ()
    provenance: Any = None
    """Plain data, shown folded."""
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """Return all names that need a colour."""
        figures = (*self.figures, *self.more)
        drawn = {name for figure in figures for panel in figure.panels for name in panel.chart.names}
        return (
            drawn
            | {name for figure in figures for name in figure.legend}
            | {name for answers in self.answers if answers.coloured for name in answers.names}
        )


def present(values: Sequence[str | None]) -> tuple[str, ...]:
    """Return the values that are not empty."""
    return tuple(value for value in values if value)
