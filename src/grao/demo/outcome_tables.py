"""The tables of the demo, for a terminal of 120 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from grao.data import EncodedExample
from grao.demo.outcome import TEMPERATURE, Outcome
from grao.evaluation import Estimate
from grao.evaluation.metric_tables import excludes_zero, plain_table


def comparison_tables(results: Sequence[Outcome], against: Mapping[str, Estimate]) -> tuple[Table, Table, Table]:
    """Return three tables: scores; wins, gains and costs; and how the last model differs from each other one."""
    return score_table(results), behaviour_table(results), difference_table(results[-1].name, against)


def score_table(results: Sequence[Outcome]) -> Table:
    """Return one row per model with its score on the test prompts, in total and by category."""
    first = results[0]
    headers = [f"{category} ({estimate.n})" for category, estimate in first.by_category.items()]
    table = plain_table(
        f"Score: rubric points on {first.score.n} held-out prompts, temperature {TEMPERATURE} [95 % intervals]",
        ["", f"all ({first.score.n})", *headers],
    )
    for result in results:
        table.add_row(result.name, *(_points(e) for e in (result.score, *result.by_category.values())))
    return table


def behaviour_table(results: Sequence[Outcome]) -> Table:
    """Return one row per model: wins over the reference and the base, distance, length and time."""
    headers = ["", "RAS", "win/tie/loss", "NAG", "NAG, wins", "KL", "length", "CPU s"]
    table = plain_table("Wins, distance and cost", headers)
    for result in results:
        table.add_row(
            result.name,
            _percent(result.ras),
            f"{result.wins}/{result.ties}/{result.losses}",
            _percent(result.nag, signed=True),
            _percent(result.nag_win),
            f"{result.kl.value:.1f}" if result.kl else "",
            f"{result.mean_length.value:.1f}",
            f"{result.seconds:.0f}" if result.seconds else "",
        )
    table.caption = (
        "RAS: answers that score above the reference. NAG: verdicts above the base's minus those below; wins: above.\n"
        "KL: to the base, in nats per answer. Length: tokens per answer. CPU s: of training.\n"
    )
    return table


def difference_table(name: str, against: Mapping[str, Estimate]) -> Table:
    """Return how much higher one model scores than each other one on the same prompts."""
    table = plain_table(f"Score of {name} minus the score of …", ["", "difference", "excludes 0"])
    for other, difference in against.items():
        table.add_row(other, _points(difference, signed=True), excludes_zero(difference.low, difference.high))
    table.caption = "Paired bootstrap over prompts; 95 % each,\nnot adjusted for their number.\n"
    return table


def answers_table(rows: Sequence[EncodedExample], results: Sequence[Outcome]) -> Table:
    """Return the first prompt of each category with its reference and every model's answer."""
    table = Table(title="Before and after", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    table.add_column("answer")
    table.add_column("score", justify="right")
    first: dict[str, int] = {}
    for place, row in enumerate(rows):
        first.setdefault(str(row.example.columns["category"]), place)
    for place in first.values():
        example = rows[place].example
        table.add_row("", Text(str(example.prompt), style="bold"), "")
        table.add_row("reference", Text(example.reference or ""), "")
        for result in results:
            answer, score = Text(result.answers[place]), f"{result.scores[place]:.0f}"
            table.add_row(result.name, answer, score, end_section=result is results[-1])
    return table


def _points(estimate: Estimate, *, signed: bool = False) -> Text:
    form = "+.2f" if signed else ".2f"
    return Text(f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]")


def _percent(estimate: Estimate | None, *, signed: bool = False) -> Text:
    if estimate is None:
        return Text("")
    value, low, high = (f"{100 * x:{'+' if signed else ''}.0f}" for x in (estimate.value, estimate.low, estimate.high))
    return Text(f"{value}% [{low}, {high}]")
