"""Whether an endpoint is there at all: single failures are borne, an outage stops the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SUSPICIOUS = 8
"""Failed requests in a row, of whichever questions, after which the endpoint is probed by one request at a time. At
30 % faults the next eight all fail once in 15,000 times (0.3⁸), and then a short while is lost."""


@dataclass(frozen=True, slots=True)
class Outage:
    """What is known about an endpoint that is down."""

    last_fault: str
    faults: int
    """Requests that failed since the last answer."""
    seconds: float
    """Since the first of them, time in which nothing was asked not counted."""
    questions: int
    """Questions in a row that used up their attempts."""


class Breaker:
    """Counts what fails between two answers; of one endpoint, used from any thread.

    - suspicious: `SUSPICIOUS` requests failed in a row;
    - down: `requests` questions in a row used up their attempts, or several questions have failed and nothing was
      answered for `seconds`, or whoever asks found it `gone`. It stays down until everybody who is asking has heard of
      it; who asks later (a run that is resumed in the same process) starts afresh.
    """

    def __init__(self, requests: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._requests, self._seconds, self._clock = requests, seconds, clock
        self._lock = threading.Lock()
        self._asking = 0
        self._idle_since = 0.0
        self._forget()

    def _forget(self) -> None:
        self._faults = 0
        self._exhausted = 0
        self._failing_since = 0.0
        self._failing: set[str] = set()
        self._down: Outage | None = None

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Around everything that is done for a question."""
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
                        self._forget()

    @property
    def suspicious(self) -> bool:
        """Whether to send one request at a time."""
        return self._faults >= SUSPICIOUS

    @property
    def down(self) -> Outage | None:
        """Whether to give up altogether."""
        return self._down

    def answered(self) -> None:
        """The endpoint gave an answer of any sense: whatever failed before is forgotten."""
        with self._lock:
            if self._down is None:
                self._forget()

    def failed(self, question: str, fault: str, *, last: bool) -> None:
        """A request failed; `last`: the question has used up its attempts."""
        with self._lock:
            if self._faults == 0:
                self._failing_since = self._clock()
            self._faults += 1
            self._exhausted += last
            self._failing.add(question)
            passed = self._clock() - self._failing_since
            if self._exhausted >= self._requests or (len(self._failing) > 1 and passed >= self._seconds):
                self._end(fault)

    def gone(self, fault: str) -> None:
        """It was found to answer nothing at all, whatever is asked."""
        with self._lock:
            self._end(fault)

    def _end(self, fault: str) -> None:
        passed = self._clock() - self._failing_since
        self._down = self._down or Outage(fault, self._faults, passed, self._exhausted)
