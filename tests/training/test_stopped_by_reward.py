"""A run that its reward ends in the middle is saved at its last step, and resumed from there to the same bits."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from grao.configuration import build
from grao.records import latest_good_checkpoint, read_run
from grao.rewards import RewardError
from grao.rewards.errors import EndpointDownError
from grao.rewards.load import import_path
from grao.training import RunConfig, train

pytestmark = pytest.mark.slow

OUTAGES = '''
"""A reward that is down at the calls of these numbers; it notes what its callers hand it."""

from grao.rewards.errors import EndpointDownError

state = {"calls": 0, "down_at": ()}


def vowels(completions, log_metric, log_extra, **columns):
    state["calls"] += 1
    if state["calls"] in state["down_at"]:
        raise EndpointDownError("the endpoint is down")
    words = [len(c.split()) for c in completions]
    log_extra("words", words)
    log_metric("words", sum(words) / len(words))
    return [sum(w in "aei" for w in c.split()) / max(len(c.split()), 1) for c in completions]
'''


@pytest.fixture
def place(
    tmp_path: Path, write_model: Callable[..., Path], rows: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "base", attention_dropout=0.1)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{name_of(tmp_path)}.py").write_text(OUTAGES, encoding="utf-8")
    return tmp_path


def name_of(place: Path) -> str:
    """A module of its own for each test: Python imports a name once."""
    return "outages_" + hashlib.sha256(str(place).encode()).hexdigest()[:8]


def described(place: Path, name: str, **changes: Any) -> dict[str, Any]:
    """Ten rows, four a step: 8 steps cross two borders of epochs, after steps 3 and 6."""
    config: dict[str, Any] = {
        "model": {"path": "base"},
        "data": {"source": "rows.jsonl", "limit": 10},
        "objective": {"name": "grao"},
        "rewards": [{"path": f"{name_of(place)}:vowels"}],
        "rollout": {"max_new_tokens": 6, "num_generations": 3},
        "monitor": {"kl_every": 3, "completions_every": 0},
        "trainer": {
            "output_dir": name,
            "learning_rate": 1e-2,
            "lr_scheduler_type": "linear",
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "max_steps": 8,
            "save_steps": 100,
            "use_cpu": True,
            "seed": 7,
        },
    }
    for key, value in changes.items():
        section, _, field = key.partition("__")
        config[section] = {**config[section], field: value} if field else value
    return config


def go(place: Path, config: dict[str, Any], *down_at: int, resume: bool = False) -> None:
    import_path(f"{name_of(place)}:state").update(calls=0, down_at=down_at)
    train(build(RunConfig, config), console=Console(file=io.StringIO()), resume=resume)


def outcome(directory: Path) -> tuple[str, list[dict[str, Any]], list[dict[str, Any]]]:
    """SHA-256 of the weights, every metric but times, every completion."""
    run = read_run(directory)
    metrics = [{k: v for k, v in line.items() if "time" not in k and "seconds" not in k} for line in run.metrics]
    weights = (directory / "model" / "model.safetensors").read_bytes()
    return hashlib.sha256(weights).hexdigest(), metrics, [*run.completions(), *run.completions(held_out=True)]


@pytest.mark.parametrize(
    ("down_at", "saved"),
    [
        pytest.param([6], [5], id="inside-an-epoch"),
        pytest.param([4], [3], id="at-the-border-of-epochs"),
        pytest.param([2, 1, 4], [1, 1, 4], id="three-times-once-at-the-very-step"),
        pytest.param([1], [0], id="before-the-first-step"),
    ],
)
def test_down_and_resumed(down_at: list[int], saved: list[int], place: Path) -> None:
    """Oracle: the run whose reward was never down: weights, metrics, completions with their extras; dropout 0.1.

    The n-th call of a session is that of its n-th step, so the step before it is what must be saved; the checkpoints
    that the configuration asks for never come.
    """
    whole, run = described(place, "whole"), described(place, "run")
    go(place, whole)
    for number, (call, step) in enumerate(zip(down_at, saved, strict=True)):
        with pytest.raises(
            EndpointDownError, match=r"down\. (The last good checkpoint is run|There is no checkpoint)"
        ):
            go(place, run, call, resume=number > 0)
        assert latest_good_checkpoint(Path("run")).step == step
    go(place, run, resume=True)
    assert outcome(Path("run")) == outcome(Path("whole"))
    metrics, completions = outcome(Path("run"))[1:]
    assert all("words" in line for line in metrics if "loss" in line)
    assert all(row["extra/words"] == len(row["completion"].split()) for row in completions)


@pytest.mark.parametrize(
    ("down_at", "saved", "changes"),
    [
        pytest.param(
            3,
            4,
            {"objective": {"name": "ppo"}, "rollout__num_iterations": 2},
            id="collections-used-twice-and-a-critic",
        ),
        pytest.param(
            1, 3, {"objective": [{"name": "sft", "steps": 3}, {"name": "grpo", "steps": 5, "kl": 0.1}]}, id="new-stage"
        ),
        pytest.param(
            4, 5, {"objective": [{"name": "sft", "steps": 2}, {"name": "ppo", "steps": 6, "kl": 0.1}]}, id="in-a-stage"
        ),
    ],
)
def test_stages_critics_and_collections(down_at: int, saved: int, changes: dict[str, Any], place: Path) -> None:
    """Oracle: as above. With collections that serve two steps, the third call is for steps 5 and 6."""
    whole, run = described(place, "whole", **changes), described(place, "run", **changes)
    go(place, whole)
    with pytest.raises(EndpointDownError):
        go(place, run, down_at)
    assert latest_good_checkpoint(Path("run")).step == saved
    go(place, run, resume=True)
    assert outcome(Path("run")) == outcome(Path("whole"))


def test_metrics_between_two_logs_are_not_lost(place: Path) -> None:
    """Oracle: the uninterrupted run's weights and completions. Its log lines are means over steps 1–4 and 5–8; the
    stopped run's are over 1–4, 5 and 6–8, of which the mean is the same up to the order of sums."""
    whole, run = described(place, "whole", trainer__logging_steps=4), described(place, "run", trainer__logging_steps=4)
    go(place, whole)
    with pytest.raises(EndpointDownError):
        go(place, run, 6)
    go(place, run, resume=True)
    (weights, metrics, completions), expected = outcome(Path("run")), outcome(Path("whole"))
    assert (weights, completions) == (expected[0], expected[2])
    lines = {line["step"]: line for line in metrics if "loss" in line}
    assert [line["step"] for line in expected[1] if "loss" in line] == [4, 8]
    # The run logs at 5 when it is saved, and at 8, the next multiple of logging_steps.
    assert list(lines) == [4, 5, 8]
    for name in ("words", "reward_std"):
        together = (lines[5][name] + 3 * lines[8][name]) / 4
        assert together == pytest.approx(expected[1][1][name], rel=1e-12)


def test_an_evaluation_that_fails_leaves_its_step_to_be_made_again(place: Path) -> None:
    """Oracle: the uninterrupted run. Calls 1 to 4 are evaluation 0 and steps 1 to 3, call 5 evaluation 3."""
    held_out = {"data": {"source": "rows.jsonl", "skip": 10}, "every": 3}
    whole, run = (described(place, name, evaluation=held_out, trainer__save_steps=2) for name in ("whole", "run"))
    go(place, whole)
    with pytest.raises(
        EndpointDownError, match="This was an evaluation; the last good checkpoint is run/checkpoint-2"
    ):
        go(place, run, 5)
    go(place, run, resume=True)
    assert outcome(Path("run")) == outcome(Path("whole"))


def test_whoever_wants_no_checkpoints_gets_none(place: Path) -> None:
    """Oracle: nothing to resume from, and the message says so."""
    with pytest.raises(RewardError, match="There is no checkpoint yet"):
        go(place, described(place, "run", trainer__save_strategy="no"), 4)
    assert latest_good_checkpoint(Path("run")).path is None
