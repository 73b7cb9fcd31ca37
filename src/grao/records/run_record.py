"""Reading a run back: for reports, comparisons and whoever is curious; also while it is still being written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grao.records.completions import completion_files, completions_file, read_completions
from grao.records.config_file import load_yaml
from grao.records.metrics import read_metrics
from grao.records.run_directory import RunDirectory


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run wrote.

    Example::

        run = read_run("runs/first")
        steps, rewards = run.series("reward")
    """

    path: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    """One mapping a line of metrics.jsonl, in order, each with its `step`."""

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one metric, where it was logged as a number; a null (NaN when logged) is left out.

        Raises:
            KeyError: no line has this metric; the message lists those that exist.
        """
        if not any(name in line for line in self.metrics):
            known = sorted({key for line in self.metrics for key in line if key != "step"})
            raise KeyError(f"{self.path} has no metric {name!r}; it has {', '.join(known) or 'none'}")
        points = [(line["step"], float(line[name])) for line in self.metrics if line.get(name) is not None]
        return [step for step, _ in points], [value for _, value in points]

    def completion_steps(self, *, held_out: bool = False) -> list[int]:
        """The steps whose completions were written, in order."""
        return [step for step, _ in completion_files(self._folder(held_out))]

    def completions(self, step: int | None = None, *, held_out: bool = False) -> Iterator[dict[str, Any]]:
        """Completions of one step, or of all steps in order; read file by file as they are asked for.

        `held_out`: the answers of the evaluations instead of the samples of training.

        Raises:
            KeyError: that step has no completions; the message lists the steps that have.
        """
        folder = self._folder(held_out)
        if step is None:
            return read_completions([path for _, path in completion_files(folder)])
        steps = self.completion_steps(held_out=held_out)
        if step not in steps:
            raise KeyError(f"{folder} has no completions of step {step}; it has {steps}")
        return read_completions([completions_file(folder, step)])

    def _folder(self, held_out: bool) -> Path:
        run = RunDirectory(self.path)
        return run.held_out_folder if held_out else run.completions_folder


def read_run(path: str | Path) -> RunRecord:
    """Read a run directory; a torn last line of metrics is left out.

    Raises:
        FileNotFoundError: no such directory, or no config.yaml in it.
        ValueError: a metrics line that cannot be read, by its number.
    """
    run = RunDirectory(Path(path))
    if not run.config_file.is_file():
        there = "has no config.yaml" if run.path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{run.path} {there}: not a run directory")
    environment = json.loads(run.environment_file.read_bytes()) if run.environment_file.exists() else {}
    return RunRecord(
        path=run.path,
        config=load_yaml(run.config_file),
        environment=environment,
        metrics=tuple(read_metrics(run.metrics_file)),
    )
