"""`python -m research run`: tasks, tuning, cells, summary. After an interruption the same command continues.

    DIR/
      experiment.json    the plan as run, and the versions of code and libraries
      tasks/             rows and base model of each task and seed
      tuning/            a record per setting that was tried
      tuning.json        settings tried and chosen; written before any test prompt is answered
      cells/             a record per cell
      summary.json       everything a report shows, computed from the records
      timings/, logs/    seconds, and the output of each process

A record is written completely or not at all, with everything that made it: configuration, seed, digests of rows and
base model, versions of code and libraries. Records of another origin are refused with a message.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from grao.configuration import to_mapping
from grao.records.config_file import config_differences
from grao.records.durable import write_atomically
from grao.terminal import make_console
from research.cell import Cell
from research.cell_runner import Places, as_json, run_cell
from research.claim_effects import claims_lines
from research.code_version import code_version, versions
from research.experiment_plan import ExperimentPlan
from research.plan_cells import cells_to_test, cells_to_tune
from research.process_pool import Job, run_jobs
from research.seeded_task import SeededTask, seeded_task
from research.summary import summarise
from research.tuning import chosen_settings, sha256, tuning_table

START_OVER = "Start over with --overwrite, or write elsewhere with --output"


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of an experiment."""

    path: Path

    @property
    def manifest(self) -> Path:
        """Return the file with plan and versions."""
        return self.path / "experiment.json"

    @property
    def tuning(self) -> Path:
        """Return the file with the settings tried and chosen."""
        return self.path / "tuning.json"

    @property
    def summary(self) -> Path:
        """Return the file that a report reads."""
        return self.path / "summary.json"

    def seeded_task(self, cell: Cell) -> SeededTask:
        """Return the task and seed of a cell."""
        return seeded_task(self.path / "tasks", cell.task, cell.seed)

    def places(self, cell: Cell) -> Places:
        """Return where a cell reads and writes."""
        kind = "cells" if cell.purpose == "test" else "tuning"
        return Places(
            seeded_task=self.seeded_task(cell),
            record=self.path / kind / f"{cell.name}.json",
            timings=self.path / "timings" / kind / f"{cell.name}.json",
            work=self.path / "work" / kind / cell.name,
        )

    def log(self, kind: str, name: str) -> Path:
        """Return the file with the output of a job's process."""
        return self.path / "logs" / kind / f"{name}.txt"


def run_experiment(
    plan: ExperimentPlan, output: str | Path, *, jobs: int, overwrite: bool = False, console: Console | None = None
) -> Path:
    """Run the cells of a plan that have no record yet, write the summary and return its path.

    Args:
        plan: What to run.
        output: A directory. An interrupted experiment in it is continued.
        jobs: Number of processes, of one thread each.
        overwrite: Delete the experiment in `output` first.
        console: Where to show progress.

    Raises:
        ValueError: If the plan is not valid, or `output` holds results of other code, libraries or settings.
        FileExistsError: If `output` holds something other than an experiment.
        ChildProcessError: If cells failed, with their logs. All other cells are done.
    """
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}: give the number of processes, 1 or more")
    console = console or make_console()
    folder = Folder(Path(output))
    _check_cells(plan, folder)
    with _locked(folder, overwrite):
        made = {"plan": to_mapping(plan), "code": code_version(), "versions": versions()}
        _check_versions(folder, made)
        if not folder.manifest.is_file():
            _write_manifest(folder, made)
        return _run(plan, folder, made, jobs, console)


def _check_cells(plan: ExperimentPlan, folder: Folder) -> None:
    """Build every configuration once, so that errors show before anything runs."""
    first = {plan.seeds[0], *([] if plan.tuning is None else plan.tuning.seeds[:1])}
    for cell in [*cells_to_tune(plan), *cells_to_test(plan, {})]:
        if cell.seed not in first:
            continue
        try:
            cell.config(folder.seeded_task(cell), folder.places(cell).work)
        except ValueError as error:
            raise ValueError(f"{', '.join(cell.axes.values())}: {error}") from error


def _run(plan: ExperimentPlan, folder: Folder, made: Mapping[str, Any], jobs: int, console: Console) -> Path:
    tuned, untuned = cells_to_tune(plan), cells_to_test(plan, {})
    with _Shown(console, len(_seeded_tasks(folder, [*tuned, *untuned])) + len(tuned) + len(untuned)) as bar:
        runner = _Runner(folder, made, jobs, bar)
        runner.prepare(_seeded_tasks(folder, [*tuned, *untuned]))
        table = tuning_table(plan, runner.records(tuned)) if tuned else []
        if plan.tuning is not None:
            record = {"metric": plan.tuning.metric, "seeds": plan.tuning.seeds, "split": "validation", "table": table}
            write_atomically(folder.tuning, json.dumps(record, indent=1, ensure_ascii=False).encode())
        cells = cells_to_test(plan, chosen_settings(plan, table))
        records = runner.records(cells)
    provenance = {
        "code": made["code"],
        "versions": made["versions"],
        "seeds": plan.seeds,
        "tuning_seeds": [] if plan.tuning is None else plan.tuning.seeds,
        "tuning_sha256": sha256(folder.tuning.read_bytes()) if plan.tuning is not None else None,
        "cells": len(records),
    }
    seconds = {cell.name: read["cpu_seconds"] for cell in cells if (read := _json(folder.places(cell).timings))}
    summary = summarise(plan, records, tuning=table, seconds=seconds, provenance=provenance)
    _write_manifest(folder, made)  # after the records: a plan that they refuse must not stand beside their summary
    write_atomically(folder.summary, as_json(summary))
    shutil.rmtree(folder.path / "work", ignore_errors=True)
    for line in claims_lines(summary["claims"]):
        console.print(line, highlight=False, soft_wrap=True)
    return folder.summary


