"""The tables of an evaluation, for a terminal of 100 columns or more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from grao.evaluation.evaluation_metric import Metric
from grao.evaluation.model_comparison import NO_BASE
from grao.evaluation.model_summary import DISTINCT, Distribution, ModelMetrics, Summary

Summaries = Mapping[str, Summary]
Differences = Mapping[tuple[str, str], Metric]

WIDE = 100
"""Columns of a terminal in which no figure has to be broken."""
MISSING = "–"
"""Stands for a value or an interval that could not be had; the caption says why."""


def evaluation_tables(summaries: Summaries, differences: Differences | None = None) -> list[Table]:
    """All tables: wins, gains, rewards, accuracy, lengths, variety, categories, and differences between models.

    A table is left out only where nothing was asked: no base, no verifiable scorer, no categories, no differences.

    Args:
        summaries: by the name of the model, in the order of the rows.
        differences: what `grao.evaluation.differences` found.
    """
    tables = [win_table(summaries)]
    if any(summary.all.nag.reason != NO_BASE for summary in summaries.values()):
        tables.append(gain_table(summaries))
    tables.append(reward_table(summaries))
    if any(summary.all.accuracy for summary in summaries.values()):
        tables.append(accuracy_table(summaries))
    tables += [length_table(summaries), variety_table(summaries)]
    if any(summary.by_category for summary in summaries.values()):
        tables.append(category_table(summaries))
        if any(summary.all.accuracy for summary in summaries.values()):
            tables.append(category_accuracy_table(summaries))
    if differences:
        tables.append(difference_table(differences))
    return tables


def win_table(summaries: Summaries) -> Table:
    """Rows are models; columns how often their answers are rewarded more than the references."""
    rows = [
        (name, of, [of.ras, of.ras_ties_half], f"{of.counts.wins}/{of.counts.ties}/{of.counts.losses}")
        for name, of in _whole(summaries)
    ]
    table = plain_table(
        "Against the references [95 % intervals]",
        ["", "prompts", "answers", "RAS %", "ties half %", "win/tie/loss", "unscored"],
    )
    for name, of, figures, counts in rows:
        cells = [percent(figure) for figure in figures]
        table.add_row(Text(name), str(of.prompts), str(of.answers), *cells, counts, str(of.counts.unscored))
    return _captioned(table, [f for _, _, figures, _ in rows for f in figures])


def gain_table(summaries: Summaries) -> Table:
    """Rows are models; columns how their answers compare with the base model's to the same prompts."""
    table = plain_table("Against the base [95 % intervals]", ["", "NAG %", "NAG, wins %", "reward gained", "unscored"])
    models = [(name, of) for name, of in _whole(summaries) if of.nag.reason != NO_BASE]
    for name, of in models:
        cells = percent(of.nag, signed=True), percent(of.nag_win), number(of.gain, signed=True)
        table.add_row(Text(name), *cells, str(of.gain.unscored))
    note = "NAG: better less worse than the base; wins: better. Unscored: answers of either model."
    return _captioned(table, [f for _, of in models for f in (of.nag, of.nag_win, of.gain)], note)


def reward_table(summaries: Summaries) -> Table:
    """Rows are models, and under each its scorers; columns the mean and the spread over answers."""
    table = plain_table(
        "Rewards [95 % intervals of the mean]",
        ["", "", "mean", "variance", "25 / 50 / 75 %", "unscored"],
        text_columns=2,
    )
    shown = []
    for name, of in _whole(summaries):
        lines = {"reward": of.reward} | (dict(of.scores) if len(of.scores) > 1 else {})
        for place, (scorer, spread) in enumerate(lines.items()):
            cells = number(spread.mean), _digits(spread.variance), _quartiles(spread), str(spread.mean.unscored)
            last = place == len(lines) - 1 and len(lines) > 1
            table.add_row(Text("" if place else name), Text(scorer), *cells, end_section=last)
            shown.append(spread.mean)
    return _captioned(table, shown)


