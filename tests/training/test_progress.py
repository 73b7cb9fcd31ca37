"""What a run says where nobody watches a terminal."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from grao.training import callbacks
from grao.training.callbacks import ProgressBar


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def state() -> Any:
    return SimpleNamespace(is_world_process_zero=True, global_step=3, max_steps=8)


@pytest.fixture
def bar(said: io.StringIO, state: Any) -> ProgressBar:
    """A bar that writes to a file, of a run that has begun."""
    bar = ProgressBar(Console(file=said, width=40))
    bar.on_train_begin(None, state, None)
    return bar


def test_a_log_says_every_half_minute_how_far_a_long_work_is(
    bar: ProgressBar, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a clock by hand: reports at 0, 10, 30, 45, 61 and 70 s; 30 s of silence have passed at 30 and at 61."""
    clock = iter([0.0, 10.0, 30.0, 45.0, 61.0, 70.0])
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: next(clock))
    for done in (4, 8, 12, 16, 20, 24):
        bar.working("rows under the frozen policy", done, 24)
    assert said.getvalue().splitlines() == [
        "rows under the frozen policy: 12/24",
        "rows under the frozen policy: 20/24",
    ]


def test_short_works_add_up_to_no_line(bar: ProgressBar, said: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a clock by hand: three works of 20 s; and other processes than the first never speak."""
    clock = iter(float(seconds) for seconds in range(0, 1000, 20))
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: next(clock))
    for _ in range(3):
        bar.working("sampled", 4, 8)
        bar.working("sampled", 8, 8)
    assert said.getvalue() == ""
    other = ProgressBar(Console(file=said))
    other.on_train_begin(None, SimpleNamespace(is_world_process_zero=False), None)
    for done in range(8):
        other.working("sampled", done, 8)
    assert said.getvalue() == ""


@pytest.mark.parametrize(
    ("logs", "line"),
    [
        (
            {"loss": 0.6, "rewards/margins": 0.25, "rewards/accuracies": 0.75, "logps/chosen": -9.0},
            "step 3/8  accuracies 0.75  margins 0.25  loss 0.6",
        ),
        (
            {"loss": 0.1, "reward": 0.5, "kl": 0.02, "value/explained_variance": 0.3, "step_time": 2.0},
            "step 3/8  reward 0.5  loss 0.1  kl 0.02  explained_variance 0.3  step_time 2",
        ),
        (
            {"eval_reward": 0.5, "eval_win_rate": 0.25, "eval_n": 4.0},
            "step 3/8  eval_reward 0.5  eval_win_rate 0.25  eval_n 4",
        ),
    ],
)
def test_a_step_is_one_line_with_the_metrics_of_its_method(
    logs: dict[str, float], line: str, bar: ProgressBar, state: Any, said: io.StringIO
) -> None:
    """Oracle: the lines by hand, unbroken on a console of 40 columns."""
    bar.on_log(None, state, None, logs)
    assert said.getvalue() == f"{line}\n"
