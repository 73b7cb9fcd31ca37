"""A cell: one model of an experiment, trained and measured by itself; its configuration and its identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from grao.configuration import build, to_mapping
from grao.training import RunConfig
from research.seeded_task import SeededTask, TaskConfig

Purpose = Literal["tuning", "test"]


@dataclass(frozen=True)
class Curves:
    """What is measured while a cell trains: greedy answers to validation prompts."""

    every: int = 10
    """Steps between measurements; the first is made before the first step."""
    prompts: int = 64
    thresholds: dict[str, float] = field(default_factory=dict)
    """Metric → value: the steps until the curve first reaches it become a metric of the cell."""

    def __post_init__(self) -> None:
        if self.every < 1 or self.prompts < 1:
            raise ValueError(f"every is {self.every} and prompts is {self.prompts}; give 1 or more of each")


@dataclass(frozen=True)
class Cell:
    """What is run: the labels of its levels, a seed, and the whole configuration without its places on the disk."""

    purpose: Purpose
    axes: dict[str, str]
    seed: int
    setting: dict[str, Any]
    """The tuned values: of the grid's keys, what is tried or was chosen."""
    name: str
    """Its file's, without suffix."""
    task: TaskConfig
    run: dict[str, Any]
    """Sections of a run."""
    trained: bool
    curves: Curves | None
    """None for tuning: only the end counts there."""
    series: tuple[str, ...]
    bounds: bool
    keep_answers: bool

    def identity(self, seeded: SeededTask, code: str, versions: Mapping[str, str]) -> dict[str, Any]:
        """Everything that can change its numbers, as plain data; its record holds it."""
        return {
            "purpose": self.purpose,
            "axes": self.axes,
            "seed": self.seed,
            "setting": self.setting,
            "task": to_mapping(self.task),
            "run": self.run,
            "trained": self.trained,
            "curves": None if self.curves is None else to_mapping(self.curves),
            "series": list(self.series),
            "bounds": self.bounds,
            "keep_answers": self.keep_answers,
            "world": seeded.digests(),
            "code": code,
            "versions": dict(versions),
        }

    def config(self, seeded: SeededTask, directory: Path) -> RunConfig:
        """The run as an ordinary configuration."""
        return build(RunConfig, _placed(self.run, self.task, self.seed, self.curves, seeded, directory))


def _placed(
    run: Mapping[str, Any], task: TaskConfig, seed: int, curves: Curves | None, seeded: SeededTask, directory: Path
) -> dict[str, Any]:
    """The run with its world, its seed and its directory; it leaves no checkpoint, as a cell is short."""
    evaluation = None
    if curves is not None:
        rows = {"source": str(seeded.rows("validation")), "limit": curves.prompts}
        evaluation = {"data": rows, "every": curves.every, "at_start": True}
    trainer = {"save_strategy": "no", **run["trainer"], "output_dir": str(directory), "seed": seed}
    return {
        **run,
        "model": {**run.get("model", {}), "path": str(seeded.base)},
        "data": {"source": str(seeded.rows("train"))},
        "rewards": [{"path": task.training_reward}],
        "evaluation": evaluation,
        "monitor": {"completions_every": 0, **run.get("monitor", {})},
        "trainer": trainer,
    }