def accuracy_table(summaries: Summaries) -> Table:
    """Rows are models by scorer and number of tries; columns pass@k and maj@k."""
    table = plain_table(
        "Accuracy [95 % intervals]", ["", "", "k", "pass@k %", "maj@k %", "prompts", "unscored"], text_columns=2
    )
    shown = []
    for name, of in _whole(summaries):
        lines = [(scorer, k, found) for scorer, found in of.accuracy.items() for k in found.pass_at]
        for place, (scorer, k, found) in enumerate(lines):
            passed, majority = found.pass_at[k], found.majority_at[k]
            cells = str(k), percent(passed), percent(majority), str(passed.n), str(passed.unscored)
            last = place == len(lines) - 1 and len(lines) > 1
            table.add_row(Text("" if place else name), Text(scorer), *cells, end_section=last)
            shown += [passed, majority]
    return _captioned(table, shown)


def length_table(summaries: Summaries) -> Table:
    """Rows are models; columns the length of their answers."""
    table = plain_table("Length [95 % intervals]", ["", "tokens", "25 / 50 / 75 %", "at the limit %", "words"])
    for name, of in _whole(summaries):
        own = of.lengths
        cells = number(own.tokens.mean), _quartiles(own.tokens), percent(own.limited)
        table.add_row(Text(name), *cells, number(own.words))
    lengths = [of.lengths for _, of in _whole(summaries)]
    shown = [f for own in lengths for f in (own.tokens.mean, own.limited, own.words)]
    return _captioned(table, shown, "Words: of the answers for each word of their references.")


def variety_table(summaries: Summaries) -> Table:
    """Rows are models; columns the distance to the base, distinct n-grams and refusals."""
    table = plain_table(
        "Distance, variety and refusals [95 % intervals]",
        ["", "KL, nats", *(f"distinct-{n} %" for n in DISTINCT), "refusals %", "without KL"],
    )
    shown = []
    for name, of in _whole(summaries):
        shares = [*(of.distinct[n] for n in DISTINCT), of.refusals]
        table.add_row(Text(name), number(of.kl), *(percent(share) for share in shares), str(of.kl.unscored))
        shown += [of.kl, *shares]
    note = "KL: of an answer, to the base; prompts without. distinct-n falls with the amount of text."
    return _captioned(table, shown, note)


def category_table(summaries: Summaries) -> Table:
    """Rows are models by category; columns the main figures."""
    based = any(of.nag.reason != NO_BASE for _, of in _whole(summaries))
    columns = ["", "", "n", "reward", "RAS %", *["NAG %"] * based, "unscored"]
    table = plain_table("By category [95 % intervals]", columns, text_columns=2)
    shown = []
    for category, name, of, first, last in _by_category(summaries):
        cells = [percent(of.ras, decimals=0), *[percent(of.nag, signed=True, decimals=0)] * based]
        label, mean = Text(category if first else ""), number(of.reward.mean)
        table.add_row(label, Text(name), str(of.prompts), mean, *cells, str(of.unscored), end_section=last)
        shown += [of.reward.mean, of.ras, *[of.nag] * based]
    return _captioned(table, shown, "Unscored: answers without a reward.")


def category_accuracy_table(summaries: Summaries) -> Table:
    """Rows are models by category; columns pass@k of each verifiable scorer at the smallest k."""
    scorers = list(dict.fromkeys(name for _, of in _whole(summaries) for name in of.accuracy))
    columns = ["", "", "n", *(f"{scorer} %" for scorer in scorers), "unscored"]
    table = plain_table("Accuracy by category, at the smallest k [95 % intervals]", columns, text_columns=2)
    shown = []
    for category, name, of, first, last in _by_category(summaries):
        figures = [_first_pass(of, scorer) for scorer in scorers]
        label = Text(category if first else "")
        cells = [percent(figure, decimals=0) for figure in figures]
        unscored = " / ".join(str(figure.unscored) for figure in figures)
        table.add_row(label, Text(name), str(of.prompts), *cells, unscored, end_section=last)
        shown += figures
    return _captioned(table, shown)


