"""A run that its reward ends in the middle is saved at its last step, and resumed from there to the same bits."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.training.small_run import changed, small_run

from grao.configuration import build
from grao.dotted_path import import_path
from grao.records import latest_good_checkpoint, read_run
from grao.rewards import RewardError
from grao.rewards.errors import EndpointDownError
from grao.training import RunConfig, train

pytestmark = pytest.mark.slow

Outcome = tuple[str, list[dict[str, Any]], list[dict[str, Any]]]

OUTAGES = '''
"""A reward that is down at the calls of these numbers; it notes what its callers hand it."""

import os

from grao.rewards.errors import EndpointDownError

state = {"calls": 0, "down_at": [3] if os.environ.get("DOWN") == os.environ.get("RANK", "") else []}


def vowels(completions, log_metric, log_extra, **columns):
    state["calls"] += 1
    if state["calls"] in state["down_at"]:
        raise EndpointDownError("the endpoint is down")
    words = [len(c.split()) for c in completions]
    log_extra("words", words)
    log_metric("words", sum(words) / len(words))
    return [sum(w in "aei" for w in c.split()) / max(len(c.split()), 1) for c in completions]
'''


@pytest.fixture(scope="module", autouse=True)
def place(
    tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path], rows: list[dict[str, str]]
) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("stopped")
    write_model(folder / "base", attention_dropout=0.1)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "outages.py").write_text(OUTAGES, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        yield


@pytest.fixture(scope="module")
def uninterrupted(place: None) -> Outcome:
    go(described("whole"))
    return outcome("whole")


def described(name: str, **changes: Any) -> dict[str, Any]:
    """Saved by nothing but the stop."""
    config = small_run(name, rewards=[{"path": "outages:vowels"}])
    return changed(changed(config, trainer__save_steps=100), **changes)


def go(config: dict[str, Any], *down_at: int, resume: bool = False) -> None:
    import_path("outages:state").update(calls=0, down_at=down_at)
    train(build(RunConfig, config), console=Console(file=io.StringIO()), resume=resume)


def outcome(name: str) -> Outcome:
    """SHA-256 of the weights, every metric but times, every completion."""
    run = read_run(Path(name))
    metrics = [{k: v for k, v in line.items() if "time" not in k and "seconds" not in k} for line in run.metrics]
    weights = (Path(name) / "model" / "model.safetensors").read_bytes()
    return hashlib.sha256(weights).hexdigest(), metrics, [*run.completions(), *run.completions(held_out=True)]


@pytest.mark.parametrize(
    ("name", "down_at", "saved"),
    [
        ("inside-an-epoch", [6], [5]),
        ("at-the-border-of-epochs", [4], [3]),
        ("twice-at-the-same-step", [2, 1], [1, 1]),
        ("before-the-first-step", [1], [0]),
    ],
)
def test_down_and_resumed(name: str, down_at: list[int], saved: list[int], uninterrupted: Outcome) -> None:
    """Oracle: the run whose reward was never down: weights, metrics, completions with their extras; dropout 0.1.

    The n-th call of a session is that of its n-th step, so the step before it is what must be saved; the checkpoints
    that the configuration asks for never come.
    """
    run = described(name)
    for number, (call, step) in enumerate(zip(down_at, saved, strict=True)):
        with pytest.raises(EndpointDownError, match=r"down\. (Resume from \S+|No checkpoint yet)"):
            go(run, call, resume=number > 0)
        assert latest_good_checkpoint(Path(name)).step == step
    go(run, resume=True)
    assert outcome(name) == uninterrupted


def test_what_the_reward_notes_is_in_the_records(uninterrupted: Outcome) -> None:
    """Oracle: the words of each completion counted again, and their mean over all members a step."""
    _, metrics, completions = uninterrupted
    assert all(row["extra/words"] == len(row["completion"].split()) for row in completions)
    for line in (line for line in metrics if "loss" in line):
        words = [row["extra/words"] for row in completions if row["step"] == line["step"]]
        assert line["words"] == pytest.approx(sum(words) / len(words), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "down_at", "saved", "changes"),
    [
        ("collections-used-twice-and-a-critic", 3, 4, {"objective": {"name": "ppo"}, "rollout__num_iterations": 2}),
        ("new-stage", 1, 3, {"objective": [{"name": "sft", "steps": 3}, {"name": "grpo", "steps": 5, "kl": 0.1}]}),
        ("in-a-stage", 4, 5, {"objective": [{"name": "sft", "steps": 2}, {"name": "ppo", "steps": 6, "kl": 0.1}]}),
    ],
)
def test_stages_critics_and_collections(name: str, down_at: int, saved: int, changes: dict[str, Any]) -> None:
    """Oracle: as above. With collections that serve two steps, the third call is for steps 5 and 6."""
    whole, run = described(f"{name}-whole", **changes), described(name, **changes)
    go(whole)
    with pytest.raises(EndpointDownError):
        go(run, down_at)
    assert latest_good_checkpoint(Path(name)).step == saved
    go(run, resume=True)
    assert outcome(name) == outcome(f"{name}-whole")


def test_metrics_between_two_logs_are_not_lost(uninterrupted: Outcome) -> None:
    """Oracle: the uninterrupted run's weights and completions, and its metrics: where it logs every step, the stopped
    run's lines, which span steps 1–4, 5 and 6–8, must hold the means over these."""
    run = described("seldom-logged", trainer__logging_steps=4)
    with pytest.raises(EndpointDownError):
        go(run, 6)
    go(run, resume=True)
    weights, metrics, completions = outcome("seldom-logged")
    assert (weights, completions) == (uninterrupted[0], uninterrupted[2])
    lines = {line["step"]: line for line in metrics if "loss" in line}
    words = [line["words"] for line in uninterrupted[1] if "loss" in line]
    assert {step: line["words"] for step, line in lines.items()} == pytest.approx(
        {4: sum(words[:4]) / 4, 5: words[4], 8: sum(words[5:]) / 3}, rel=1e-12
    )


