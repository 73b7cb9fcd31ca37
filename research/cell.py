"""A cell: one model of an experiment, with its configuration and identity."""

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
    """Measurements during training: greedy answers to validation prompts."""

    every: int = 10
    """Steps between measurements, the first one before the first step."""
    prompts: int = 64
    thresholds: dict[str, float] = field(default_factory=dict)
    """Metric → value. The steps until the curve reaches the value become a metric of the cell."""

    def __post_init__(self) -> None:
        if self.every < 1 or self.prompts < 1:
            raise ValueError(f"every is {self.every} and prompts is {self.prompts}; give 1 or more of each")


@dataclass(frozen=True)
class Cell:
    """The labels of its levels, a seed, and the complete configuration except paths."""

    purpose: Purpose
    axes: dict[str, str]
    seed: int
    setting: dict[str, Any]
    """Values of the grid's keys: those tried, or those chosen."""
    name: str
    """Name of its file, without suffix."""
    task: TaskConfig
    run: dict[str, Any]
    """Sections of a run."""
    trained: bool
    curves: Curves | None
    """None while tuning, where only the end counts."""
    series: tuple[str, ...]
    bounds: bool
    keep_answers: bool

    def identity(self, seeded: SeededTask, code: str, versions: Mapping[str, str]) -> dict[str, Any]:
        """Return everything that can change its numbers, as plain data for the record.

        The key `world` holds the digests of rows and base model.
        """
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
        """Return the run as an ordinary configuration."""
        return build(RunConfig, _placed(self.run, self.task, self.seed, self.curves, seeded, directory))


def _placed(
    run: Mapping[str, Any], task: TaskConfig, seed: int, curves: Curves | None, seeded: SeededTask, directory: Path
) -> dict[str, Any]:
    """Return the run with its task, seed and directory, and without checkpoints, as a cell is short."""
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
