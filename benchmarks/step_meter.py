"""What one step costs: seconds, by parts that exclude each other, seconds of CPU, and the peak of resident memory.

Nothing but the standard library: a side may run under another Python than this project's.
"""

from __future__ import annotations

import functools
import gc
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REST = "rest"


class PartClock:
    """Seconds by part. A part that begins within another stops the other's clock, so the parts sum to the whole."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.parts: dict[str, float] = {}
        self._open: list[str] = []
        self._mark = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def stop(self) -> dict[str, float]:
        self._charge()
        return dict(self.parts)

    def time(self, owner: Any, method: str, name: str) -> None:
        """Charge every call of this object's method to a part."""
        plain = getattr(owner, method)

        @functools.wraps(plain)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return plain(*args, **kwargs)

        setattr(owner, method, timed)

    @property
    def current(self) -> str:
        """The part whose time it is."""
        return self._open[-1] if self._open else REST

    def _charge(self) -> None:
        now = time.perf_counter()
        self.parts[self.current] = self.parts.get(self.current, 0.0) + now - self._mark
        self._mark = now


class StepMeter:
    """The process's side of a comparison: waits for its turn, measures one step, and reports it."""

    def __init__(self, turns: Any) -> None:
        self.clock = PartClock()
        self.turn: dict[str, Any] = {}
        self._turns = turns
        self._loaded: int | None = None
        self._cpu_start = 0.0
        self._cpu_end: float | None = None

    def wait(self) -> bool:
        """Until it is this side's turn; False where there is none any more."""
        if self._loaded is None:
            gc.collect()
            self._loaded = memory("VmRSS")
        turn = self._turns.recv()
        if turn is None:
            return False
        self.turn = turn
        forget_peak()
        self._cpu_start = time.process_time()
        self.clock.start()
        return True

    def report(self, prompt_tokens: list[int], completion_tokens: list[list[int]]) -> None:
        """The step is over: what it cost, and how many tokens each prompt and each of its completions had."""
        parts = self.clock.stop()
        cpu = time.process_time()
        peak = memory("VmHWM")
        self._turns.send(
            {
                "seconds": sum(parts.values()),
                "parts": parts,
                "cpu_seconds": cpu - self._cpu_start,
                "waiting_cpu_seconds": None if self._cpu_end is None else self._cpu_start - self._cpu_end,
                "peak_bytes": None if peak is None or self._loaded is None else peak - self._loaded,
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
            }
        )
        self._cpu_end = cpu


def memory(field: str) -> int | None:
    """Bytes, as Linux counts them; None elsewhere. VmRSS is resident now, VmHWM was so at most."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    found = re.search(rf"{field}:\s+(\d+) kB", status.read_text())
    return None if found is None else 1024 * int(found[1])


def forget_peak() -> None:
    """From now on VmHWM is the peak of what follows."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")