def _write_manifest(folder: Folder, made: Mapping[str, Any]) -> None:
    write_atomically(folder.manifest, json.dumps(made, indent=1, ensure_ascii=False).encode())


class _Runner:
    """Runs the cells that have no record, and returns the records of all."""

    def __init__(self, folder: Folder, made: Mapping[str, Any], jobs: int, shown_on: _Shown) -> None:
        self._folder, self._made, self._jobs, self._shown = folder, made, jobs, shown_on

    def prepare(self, tasks: Sequence[SeededTask]) -> None:
        missing = [seeded for seeded in tasks if seeded.digests() is None]
        self._shown.skip(len(tasks) - len(missing))
        log = self._folder.log
        self._run([Job(w.folder.name, w.prepare, (), log("tasks", w.folder.name)) for w in missing])

    def records(self, cells: Sequence[Cell]) -> list[dict[str, Any]]:
        identities = {cell.name: self._identity(cell) for cell in cells}
        missing = [cell for cell in cells if not self._is_done(cell, identities[cell.name])]
        self._shown.skip(len(cells) - len(missing))
        jobs = []
        # By seed, so that methods alternate and the time left is not estimated from the cheapest one.
        for cell in sorted(missing, key=lambda cell: cell.seed):
            places = self._folder.places(cell)
            for file in (places.record, places.timings):
                file.parent.mkdir(parents=True, exist_ok=True)
            log = self._folder.log(places.record.parent.name, cell.name)
            jobs.append(Job(cell.name, run_cell, (cell, places, identities[cell.name]), log))
        self._run(jobs)
        return [{"name": cell.name, **_json(self._folder.places(cell).record)} for cell in cells]

    def _identity(self, cell: Cell) -> dict[str, Any]:
        identity = cell.identity(self._folder.seeded_task(cell), self._made["code"], self._made["versions"])
        plain: dict[str, Any] = json.loads(json.dumps(identity))
        return plain

    def _is_done(self, cell: Cell, identity: Mapping[str, Any]) -> bool:
        file = self._folder.places(cell).record
        if not file.is_file():
            return False
        _refuse_other(f"{file} was made", config_differences(_json(file)["identity"], identity))
        return True

    def _run(self, jobs: Sequence[Job]) -> None:
        failed = run_jobs(jobs, self._jobs, self._shown.ended)
        if failed:
            logs = "\n".join(f"  {job.name}: {job.log}" for job in failed)
            raise ChildProcessError(
                f"{len(failed)} of {len(jobs)} cells failed, the others are done. Read their logs, then run the same "
                f"command again:\n{logs}"
            )


class _Shown:
    """A progress bar with the time left; plain lines if the output is not a terminal."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._done, self._ran = console, total, 0, 0
        self._started = time.monotonic()
        self._bar = Progress(
            TextColumn("[bold]cells"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[last]}"),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=3600,  # cells take seconds to minutes each
        )
        self._task = self._bar.add_task("", total=total, last="")

    def __enter__(self) -> _Shown:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def skip(self, n: int) -> None:
        """Count `n` cells of an earlier call as done."""
        self._done += n
        self._bar.update(self._task, completed=self._done)
        if n:
            self._console.print(f"{n} done before", highlight=False)

    def ended(self, job: Job, well: bool) -> None:
        """Count a job as ended."""
        self._done, self._ran = self._done + 1, self._ran + 1
        self._bar.update(self._task, completed=self._done, last=job.name)
        if not well:
            self._console.print(f"{job.name} failed: {job.log}", highlight=False, soft_wrap=True)
        elif not self._console.is_terminal:
            left = (time.monotonic() - self._started) / self._ran * (self._total - self._done)
            said = f"{self._done}/{self._total}  {job.name}  ({_minutes(left)} left)"
            self._console.print(said, highlight=False, soft_wrap=True)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _seeded_tasks(folder: Folder, cells: Iterable[Cell]) -> list[SeededTask]:
    """Return every task and seed once, in order of appearance."""
    return list(dict.fromkeys(folder.seeded_task(cell) for cell in cells))


@contextmanager
def _locked(folder: Folder, overwrite: bool) -> Iterator[None]:
    """Lock the folder for this command, and empty it first if `overwrite` is set."""
    folder.path.mkdir(parents=True, exist_ok=True)
    entries = [path for path in folder.path.iterdir() if path.name != ".lock"]
    if entries and not folder.manifest.is_file():
        raise FileExistsError(
            f"{folder.path} is not empty and holds no {folder.manifest.name}, so it is not an experiment: name "
            "another directory with --output"
        )
    with (folder.path / ".lock").open("w") as lock:
        _lock(lock, folder.path)
        if overwrite:
            _empty([path for path in entries if path != folder.manifest])
            _empty([path for path in entries if path == folder.manifest])  # last: it marks the folder
        yield


def _empty(entries: Iterable[Path]) -> None:
    for path in entries:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _lock(file: IO[str], path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"another command is running the experiment in {path}: wait for it or stop it") from None


def _check_versions(folder: Folder, made: Mapping[str, Any]) -> None:
    if folder.manifest.is_file():
        before = _json(folder.manifest)
        then, now = ({key: one[key] for key in ("code", "versions")} for one in (before, made))
        _refuse_other(f"what lies in {folder.path} was made", config_differences(then, now))


def _refuse_other(what: str, found: Iterable[tuple[str, Any, Any]]) -> None:
    lines = [f"  {key}: {_short(old)} then, {_short(new)} now" for key, old, new in found]
    if lines:
        raise ValueError(
            f"{what} by another version, and results of different versions are never mixed:\n"
            + "\n".join(lines)
            + f"\n{START_OVER}"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_bytes()) if file.is_file() else {}


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
