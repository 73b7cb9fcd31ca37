"""A seeded task: rows and a base model, whole or made again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from grao.configuration import build
from grao.data import load_examples
from grao.rewards import load_reward
from research.seeded_task import SeededTask, TaskConfig, seeded_task
from research.tasks import TASKS

SMALL = TaskConfig(base_steps=3, n_train=20, n_validation=5, n_test=6)


def test_a_world_is_made_once_and_whole(tmp_path: Path) -> None:
    """Oracle: sizes by hand; digests by hashlib; half of one, without digests, is thrown away; the same seed makes the
    same bytes, another one others.
    """
    seeded = seeded_task(tmp_path, SMALL, 1)
    assert seeded.digests() is None
    seeded.base.mkdir(parents=True)
    (seeded.base / "model.safetensors").write_text("half", encoding="utf-8")
    seeded.prepare()
    splits = {"train": 20, "validation": 5, "test": 6}
    assert {split: len(load_examples(seeded.rows(split))) for split in splits} == splits  # type: ignore[arg-type]
    digests = seeded.digests()
    assert digests is not None
    assert digests["train.jsonl"] == hashlib.sha256(seeded.rows("train").read_bytes()).hexdigest()
    assert set(digests) == {"train.jsonl", "validation.jsonl", "test.jsonl", "model.safetensors"}
    stamp = seeded.rows("train").stat().st_mtime_ns
    seeded.prepare()
    assert seeded.rows("train").stat().st_mtime_ns == stamp
    again = SeededTask(tmp_path / "again", SMALL, 1)
    again.prepare()
    assert again.digests() == digests


@pytest.mark.parametrize("name", TASKS)
def test_every_task_can_be_named_by_a_plan(name: str) -> None:
    """Oracle: the table of tasks, and the name that a task gives itself."""
    made = build(TaskConfig, {"name": name}).make()
    assert isinstance(made, TASKS[name])
    assert made.name == name


def test_worlds_of_other_tasks_and_seeds_lie_elsewhere(tmp_path: Path) -> None:
    """Oracle: names differ where anything differs."""
    folders = [
        seeded_task(tmp_path, task, seed).folder
        for task in (SMALL, TaskConfig(), TaskConfig(eps=0.4), TaskConfig(swapped=0.5))
        for seed in (0, 1)
    ]
    assert len(set(folders)) == len(folders)


def test_swapped_references(tmp_path: Path) -> None:
    """Oracle: the same task without swapping: a quarter of the training rows has reference and rejected answer the
    other way round, nothing else differs; test rows are what they were.
    """
    tasks = []
    for share in (0.0, 0.25):
        task = TaskConfig(base_steps=3, n_train=20, n_validation=5, n_test=6, swapped=share)
        tasks.append(seeded_task(tmp_path, task, 3))
        tasks[-1].prepare()
    plain, swapped = ([json.loads(line) for line in w.rows("train").read_text().splitlines()] for w in tasks)
    turned = [{**row, "reference": row["rejected"], "rejected": row["reference"]} for row in plain]
    assert all(now in (before, other) for now, before, other in zip(swapped, plain, turned, strict=True))
    assert sum(now != before for now, before in zip(swapped, plain, strict=True)) == 5
    assert tasks[0].rows("test").read_bytes() == tasks[1].rows("test").read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "arithmetic", "quality": "low"},
            "quality is set, but the task is arithmetic",
        ),
        ({"swapped": 1.5}, "swapped is 1.5; a share lies between 0 and 1"),
    ],
)
def test_tasks_that_do_not_fit(settings: dict, message: str) -> None:
    """Oracle: the sentence."""
    with pytest.raises(ValueError, match=message):
        TaskConfig(**settings)


def test_training_sees_the_tasks_reward_or_its_score() -> None:
    """Oracle: the score that training sees is the one that tests are scored by; a verdict is in {−1, 0, 1}."""
    examples = SMALL.make().examples("test", 6)
    prompts, references = [str(one.prompt) for one in examples], [one.reference for one in examples]
    rejected = [one.rejected for one in examples]
    found = {
        kind: load_reward(replace(SMALL, reward=kind).training_reward).call(
            prompts=prompts, completions=rejected, reference=references
        )
        for kind in ("task", "score")
    }
    task = SMALL.make()
    assert found["task"] == [-1.0] * 6
    assert found["score"] == [task.score(p, c) for p, c in zip(prompts, rejected, strict=True)]
    assert len(set(found["score"])) > 2
