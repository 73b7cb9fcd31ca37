"""The tables of an evaluation, for a terminal of 100 columns or more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from grao.evaluation.evaluation_metric import Metric
from grao.evaluation.model_comparison import NO_BASE
from grao.evaluation.model_summary import DISTINCT, Distribution, ModelMetrics, Summary

T = TypeVar("T")
Named = Sequence[tuple[str, ModelMetrics]]
"""Metrics by the name of the model, in the order of the rows."""

WIDE = 100
"""Columns of a terminal that shows every metric on one line."""
MISSING = "–"
"""Stands for a missing value or interval; the caption says why."""


def evaluation_tables(
    summaries: Mapping[str, Summary], differences: Mapping[tuple[str, str], Metric] | None = None
) -> list[Table]:
    """Return all tables: references, base, rewards, accuracy, lengths, variety, categories, and differences.

    A table is left out only if there is nothing to show in it: no base, no verifiable scorer, no categories, no
    differences. A table whose values are all missing stays and says why.

    Args:
        summaries: by the name of the model, in the order of the rows.
        differences: the result of `grao.evaluation.differences`.
    """
    models = [(name, summary.all) for name, summary in summaries.items()]
    based = [(name, own) for name, own in models if own.nag.reason != NO_BASE]
    categories = [
        (category, [(name, s.by_category[category]) for name, s in summaries.items() if category in s.by_category])
        for category in sorted({category for summary in summaries.values() for category in summary.by_category})
    ]
    scorers = list(dict.fromkeys(scorer for _, own in models for scorer in own.accuracy))
    tables = [
        _reference_table(models),
        based and _base_table(based),
        _reward_table(models),
        scorers and _accuracy_table(models),
        _length_table(models),
        _variety_table(models),
        categories and _category_table(categories, based=bool(based)),
        categories and scorers and _category_accuracy_table(categories, scorers),
        differences and _difference_table(differences),
    ]
    return [table for table in tables if isinstance(table, Table)]


class _Cells:
    """Format metrics as cells and collect the reasons of missing values for the table's caption."""

    def __init__(self) -> None:
        self._reasons: dict[str, None] = {}

    def percent(self, metric: Metric, *, signed: bool = False, decimals: int = 1) -> Text:
        return self._explained(metric, percent(metric, signed=signed, decimals=decimals))

    def number(self, metric: Metric, *, signed: bool = False) -> Text:
        return self._explained(metric, number(metric, signed=signed))

    def captioned(self, table: Table, note: str = "") -> Table:
        lines = [note] * bool(note) + [f"{MISSING}: {'; '.join(self._reasons)}."] * bool(self._reasons)
        table.caption = Text("\n".join(lines) + "\n") if lines else None
        return table

    def _explained(self, metric: Metric, cell: Text) -> Text:
        if metric.reason:
            self._reasons[metric.reason] = None
        return cell


def _reference_table(models: Named) -> Table:
    columns = ["", "prompts", "answers", "RAS %", "ties half %", "win/tie/loss", "unscored"]
    table, cells = plain_table("Against the references [95 % intervals]", columns), _Cells()
    for name, own in models:
        counts = f"{own.counts.wins}/{own.counts.ties}/{own.counts.losses}"
        shares = cells.percent(own.ras), cells.percent(own.ras_ties_half)
        table.add_row(Text(name), str(own.prompts), str(own.answers), *shares, counts, str(own.counts.unscored))
    return cells.captioned(table)


def _base_table(models: Named) -> Table:
    columns = ["", "NAG %", "NAG, wins %", "reward gained", "unscored"]
    table, cells = plain_table("Against the base [95 % intervals]", columns), _Cells()
    for name, own in models:
        gains = cells.percent(own.nag, signed=True), cells.percent(own.nag_win), cells.number(own.gain, signed=True)
        table.add_row(Text(name), *gains, str(own.gain.unscored))
    return cells.captioned(table, "NAG: shares better minus worse than the base; wins: better. Unscored: of both.")


def _reward_table(models: Named) -> Table:
    columns = ["", "", "mean", "variance", "25 / 50 / 75 %", "unscored"]
    table, cells = plain_table("Rewards [95 % intervals of the mean]", columns, text_columns=2), _Cells()
    groups = [
        (name, [("reward", own.reward), *(own.scores.items() if len(own.scores) > 1 else ())]) for name, own in models
    ]
    for label, (scorer, spread), last in _sections(groups):
        values = cells.number(spread.mean), _digits(spread.variance), _quartiles(spread), str(spread.mean.unscored)
        table.add_row(label, Text(scorer), *values, end_section=last)
    return cells.captioned(table)


def _accuracy_table(models: Named) -> Table:
    columns = ["", "", "k", "pass@k %", "maj@k %", "prompts", "unscored"]
    table, cells = plain_table("Accuracy [95 % intervals]", columns, text_columns=2), _Cells()
    groups = [
        (name, [(scorer, k, of) for scorer, of in own.accuracy.items() for k in of.pass_at]) for name, own in models
    ]
    for label, (scorer, k, of), last in _sections(groups):
        passed = of.pass_at[k]
        shares = cells.percent(passed), cells.percent(of.majority_at[k])
        table.add_row(label, Text(scorer), str(k), *shares, str(passed.n), str(passed.unscored), end_section=last)
    return cells.captioned(table)


def _length_table(models: Named) -> Table:
    columns = ["", "tokens", "25 / 50 / 75 %", "at the limit %", "words"]
    table, cells = plain_table("Length [95 % intervals]", columns), _Cells()
    for name, own in models:
        lengths = own.lengths
        tokens = cells.number(lengths.tokens.mean), _quartiles(lengths.tokens)
        table.add_row(Text(name), *tokens, cells.percent(lengths.limited), cells.number(lengths.words))
    return cells.captioned(table, "Words: of the answers, per word of their references.")


