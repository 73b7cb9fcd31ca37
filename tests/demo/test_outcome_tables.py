"""The demo's tables: what they say, and that a terminal of 120 columns holds them."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console, RenderableType

from grao.data import EncodedExample, Example
from grao.demo.outcome import Outcome
from grao.demo.outcome_tables import answers_table, behaviour_table, difference_table, score_table
from grao.evaluation import Estimate

ROWS = [
    EncodedExample(Example(0, "a [b] ?", "fine .", None, {"category": "entity"}), (1,), (2,), None),
    EncodedExample(Example(1, "c ?", "no .", None, {"category": "harmful"}), (1,), (2,), None),
    EncodedExample(Example(2, "d ?", "yes .", None, {"category": "entity"}), (1,), (2,), None),
]


def outcome(name: str, base: bool = False) -> Outcome:
    return Outcome(
        name=name,
        score=Estimate(-1.234, -2.5, 0.125, 300),
        by_category={category: Estimate(-5.0, -5.0, -4.97, 150) for category in ("benign", "entity", "harmful")},
        ras=Estimate(0.436, 0.381, 0.493, 300),
        ras_ties_half=Estimate(0.5, 0.4, 0.6, 300),
        nag=None if base else Estimate(-0.49, -0.55, -0.431, 300),
        nag_win=None if base else Estimate(0.2, 0.15, 0.26, 300),
        wins=131,
        ties=36,
        losses=133,
        kl=None if base else Estimate(14.26, 12.0, 16.0, 300),
        mean_length=Estimate(17.44, 17.0, 18.0, 300),
        seconds=0.0 if base else 21.7,
        answers=("sure [dim] .", "no .", "what ?"),
        scores=(3.0, 4.0, -2.0),
        verdicts=(1.0, 1.0, -1.0),
    )


RESULTS = [outcome("base", base=True), outcome("GRAO (recommended)")]


def shown(table: RenderableType, width: int = 120) -> list[list[str]]:
    """The words of each printed line that is not empty."""
    console = Console(width=width, record=True, file=StringIO())
    console.print(table)
    return [line.split() for line in console.export_text().splitlines() if line.strip()]


def test_scores_with_their_intervals() -> None:
    """Oracle: the outcome's numbers, rounded by hand."""
    lines = [" ".join(line) for line in shown(score_table(RESULTS))]
    assert lines[1] == "all (300) benign (150) entity (150) harmful (150)"
    interval = "-5.00 [-5.00, -4.97]"
    assert lines[-1] == f"GRAO (recommended) -1.23 [-2.50, 0.12] {interval} {interval} {interval}"


def test_behaviour_and_what_the_base_has_none_of() -> None:
    """Oracle: the outcome's numbers, rounded by hand; empty cells for the base."""
    lines = [" ".join(line) for line in shown(behaviour_table(RESULTS))]
    assert lines[3] == "base 44% [38, 49] 131/36/133 17.4"
    assert lines[4] == "GRAO (recommended) 44% [38, 49] 131/36/133 -49% [-55, -43] 20% [15, 26] 14.3 17.4 22"


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 2.0, "yes, above"), (-2.0, -0.01, "yes, below"), (-0.01, 2.0, "no"), (0.0, 2.0, "no"), (-2.0, 0.0, "no")],
)
def test_whether_a_difference_excludes_zero(low: float, high: float, said: str) -> None:
    """Oracle: whether 0 lies in [low, high], its ends included."""
    lines = shown(difference_table("x", {"SFT": Estimate((low + high) / 2, low, high, 300)}))
    row = next(line for line in lines if line[0] == "SFT")
    assert row[1:] == [f"{(low + high) / 2:+.2f}", f"[{low:+.2f},", f"{high:+.2f}]", *said.split()]


@pytest.mark.parametrize("table", [score_table(RESULTS), behaviour_table(RESULTS)])
def test_nothing_is_cut_at_120_columns(table: RenderableType) -> None:
    """Oracle: the same words at 400 columns; rich ends what it cuts with an ellipsis."""
    words = [word for line in shown(table) for word in line]
    assert words == [word for line in shown(table, width=400) for word in line]
    assert not any("…" in word for word in words)


def test_answers_show_the_first_prompt_of_each_category_as_it_is_written() -> None:
    """Oracle: the texts, brackets and all (rich would read them as markup)."""
    lines = [" ".join(line) for line in shown(answers_table(ROWS, RESULTS))]
    assert lines[3:] == [
        "a [b] ?",
        "reference fine .",
        "base sure [dim] . 3",
        "GRAO (recommended) sure [dim] . 3",
        "c ?",
        "reference no .",
        "base no . 4",
        "GRAO (recommended) no . 4",
    ]
