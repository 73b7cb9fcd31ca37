"""A world: the rows of a task and the base model that was trained for them, from one seed. All methods share it.

Data, base model and runs of a seed go together, so the spread over seeds holds all three: what a claim says is not
about one lucky base model.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grao.configuration import to_mapping
from grao.demo.dialogue import Dialogue, Quality
from grao.demo.synthetic_task import Split, Task
from grao.demo.task_files import write_task
from grao.records.durable import write_atomically
from research.tasks import TASKS


@dataclass(frozen=True)
class TaskConfig:
    """The `task` section of a plan."""

    name: Literal["dialogue", "arithmetic", "word-problems"] = "dialogue"
    eps: float | None = None
    """How often the base model shows the wanted behaviour where it is rare; the task's own by default."""
    family: str = "llama"
    """Of the base model: llama, qwen3 or qwen3_moe."""
    quality: Quality | None = None
    """Of the dialogue's demonstrations: low, mid or high."""
    reward: Literal["task", "score"] = "task"
    """What training sees: the task's own reward (the dialogue's is a verdict against the reference), or its score."""
    swapped: float = 0.0
    """Share of the training rows whose reference and rejected answer change places."""
    base_steps: int | None = None
    """Optimiser steps of the base model; the task's own by default."""
    n_train: int = 512
    n_validation: int = 200
    n_test: int = 300

    def __post_init__(self) -> None:
        if self.quality is not None and self.name != "dialogue":
            raise ValueError(f"quality is the dialogue's; the task is {self.name}")
        for name in ("eps", "swapped"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; a share lies between 0 and 1")

    def make(self) -> Task:
        """The task."""
        return TASKS[self.name]() if self.quality is None else Dialogue(self.quality)

    @property
    def training_reward(self) -> str:
        """Dotted path of the reward that training sees."""
        task = self.make()
        return task.rubric if self.reward == "score" else task.reward


@dataclass(frozen=True, slots=True)
class SeededTask:
    """Where a world lies. `prepare` makes it; a file of digests, written last, says that it is whole."""

    folder: Path
    task: TaskConfig
    seed: int

    @property
    def base(self) -> Path:
        """The base model."""
        return self.folder / "base"

    def rows(self, split: Split) -> Path:
        """The rows of a split."""
        return self.folder / f"{split}.jsonl"

    @property
    def _digests(self) -> Path:
        return self.folder / "digests.json"

    def digests(self) -> dict[str, str] | None:
        """SHA-256 of its rows and weights; None where it is not whole."""
        return json.loads(self._digests.read_bytes()) if self._digests.is_file() else None

    def prepare(self) -> None:
        """Make it from the start, whatever half of it is there."""
        if self.digests() is not None:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        task = self.task
        write_task(
            task.make(),
            self.folder,
            n_train=task.n_train,
            n_validation=task.n_validation,
            n_test=task.n_test,
            family=task.family,
            eps=task.eps,
            steps=task.base_steps,
            swapped=task.swapped,
            seed=self.seed,
            quiet=True,
        )
        made = [self.rows("train"), self.rows("validation"), self.rows("test"), self.base / "model.safetensors"]
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in made}
        write_atomically(self._digests, json.dumps(digests, indent=1).encode())


def seeded_task(folder: Path, task: TaskConfig, seed: int) -> SeededTask:
    """The world of a task and a seed below `folder`, named after both."""
    return SeededTask(folder / f"{task.name}-{fingerprint(to_mapping(task))[:8]}-seed{seed}", task, seed)


def fingerprint(content: Mapping[str, Any]) -> str:
    """SHA-256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