def _variety_table(models: Named) -> Table:
    columns = ["", "KL, nats", *(f"distinct-{n} %" for n in DISTINCT), "refusals %", "without KL"]
    table, cells = plain_table("Distance, variety and refusals [95 % intervals]", columns), _Cells()
    for name, own in models:
        values = cells.number(own.kl), *(cells.percent(share) for share in (*own.distinct.values(), own.refusals))
        table.add_row(Text(name), *values, str(own.kl.unscored))
    return cells.captioned(table, "KL: per answer, to the base. distinct-n falls with the amount of text.")


def _category_table(categories: Sequence[tuple[str, Named]], *, based: bool) -> Table:
    columns = ["", "", "n", "reward", "RAS %", *["NAG %"] * based, "unscored"]
    table, cells = plain_table("By category [95 % intervals]", columns, text_columns=2), _Cells()
    for label, (name, own), last in _sections(categories, always=True):
        values = [cells.number(own.reward.mean), cells.percent(own.ras, decimals=0)]
        values += [cells.percent(own.nag, signed=True, decimals=0)] if based else []
        table.add_row(label, Text(name), str(own.prompts), *values, str(own.unscored), end_section=last)
    return cells.captioned(table, "Unscored: answers without a reward.")


def _category_accuracy_table(categories: Sequence[tuple[str, Named]], scorers: Sequence[str]) -> Table:
    columns = ["", "", "n", *(f"{scorer} %" for scorer in scorers), "unscored"]
    title = "Accuracy by category, at the smallest k [95 % intervals]"
    table, cells = plain_table(title, columns, text_columns=2), _Cells()
    for label, (name, own), last in _sections(categories, always=True):
        passed = [_first_pass(own, scorer) for scorer in scorers]
        unscored = " / ".join(str(metric.unscored) for metric in passed)
        shares = [cells.percent(metric, decimals=0) for metric in passed]
        table.add_row(label, Text(name), str(own.prompts), *shares, unscored, end_section=last)
    return cells.captioned(table)


def _difference_table(differences: Mapping[tuple[str, str], Metric]) -> Table:
    columns = ["", "minus", "difference", "excludes 0", "prompts", "unscored"]
    table, cells = plain_table("Difference in reward [95 % intervals]", columns, text_columns=2), _Cells()
    for (name, other), found in differences.items():
        difference = cells.number(found, signed=True), excludes_zero(found.low, found.high)
        table.add_row(Text(name), Text(other), *difference, str(found.n), str(found.unscored))
    return cells.captioned(table, "Paired by prompt; 95 % each, not adjusted for their number.")


def _sections(groups: Iterable[tuple[str, Sequence[T]]], *, always: bool = False) -> Iterator[tuple[Text, T, bool]]:
    """Yield (label, row, whether a section ends) for each row of each group; only its first row has the label.

    A group of one row ends no section unless `always`.
    """
    for name, rows in groups:
        for index, row in enumerate(rows):
            last = index == len(rows) - 1 and (always or len(rows) > 1)
            yield Text("" if index else name), row, last


def print_tables(console: Console, tables: Iterable[Table]) -> None:
    """Print the tables; a narrow terminal breaks metrics into lines instead of cutting them."""
    for table in tables:
        if console.width < WIDE:
            for column in table.columns:
                column.no_wrap = False
        console.print(table)


def plain_table(title: str, columns: Sequence[str], *, text_columns: int = 1) -> Table:
    """Return an empty table with names on the left and numbers on the right; only names may be broken."""
    table = Table(title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD)
    for index, name in enumerate(columns):
        text = index < text_columns
        justify: Literal["left", "right"] = "left" if text else "right"
        table.add_column(name, justify=justify, no_wrap=not text, overflow="fold", min_width=8 if text else None)
    return table


def percent(metric: Metric, *, signed: bool = False, decimals: int = 1) -> Text:
    """Format a share in per cent, with its interval."""
    return _interval(metric, 100, f"{'+' if signed else ''}.{decimals}f")


def number(metric: Metric, *, signed: bool = False) -> Text:
    """Format a number with its interval, to three digits of the largest."""
    return _interval(metric, 1, f"{'+' if signed else ''}.{_decimals(metric.value, metric.low, metric.high)}f")


def excludes_zero(low: float | None, high: float | None) -> str:
    """Say whether an interval excludes 0, and on which side it lies."""
    if low is None or high is None:
        return MISSING
    if low > 0:
        return "yes, above"
    return "yes, below" if high < 0 else "no"


def _interval(metric: Metric, scale: float, form: str) -> Text:
    if metric.value is None:
        return Text(MISSING)
    low, high = (MISSING if end is None else f"{scale * end:{form}}" for end in (metric.low, metric.high))
    return Text(f"{scale * metric.value:{form}} [{low}, {high}]")


def _decimals(*values: float | None) -> int:
    """Return decimals for three digits of the largest: 0 to 3, or up to 6 for numbers that 3 would show as 0."""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    if not largest:
        return 2
    return min(max(2 - math.floor(math.log10(largest)), 0), 3 if largest >= 0.01 else 6)


def _digits(value: float | None) -> str:
    return MISSING if value is None else f"{value:.{_decimals(value)}f}"


def _quartiles(spread: Distribution) -> str:
    if spread.quartiles is None:
        return MISSING
    decimals = _decimals(*spread.quartiles)
    return " / ".join(f"{value:.{decimals}f}" for value in spread.quartiles)


def _first_pass(own: ModelMetrics, scorer: str) -> Metric:
    found = own.accuracy[scorer].pass_at if scorer in own.accuracy else {}
    return found[min(found)] if found else Metric.missing(f"no accuracy was computed for {scorer}")