def test_an_evaluation_that_fails_leaves_its_step_to_be_made_again() -> None:
    """Oracle: the uninterrupted run. Calls 1 to 4 are evaluation 0 and steps 1 to 3, call 5 evaluation 3."""
    changes = {"evaluation": {"data": {"source": "rows.jsonl", "skip": 10}, "every": 3}, "trainer__save_steps": 2}
    go(described("evaluated-whole", **changes))
    with pytest.raises(EndpointDownError, match=r"This was an evaluation\. Resume from .*checkpoint-2"):
        go(described("evaluated", **changes), 5)
    go(described("evaluated", **changes), resume=True)
    assert outcome("evaluated") == outcome("evaluated-whole")


def test_whoever_wants_no_checkpoints_gets_none() -> None:
    """Oracle: nothing to resume from, and the message says so."""
    with pytest.raises(RewardError, match="No checkpoint yet: --resume starts over"):
        go(described("unsaved", trainer__save_strategy="no"), 3)
    assert latest_good_checkpoint(Path("unsaved")).path is None


def test_two_processes_stop_together() -> None:
    """Oracle: by hand: the reward is down in the second process alone; both end after step 2, whose checkpoint is
    sealed and holds the random states of both, and each says why it ends."""
    config = described("two", trainer__gradient_accumulation_steps=1)
    Path("two.yaml").write_text(json.dumps(config), encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "DOWN": "1"}
    command = [*launch, "-m", "grao.cli", "train", "two.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode != 0
    for said in ("the endpoint is down", "The rollout failed in another process"):
        assert f"grao: {said}" in done.stderr
    assert done.stderr.count("Resume from two/checkpoint-2") == 2
    assert {file.name for file in Path("two/checkpoint-2").glob("rng_state_*")} == {
        "rng_state_0.pth",
        "rng_state_1.pth",
    }
