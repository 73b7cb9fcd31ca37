"""What a terminal shows of an evaluation."""

from __future__ import annotations

import io
import random

import pytest
from rich.console import Console
from rich.table import Table

from grao.evaluation import Item, Metric, differences, evaluation_tables, summarise
from grao.evaluation.metric_tables import excludes_zero, number, percent, print_tables


def answers(seed: int, *, samples: int = 2) -> list[Item]:
    g = random.Random(seed)
    return [
        Item(
            row=row,
            sample=sample,
            prompt="",
            answer=f"word{g.randrange(20)} is 7",
            reference="it is 7",
            category=f"a kind of prompts, number {row % 2}",
            tokens=g.randrange(100, 999),
            finish=g.choice(["stop", "length"]),
            reward=-g.random() * 10,
            reference_reward=-5.0,
            scores={"math": float(g.random() < 0.5), "style": g.random()},
            kl=100 * g.random(),
        )
        for row in range(40)
        for sample in range(samples)
    ]


def shown(tables: list[Table], width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    for table in tables:
        console.print(table)
    return console.file.getvalue()


NAMES = ["base", *(f"models/run-{i}-with-a-long-name/checkpoint-{i}00" for i in range(7))]


@pytest.mark.parametrize("width", [100, 120])
@pytest.mark.parametrize("models", [1, 2, 8])
def test_no_figure_is_cut(width: int, models: int) -> None:
    """Oracle: every cell of a figure, as it is on a terminal of 500 columns, stands whole in the narrow one."""
    items = {name: answers(seed) for seed, name in enumerate(NAMES[:models])}
    base = items["base"]
    summaries = {
        name: summarise(own, None if own is base else base, verifiable=["math"], k=(1, 2), resamples=50)
        for name, own in items.items()
    }
    tables = evaluation_tables(summaries, differences(items, resamples=50))
    assert len(tables) == (7 if models == 1 else 9)
    narrow = shown(tables, width)
    assert max(map(len, narrow.splitlines())) <= width
    for table in tables:
        text = shown([table], width)
        for column in table.columns:
            if column.justify == "right":
                assert all(str(cell) in text for cell in column.cells)
        assert "…" not in text


@pytest.mark.parametrize("width", [72, 80])
def test_a_narrow_terminal_breaks_figures_and_cuts_none(width: int) -> None:
    """Oracle: every word of every figure's cell stands whole; printed as they are, words are missing."""
    items = {name: answers(seed) for seed, name in enumerate(NAMES[:3])}
    summaries = {name: summarise(own, None, verifiable=["math"], resamples=50) for name, own in items.items()}
    tables = evaluation_tables(summaries, differences(items, resamples=50))
    words = [
        word
        for table in tables
        for column in table.columns
        if column.justify == "right"
        for cell in column.cells
        for word in str(cell).split()
    ]
    cut = shown(tables, width)
    assert not all(word in cut for word in words)
    console = Console(width=width, file=io.StringIO(), color_system=None)
    print_tables(console, tables)
    text = console.file.getvalue()
    assert [word for word in words if word not in text] == []


def test_names_are_not_markup() -> None:
    """Oracle: a model and a scorer in brackets are shown as they are."""
    items = [Item(0, 0, "", "a", "a", "[red]", 1, "stop", reward=1.0, scores={"[b]": 1.0, "c": 1.0})]
    text = shown(evaluation_tables({"[bold]": summarise(items, verifiable=["[b]"])}), 120)
    assert all(name in text for name in ("[bold]", "[b]", "[red]"))


def test_what_is_missing_says_why_under_the_table() -> None:
    """Oracle: the reasons of an evaluation in which nothing is scored; no table vanishes for it."""
    items = [Item(0, 0, "", "a", "a", None, 1, "stop", scores={"math": None})]
    tables = evaluation_tables({"model": summarise(items, items, verifiable=["math"])})
    text = shown(tables, 120)
    assert [str(table.title).split(" [")[0] for table in tables] == [
        "Against the references",
        "Against the base",
        "Rewards",
        "Accuracy",
        "Length",
        "Distance, variety and refusals",
    ]
    for reason in (
        "no answer and its reference are both scored",
        "no prompt is scored for both models",
        "no answer has a reward",
        "no prompt has an answer scored by math",
        "the KL was not measured",
    ):
        assert reason in " ".join(text.split())


def test_cells() -> None:
    """Oracle: written by hand."""
    figure = Metric(0.62, 0.515, 0.7149, 100)
    assert str(percent(figure)) == "62.0 [51.5, 71.5]"
    assert str(percent(figure, signed=True, decimals=0)) == "+62 [+52, +71]"
    assert str(number(figure)) == "0.620 [0.515, 0.715]"
    assert str(number(Metric(12.34, -150.2, 170.0, 9))) == "12 [-150, 170]"
    assert str(number(Metric(0.00123, 0.0002, 0.002, 9))) == "0.00123 [0.00020, 0.00200]"
    assert str(number(Metric.without_interval(2.0, 1, "alone"))) == "2.00 [–, –]"
    assert str(number(Metric.missing("nothing"))) == "–"
    assert [excludes_zero(*ends) for ends in ((0.1, 1), (-1, 0.0), (-2, -1), (None, None))] == [
        "yes, above",
        "no",
        "yes, below",
        "–",
    ]
