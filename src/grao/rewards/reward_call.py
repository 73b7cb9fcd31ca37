"""Calling a reward function: directly, in a thread with a time limit, or on an event loop."""

from __future__ import annotations

import asyncio
import threading
import weakref
from concurrent.futures import Future
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from grao.rewards.errors import CallTimeoutError
from grao.rewards.reward_function import RewardFunction


@dataclass(frozen=True, slots=True)
class CallResult:
    """What a call returned, or the error that it raised."""

    value: Any
    error: Exception | None
    seconds: float


class Caller:
    """Starts calls. Async functions share one event loop for the lifetime of this object.

    HTTP clients tie their connections to the loop they first run on, so the loop is kept between calls. It runs in
    its own thread, so that callers that already run a loop (notebooks) work too.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, function: RewardFunction, arguments: dict[str, Any]) -> Future[CallResult]:
        """Start one call. An async one runs in the background; a sync one has ended on return."""
        if function.is_async:
            return asyncio.run_coroutine_threadsafe(_run_async(function, arguments), self._running_loop())
        done: Future[CallResult] = Future()
        done.set_result((_run if function.timeout is None else _run_in_thread)(function, arguments))
        return done

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="grao-rewards", daemon=True).start()
            weakref.finalize(self, loop.call_soon_threadsafe, loop.stop)
            self._loop = loop
        return self._loop


async def _run_async(function: RewardFunction, arguments: dict[str, Any]) -> CallResult:
    started, value, error = perf_counter(), None, None
    limit = asyncio.timeout(function.timeout)
    try:
        async with limit:
            value = await function.call(**arguments)
    except Exception as raised:  # noqa: BLE001 - handled in function_scoring.py, which names the member
        late = limit.expired() and isinstance(raised, TimeoutError)  # otherwise a TimeoutError is the function's own
        error = _timeout(function) if late else raised
    return CallResult(value, error, perf_counter() - started)


def _run(function: RewardFunction, arguments: dict[str, Any]) -> CallResult:
    started, value, error = perf_counter(), None, None
    try:
        value = function.call(**arguments)
    except Exception as raised:  # noqa: BLE001 - as above
        error = raised
    return CallResult(value, error, perf_counter() - started)


def _run_in_thread(function: RewardFunction, arguments: dict[str, Any]) -> CallResult:
    """Run in a daemon thread. An executor's thread would block the interpreter's exit if the call hangs."""
    assert function.timeout is not None
    work: Future[CallResult] = Future()

    def run() -> None:
        work.set_result(_run(function, arguments))

    threading.Thread(target=run, name=function.name, daemon=True).start()
    try:
        return work.result(function.timeout)
    except TimeoutError:
        return CallResult(None, _timeout(function), function.timeout)


def _timeout(function: RewardFunction) -> CallTimeoutError:
    return CallTimeoutError(f"reward {function.name!r} took longer than its timeout of {function.timeout:g} seconds")
