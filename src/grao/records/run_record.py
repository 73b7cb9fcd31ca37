"""Read a run directory back, also while the run is still writing it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grao.records.completions import completion_files, read_completions
from grao.records.config_file import load_yaml
from grao.records.metrics import read_metrics
from grao.records.run_directory import RunDirectory


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The content of a run directory.

    Example::

        run = read_run("runs/first")
        steps, rewards = run.series("reward")
    """

    path: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    """One mapping per line of metrics.jsonl, in order, each with its `step`."""

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Return the steps and values of one metric, without nulls (values logged as NaN).

        Raises:
            KeyError: No line has this metric. Lists the known ones.
        """
        if not any(name in line for line in self.metrics):
            known = sorted({key for line in self.metrics for key in line if key != "step"})
            remedy = f"Use one of {', '.join(known)}" if known else "No metrics were logged"
            raise KeyError(f"{self.path} has no metric {name!r}. {remedy}")
        points = [(line["step"], float(line[name])) for line in self.metrics if line.get(name) is not None]
        return [step for step, _ in points], [value for _, value in points]

    def completion_steps(self, *, held_out: bool = False) -> list[int]:
        """Return the steps with completions, in order."""
        return list(completion_files(RunDirectory(self.path).folder(held_out)))

    def completions(self, step: int | None = None, *, held_out: bool = False) -> Iterator[dict[str, Any]]:
        """Return the completions of one step, or of all steps in order, reading file by file.

        `held_out`: the answers of the evaluations instead of the completions of training.

        Raises:
            KeyError: That step has no completions. Lists the steps that have.
        """
        folder = RunDirectory(self.path).folder(held_out)
        files = completion_files(folder)
        if step is not None and step not in files:
            raise KeyError(f"{folder} has no completions of step {step}. Use one of {list(files)}")
        return read_completions(files.values() if step is None else [files[step]])


def read_run(path: str | Path) -> RunRecord:
    """Read a run directory, without an incomplete last line of metrics.

    Raises:
        FileNotFoundError: No such directory, or no config.yaml in it.
        ValueError: A metrics line cannot be read. Names its number.
    """
    run = RunDirectory(Path(path))
    if not run.config_file.is_file():
        found = "has no config.yaml" if run.path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{run.path} is not a run directory: it {found}")
    environment = json.loads(run.environment_file.read_bytes()) if run.environment_file.exists() else {}
    metrics = tuple(read_metrics(run.metrics_file))
    return RunRecord(run.path, load_yaml(run.config_file), environment, metrics)
