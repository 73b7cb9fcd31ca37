"""Run jobs in parallel, each in its own process with one torch thread and a log.

Processes are forked from a server that has imported torch and transformers, which saves 5 s per job, as long as a cell
takes. (On systems without a fork server they start from scratch.) No process outlives the command: Ctrl-C ends them,
and they end themselves if the command is killed.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_all_start_methods, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PRELOADED = ("research.cell_runner", "pandas", "pyarrow.parquet")
PATIENCE = 5.0
"""Seconds to wait for a process to end before killing it."""


@dataclass(frozen=True)
class Job:
    """A call in its own process."""

    name: str
    call: Callable[..., None]
    """A function of a module. It fails by raising."""
    arguments: tuple[Any, ...]
    log: Path
    """Receives the output of the process, with the traceback if it fails."""


def run_jobs(jobs: Iterable[Job], workers: int, ended: Callable[[Job, bool], None]) -> list[Job]:
    """Run jobs in order, at most `workers` at once; return those that failed.

    Args:
        jobs: What to run.
        workers: Number of processes at once.
        ended: Called with (job, success) after each job.
    """
    context: Any = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    if hasattr(context, "set_forkserver_preload"):
        context.set_forkserver_preload(list(PRELOADED))
    waiting, failed = list(jobs)[::-1], []
    running: dict[Any, tuple[Job, Any]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop()
                process = context.Process(target=_child, args=(job,), name=job.name)
                process.start()
                running[process.sentinel] = (job, process)
            for sentinel in connection.wait(list(running)):
                job, process = running.pop(sentinel)
                process.join()
                if process.exitcode != 0:
                    failed.append(job)
                ended(job, process.exitcode == 0)
    finally:
        _end([process for _, process in running.values()])
    return failed


def _end(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()


def _child(job: Job) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the command ends its processes
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    import torch

    torch.set_num_threads(1)  # the same order of sums on every machine
    job.call(*job.arguments)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "a job runs in a process of its own"
    connection.wait([parent.sentinel])
    os._exit(1)
