"""A side of a comparison that may fail of memory or of time: the failure is its result, and the other side goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil  # accelerate's

from side_by_side import start_side
from speed_results import Step

SPARED = 2 * 2**30
"""Bytes of the machine's free memory that no side may have."""
NO_MEMORY = ("can't allocate memory", "MemoryError", "Cannot allocate memory")
"""What torch's allocator, Python and the system say of an allocation that is refused."""


@dataclass(frozen=True)
class Limits:
    """Of one side."""

    seconds: float
    """A turn; the first one includes loading."""
    bytes: int
    """Of writable memory."""
    threads: int


@dataclass(frozen=True)
class Failure:
    """Why a side takes no more turns."""

    kind: str
    """`memory`, `time` or `error`."""
    said: str


class LimitedSide:
    """One side's process. After a failure it takes no more turns, and says why in `failure`."""

    def __init__(self, run: Callable[[Any, Any], None], work: Any, limits: Limits, log: Path) -> None:
        self.failure: Failure | None = None
        self._limits, self._log = limits, log
        limited = partial(within_memory, run, limits.bytes)
        self._pipe, self._process = start_side(limited, work, threads=limits.threads, log=log)

    def turn(self, message: Any) -> Step | None:
        """One step's report; None where the side failed, now or before."""
        if self.failure is not None:
            return None
        try:
            self._pipe.send(message)
            if self._pipe.poll(self._limits.seconds):
                step: Step = self._pipe.recv()
                return step
            self.failure = Failure("time", f"more than {self._limits.seconds:g} s a step")
        except (EOFError, OSError):
            self._process.join(30)
            self.failure = read_failure(self._process.exitcode, self._log.read_text(errors="replace"))
        self.close()
        return None

    def close(self) -> None:
        self._pipe.close()
        if self.failure is None:
            self._process.join(30)
        self._process.kill()
        self._process.join()


def read_failure(exitcode: int | None, log: str) -> Failure:
    """What a process died of, from its exit code and what it printed."""
    lines = log.splitlines() or [""]
    refused = [line.strip() for line in lines if any(words in line for words in NO_MEMORY)]
    if refused:
        return Failure("memory", refused[-1])
    if exitcode == -9:
        return Failure("memory", "killed by the system")
    return Failure("error", f"exit code {exitcode}: {lines[-1].strip()}")


def free_memory() -> int:
    """Bytes that a side may have: what is available now, less what is spared for the system and the other side."""
    return max(0, int(psutil.virtual_memory().available) - SPARED)


def within_memory(run: Callable[[Any, Any], None], limit: int, turns: Any, work: Any) -> None:
    """In the side's process: allocations beyond the limit are refused, and the system's first victim is this process.

    Without that, the system picks whom it kills when memory runs out, and it may pick what is being measured against.
    """
    import resource  # not on Windows

    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    score = Path("/proc/self/oom_score_adj")
    if score.is_file():
        score.write_text("1000")
    run(turns, work)
