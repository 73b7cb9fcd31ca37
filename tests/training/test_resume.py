"""A run that is killed and resumed ends where an uninterrupted one does, to the bit."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.training.small_run import changed, small_run

from grao.records import read_run

pytestmark = pytest.mark.slow

PLANS: dict[str, list[str]] = {
    "early": ["first line"],  # before the first checkpoint: it starts over
    "random": ["random"],
    "twice": ["random", "random"],
    "while-saving": ["checkpoint-2"],
    "while-saving-the-last": ["random", "checkpoint-8"],
}
"""When each process of a run is killed; the one after the last kill runs to its end."""


Outcome = tuple[str, str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Run:
    """A directory with a model, data and a configuration, and the process that trains there."""

    place: Path
    config: dict[str, Any]

    @property
    def directory(self) -> Path:
        return self.place / self.config["trainer"]["output_dir"]

    def start(self, *flags: str) -> subprocess.Popen[str]:
        file = self.place / f"{self.directory.name}.yaml"
        file.write_text(yaml.safe_dump(self.config), encoding="utf-8")
        return subprocess.Popen(
            [sys.executable, "-m", "grao.cli", "train", file.name, *flags],
            cwd=self.place,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, *flags: str) -> str:
        process = self.start(*flags)
        said, _ = process.communicate(timeout=240)
        assert process.returncode == 0, said
        return said

    def kill_when(self, due: Callable[[], bool], *flags: str) -> bool:
        """Start, wait, SIGKILL; False where the run was over first."""
        process = self.start(*flags)
        until = time.monotonic() + 240
        while process.poll() is None and not due():
            assert time.monotonic() < until, "the moment to kill at never came"
            time.sleep(0.0005)
        killed = process.poll() is None
        process.kill()
        said, _ = process.communicate()
        assert killed or process.returncode == 0, said
        return killed

    def outcome(self) -> Outcome:
        """SHA-256 of the weights, SHA-256 of the metrics without times, and every completion."""
        run = read_run(self.directory)
        lines = [{k: v for k, v in line.items() if "time" not in k and "seconds" not in k} for line in run.metrics]
        weights = next((self.directory / "model").glob("*model.safetensors"))
        completions = [*run.completions(), *run.completions(held_out=True)]
        metrics = "\n".join(json.dumps(line) for line in lines)
        return (
            hashlib.sha256(weights.read_bytes()).hexdigest(),
            hashlib.sha256(metrics.encode()).hexdigest(),
            completions,
        )


def moment(run: Run, when: str, draw: random.Random) -> Callable[[], bool]:
    metrics = run.directory / "metrics.jsonl"
    if when.startswith("checkpoint"):
        checkpoint = run.directory / when
        return lambda: checkpoint.exists() and any(checkpoint.iterdir())
    before = metrics.stat().st_mtime_ns if metrics.exists() else 0
    started: list[float] = []
    wait = 0.0 if when == "first line" else draw.uniform(0.0, 1.0)

    def due() -> bool:
        if not started and metrics.exists() and metrics.stat().st_mtime_ns > before:
            started.append(time.monotonic())
        return bool(started) and time.monotonic() - started[0] >= wait

    return due


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path], rows: list[dict[str, str]]
) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    write_model(folder / "base", attention_dropout=0.1)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")
    preferences = [
        {"prompt": row["prompt"], "chosen": row["reference"], "rejected": rows[(i + 5) % len(rows)]["reference"]}
        for i, row in enumerate(rows)
    ]
    text = "".join(json.dumps(row) + "\n" for row in preferences)
    (folder / "preferences.jsonl").write_text(text, encoding="utf-8")
    return folder


def described(place: Path, name: str, **changes: Any) -> Run:
    """Saved at every step, evaluated at every third."""
    rewards = [{"path": "length", "kwargs": {"target": 0, "maximum": 6}}]
    evaluation = {"data": {"source": "rows.jsonl", "skip": 10}, "every": 3}
    return Run(place, changed(small_run(name, rewards=rewards, evaluation=evaluation), **changes))


@pytest.fixture(scope="module")
def uninterrupted(place: Path) -> Outcome:
    run = described(place, "whole")
    run.finish()
    return run.outcome()


def killed_and_resumed(run: Run, plan: list[str], draw: random.Random) -> list[bool]:
    kills = []
    for number, when in enumerate(plan):
        if kills and not kills[-1]:
            break  # it was over before
        kills.append(run.kill_when(moment(run, when, draw), *["--resume"] * (number > 0)))
    run.finish("--resume")
    return kills


@pytest.mark.parametrize("plan", PLANS)
def test_killed_at_any_moment(plan: str, place: Path, uninterrupted: Outcome) -> None:
    """Oracle: SHA-256 of weights and metrics, and every completion, of the run that nobody killed; dropout 0.1."""
    run = described(place, plan)
    kills = killed_and_resumed(run, PLANS[plan], random.Random(plan))
    if plan != "twice":  # whose second moment may come after the end
        assert kills[0]
    weights, metrics, completions = run.outcome()
    assert completions == uninterrupted[2]
    assert metrics == uninterrupted[1]
    assert weights == uninterrupted[0]


def test_the_uninterrupted_run_is_what_it_should_be(place: Path, uninterrupted: Outcome) -> None:
    """Oracle: steps counted by hand: 8 of training, evaluations at 0, 3, 6 and once at the end; tokens only grow."""
    run = read_run(place / "whole")
    assert [line["step"] for line in run.metrics if "loss" in line] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["step"] for line in run.metrics if "eval_n" in line] == [0, 3, 6, 8]
    _, tokens = run.series("num_tokens")
    assert tokens == sorted(set(tokens))
    assert run.completion_steps() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert run.metrics[-1]["epoch"] > 2


def test_resuming_what_is_finished_changes_nothing(place: Path) -> None:
    """Oracle: the finished run itself; a further step would be one too many. Then two more steps are asked for."""
    run = described(place, "finished", trainer__max_steps=2)
    run.finish()
    before = run.outcome()
    run.finish("--resume")
    assert run.outcome() == before
    run.config["trainer"]["max_steps"] = 4  # one of the few keys that may change
    run.finish("--resume")
    assert [line["step"] for line in read_run(run.directory).metrics if "loss" in line] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("grpo-kl", {"objective": {"name": "grpo", "kl": 0.05}, "trainer__save_steps": 2}),
        ("lora", {"model": {"path": "base", "lora": {"r": 4, "dropout": 0.1}}, "trainer__save_steps": 3}),
    ],
)
def test_the_frozen_policy_and_adapters_survive(name: str, changes: dict[str, Any], place: Path) -> None:
    """Oracle: as above. The KL anchor is the policy before *training*, not the one that was resumed from."""
    whole, run = described(place, f"{name}-whole", **changes), described(place, name, **changes)
    whole.finish()
    saved = f"checkpoint-{changes['trainer__save_steps'] * 2}"
    assert killed_and_resumed(run, [saved], random.Random(0)) == [True]
    assert run.outcome() == whole.outcome()


@pytest.mark.parametrize(
    ("name", "kill", "changes"),
    [
        pytest.param(
            "chain",
            "checkpoint-6",
            {"objective": [{"name": "sft", "steps": 3}, {"name": "ppo", "steps": 5, "kl": 0.1}]},
            id="inside-the-second-stage",
        ),
        pytest.param(
            "border",
            "checkpoint-4",
            {"objective": [{"name": "sft", "steps": 3}, {"name": "grpo", "steps": 5, "kl": 0.1}]},
            id="at-the-border-of-stages",
        ),
        pytest.param(
            "reuse",
            "checkpoint-6",
            {
                "objective": {"name": "ppo"},
                "critic": {"kind": "separate", "learning_rate": 5e-3},
                "rollout__num_iterations": 2,
                "trainer__save_steps": 2,
            },
            id="collections-used-twice-and-a-critic",
        ),
        pytest.param(
            "table",
            "checkpoint-5",
            {
                "objective": {"name": "dpo"},
                "data": {"source": "preferences.jsonl", "limit": 10},
                "evaluation__data": {"source": "preferences.jsonl", "skip": 10},
            },
            id="the-frozen-policy-once-a-row",
        ),
    ],
)
def test_stages_critic_collections_and_tables_survive(
    name: str, kill: str, changes: dict[str, Any], place: Path
) -> None:
    """Oracle: as above: killed while that checkpoint is written, and resumed from the one before.

    What must come back is not in transformers' own checkpoint: the policy that a stage started from, the critic with
    its moments, the place among the collections, the frozen policy's log-probs of every row.
    """
    whole, run = described(place, f"{name}-whole", **changes), described(place, name, **changes)
    whole.finish()
    assert killed_and_resumed(run, [kill], random.Random(0)) == [True]
    assert run.outcome() == whole.outcome()
    metrics = read_run(run.directory).metrics
    assert [line["step"] for line in metrics if "loss" in line] == [1, 2, 3, 4, 5, 6, 7, 8]
