"""A task with a seed: its rows, and the base model trained for them. All methods of an experiment share it.

The spread over seeds covers data, base model and runs together, so no claim rests on one lucky base model.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from grao.configuration import to_mapping
from grao.data import Example
from grao.demo.dialogue import Dialogue, Quality
from grao.demo.synthetic_task import Split, Task, write_rows, write_task
from grao.records.durable import write_atomically
from research.tasks import TASKS


@dataclass(frozen=True)
class TaskConfig:
    """The `task` section of a plan."""

    name: Literal["dialogue", "arithmetic", "word-problems"] = "dialogue"
    eps: float | None = None
    """How often the base model shows the wanted behaviour where that is rare. The task's own by default."""
    family: str = "llama"
    """Family of the base model: llama, qwen3 or qwen3_moe."""
    quality: Quality | None = None
    """Quality of the dialogue's demonstrations: low, mid or high."""
    reward: Literal["task", "score"] = "task"
    """What training sees: the task's reward (for the dialogue a verdict against the reference), or its score."""
    swapped: float = 0.0
    """Share of training rows whose reference and rejected answer are exchanged: wrong demonstrations."""
    base_steps: int | None = None
    """Optimiser steps of the base model. The task's own by default."""
    n_train: int = 512
    n_validation: int = 200
    n_test: int = 300

    def __post_init__(self) -> None:
        if self.quality is not None and self.name != "dialogue":
            raise ValueError(f"quality is set, but the task is {self.name}: only the dialogue has one")
        for name in ("eps", "swapped"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; a share lies between 0 and 1")

    def make(self) -> Task:
        """Return the task."""
        return TASKS[self.name]() if self.quality is None else Dialogue(self.quality)

    @property
    def training_reward(self) -> str:
        """Return the dotted path of the reward that training sees."""
        task = self.make()
        return task.rubric if self.reward == "score" else task.reward


@dataclass(frozen=True, slots=True)
class SeededTask:
    """The folder of a task and seed. `prepare` fills it; `digests.json`, written last, marks it as complete."""

    folder: Path
    task: TaskConfig
    seed: int

    @property
    def base(self) -> Path:
        """Return the folder of the base model."""
        return self.folder / "base"

    def rows(self, split: Split) -> Path:
        """Return the file with the rows of a split."""
        return self.folder / f"{split}.jsonl"

    @property
    def _digests(self) -> Path:
        return self.folder / "digests.json"

    def digests(self) -> dict[str, str] | None:
        """Return the SHA-256 of rows and weights, or None if the folder is incomplete."""
        return json.loads(self._digests.read_bytes()) if self._digests.is_file() else None

    def prepare(self) -> None:
        """Write rows and base model from the start, unless they are complete."""
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
            seed=self.seed,
            quiet=True,
        )
        if task.swapped:
            rows = task.make().examples("train", task.n_train, self.seed)
            write_rows(self.rows("train"), _with_swapped(rows, task.swapped, random.Random(f"swapped {self.seed}")))
        made = [self.rows("train"), self.rows("validation"), self.rows("test"), self.base / "model.safetensors"]
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in made}
        write_atomically(self._digests, json.dumps(digests, indent=1).encode())


def _with_swapped(examples: list[Example], share: float, rng: random.Random) -> list[Example]:
    chosen = set(rng.sample(range(len(examples)), round(share * len(examples))))
    return [
        replace(example, reference=example.rejected, rejected=example.reference) if i in chosen else example
        for i, example in enumerate(examples)
    ]


def seeded_task(folder: Path, task: TaskConfig, seed: int) -> SeededTask:
    """Return the task and seed below `folder`, named after both."""
    return SeededTask(folder / f"{task.name}-{fingerprint(to_mapping(task))[:8]}-seed{seed}", task, seed)


def fingerprint(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain data. The order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
