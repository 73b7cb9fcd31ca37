"""Tell an endpoint that is down from single failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SUSPICIOUS = 8
"""Failed requests in a row, of any questions, after which requests are sent one at a time. At 30 % faults eight in a
row fail once in 15,000 times (0.3⁸), and only a short time is lost."""


@dataclass(frozen=True, slots=True)
class Outage:
    """What is known about an endpoint that is down."""

    last_fault: str
    faults: int
    """Failed requests since the last answer."""
    seconds: float
    """Since the first of them, excluding time in which nothing was asked."""
    questions: int
    """Questions in a row that used up their attempts."""


class Breaker:
    """Counts failures between two answers of one endpoint. Thread-safe.

    - suspicious: `SUSPICIOUS` requests failed in a row;
    - down: `requests` questions in a row used up their attempts, or several questions failed without any answer for
      `seconds`, or `gone` was called. It stays down until all questions in progress have ended; later questions (of a
      run that is resumed in the same process) start with clean counts.
    """

    def __init__(self, requests: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._requests, self._seconds, self._clock = requests, seconds, clock
        self._lock = threading.RLock()
        self._asking = 0
        self._idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self._faults = 0
        self._exhausted = 0
        self._failing_since = 0.0
        self._failing: set[str] = set()
        self._down: Outage | None = None

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Enclose all work for one question."""
        with self._lock:
            if self._asking == 0:
                self._failing_since += self._clock() - self._idle_since
            self._asking += 1
        try:
            yield
        finally:
            with self._lock:
                self._asking -= 1
                if self._asking == 0:
                    self._idle_since = self._clock()
                    if self._down is not None:
                        self._reset()

    @property
    def suspicious(self) -> bool:
        """Whether to send one request at a time."""
        return self._faults >= SUSPICIOUS

    @property
    def down(self) -> Outage | None:
        """Whether the endpoint is down."""
        return self._down

    def answered(self) -> None:
        """Record any valid answer: earlier failures no longer count."""
        with self._lock:
            if self._down is None:
                self._reset()

    def failed(self, question: str, fault: str, *, last: bool) -> None:
        """Record a failed request; `last`: the question has used up its attempts."""
        with self._lock:
            if self._faults == 0:
                self._failing_since = self._clock()
            self._faults += 1
            self._exhausted += last
            self._failing.add(question)
            passed = self._clock() - self._failing_since
            if self._exhausted >= self._requests or (len(self._failing) > 1 and passed >= self._seconds):
                self.gone(fault)

    def gone(self, fault: str) -> None:
        """Record that the endpoint is down, from any evidence."""
        with self._lock:
            passed = self._clock() - self._failing_since
            self._down = self._down or Outage(fault, self._faults, passed, self._exhausted)