def _by_category(summaries: Summaries) -> Iterator[tuple[str, str, ModelMetrics, bool, bool]]:
    """Category, model, its figures, and whether it is the first and the last model of that category."""
    for category in sorted({name for summary in summaries.values() for name in summary.by_category}):
        models = [(name, own.by_category[category]) for name, own in summaries.items() if category in own.by_category]
        for place, (name, of) in enumerate(models):
            yield category, name, of, place == 0, place == len(models) - 1


def difference_table(differences: Differences) -> Table:
    """Rows are pairs of models; the columns how much more reward the first one earns on the same prompts."""
    table = plain_table(
        "Reward of one model less that of another [95 % intervals]",
        ["", "less", "difference", "excludes 0", "prompts", "unscored"],
        text_columns=2,
    )
    for (name, other), found in differences.items():
        cells = number(found, signed=True), excludes_zero(found.low, found.high), str(found.n), str(found.unscored)
        table.add_row(Text(name), Text(other), *cells)
    note = "Paired by prompt; 95 % each, not adjusted for their number."
    return _captioned(table, differences.values(), note)


def print_tables(console: Console, tables: Iterable[Table]) -> None:
    """Print them one after another; on a narrow terminal figures are broken into lines, where they would be cut."""
    for table in tables:
        if console.width < WIDE:
            for column in table.columns:
                column.no_wrap = False
        console.print(table)


def plain_table(title: str, columns: Sequence[str], *, text_columns: int = 1) -> Table:
    """A table with a title, names to the left and figures to the right; only names may be broken."""
    table = Table(title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD)
    for place, name in enumerate(columns):
        text = place < text_columns
        justify: Literal["left", "right"] = "left" if text else "right"
        table.add_column(name, justify=justify, no_wrap=not text, overflow="fold", min_width=8 if text else None)
    return table


def percent(figure: Metric, *, signed: bool = False, decimals: int = 1) -> Text:
    """A share in per cent, with its interval."""
    return _interval(figure, 100, f"{'+' if signed else ''}.{decimals}f")


def number(figure: Metric, *, signed: bool = False) -> Text:
    """A number with its interval, to three digits of the largest."""
    return _interval(figure, 1, f"{'+' if signed else ''}.{_decimals(figure.value, figure.low, figure.high)}f")


def excludes_zero(low: float | None, high: float | None) -> str:
    """Whether an interval holds 0, in words."""
    if low is None or high is None:
        return MISSING
    if low > 0:
        return "yes, above"
    return "yes, below" if high < 0 else "no"


def _interval(figure: Metric, scale: float, form: str) -> Text:
    if figure.value is None:
        return Text(MISSING)
    ends = [MISSING if end is None else f"{scale * end:{form}}" for end in (figure.low, figure.high)]
    return Text(f"{scale * figure.value:{form}} [{ends[0]}, {ends[1]}]")


def _decimals(*values: float | None) -> int:
    """Three digits of the largest, within 0 to 3 decimals; more only where these would show none."""
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


def _first_pass(of: ModelMetrics, scorer: str) -> Metric:
    found = of.accuracy[scorer].pass_at if scorer in of.accuracy else {}
    return found[min(found)] if found else Metric.missing(f"{scorer} was not asked")


def _whole(summaries: Summaries) -> list[tuple[str, ModelMetrics]]:
    return [(name, summary.all) for name, summary in summaries.items()]


def _captioned(table: Table, shown: Iterable[Metric], note: str = "") -> Table:
    """Under the table what stands in it, and why something does not."""
    reasons = dict.fromkeys(figure.reason for figure in shown if figure.reason)
    lines = [note] * bool(note) + [f"{MISSING}: {'; '.join(reasons)}."] * bool(reasons)
    table.caption = Text("\n".join(lines) + "\n") if lines else None
    return table
