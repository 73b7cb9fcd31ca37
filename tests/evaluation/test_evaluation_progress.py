"""Progress of an evaluation: lines and the bar."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from grao.evaluation import evaluation_progress as module
from grao.evaluation.evaluation_progress import EvaluationProgress


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_lines_where_there_is_no_terminal(clock: Clock) -> None:
    """Oracle: by hand: 40 of 120 prompts were stored before; 20 more took 60 s, so the last 60 take 3 minutes."""
    output = io.StringIO()
    with EvaluationProgress(Console(file=output, width=200), 120, 40) as progress:
        progress.model("base")
        progress.doing("answers")
        progress.sampled(3, 10)
        clock.now = 31.0
        progress.sampled(5, 10)
        progress.stored(20)
        clock.now = 60.0
        progress.doing("scoring")
        clock.now = 62.0
        progress.doing("scoring")
        progress.finished()
    assert output.getvalue().splitlines() == [
        "base: 40 of 120 prompts of all models (answers 5/10)",
        "base: 60 of 120 prompts of all models, about 3 minutes left (scoring)",
        "base: every answer is scored and stored",
    ]


def test_a_bar_in_a_terminal() -> None:
    """Oracle: the model, the count and what is being done are on the screen."""
    output = io.StringIO()
    console = Console(file=output, width=120, force_terminal=True)
    with EvaluationProgress(console, 12, 4) as progress:
        progress.model("base")
        progress.stored(4)
        progress.doing("scoring")
    shown = output.getvalue()
    for part in ("base", "8/12 prompts", "scoring"):
        assert part in shown
