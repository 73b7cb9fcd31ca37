"""Calling a reward function: directly, in a thread with a time limit, or on an event loop."""

from __future__ import annotations

import asyncio
import threading
import weakref
from concurrent.futures import Future
from time import perf_counter
from typing import Any

from grao.rewards.errors import CallTimeoutError
from grao.rewards.reward_function import RewardFunction


class Call:
    """A call that has started; `error` and `result` wait for its end."""

    def __init__(self, future: Future[Any], started: float) -> None:
        self._future = future
        self._started = started
        self._ended: float | None = None
        future.add_done_callback(self._stamp)

    def _stamp(self, _: Future[Any]) -> None:
        self._ended = perf_counter()

    def error(self) -> Exception | None:
        """Return what the function raised. Interrupts are not errors of the function: they are raised."""
        error = self._future.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        return error

    def result(self) -> Any:
        """Return what the function returned."""
        return self._future.result()

    def cancel(self) -> None:
        """Cancel the call if it has not ended."""
        self._future.cancel()

    @property
    def seconds(self) -> float:
        """From start to end."""
        return (self._ended if self._ended is not None else perf_counter()) - self._started


class Caller:
    """Starts calls. Async functions share one event loop for the lifetime of this object.

    HTTP clients tie their connections to the loop they first run on, so the loop is kept between calls. It runs in
    its own thread, so that callers that already run a loop (notebooks) work too.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, function: RewardFunction, arguments: dict[str, Any]) -> Call:
        """Start one call. An async one runs in the background; a sync one has ended on return."""
        started = perf_counter()
        if function.is_async:
            future = asyncio.run_coroutine_threadsafe(_await(function, arguments), self._running_loop())
        elif function.timeout is None:
            future = _run(function, arguments, Future())
        else:
            future = _run_in_thread(function, arguments, function.timeout)
        return Call(future, started)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="grao-rewards", daemon=True).start()
            weakref.finalize(self, loop.call_soon_threadsafe, loop.stop)
            self._loop = loop
        return self._loop


async def _await(function: RewardFunction, arguments: dict[str, Any]) -> Any:
    limit = asyncio.timeout(function.timeout)
    try:
        async with limit:
            return await function.call(**arguments)
    except TimeoutError as error:
        if limit.expired():  # otherwise it is the function's own TimeoutError
            raise _timeout(function) from error
        raise


def _run(function: RewardFunction, arguments: dict[str, Any], future: Future[Any]) -> Future[Any]:
    try:
        future.set_result(function.call(**arguments))
    except Exception as error:  # noqa: BLE001 - kept in the future; function_scoring.py names the member
        future.set_exception(error)
    return future


def _run_in_thread(function: RewardFunction, arguments: dict[str, Any], seconds: float) -> Future[Any]:
    """Run in a daemon thread. An executor's thread would block the interpreter's exit if the call hangs."""
    work: Future[Any] = Future()
    threading.Thread(target=_run, args=(function, arguments, work), name=function.name, daemon=True).start()
    try:
        work.exception(seconds)
    except TimeoutError:
        late: Future[Any] = Future()  # `work` stays with its thread, whose result no longer counts
        late.set_exception(_timeout(function))
        return late
    return work


def _timeout(function: RewardFunction) -> CallTimeoutError:
    return CallTimeoutError(f"reward {function.name!r} took longer than its timeout of {function.timeout:g} seconds")
