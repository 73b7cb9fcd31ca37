"""Shared by the adapters for reward functions of other libraries (verl.py, openrlhf.py)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from grao.dotted_path import import_path
from grao.rewards.reward_function import LogExtra, RewardCallable, default_name, is_async

ASYNC_CONCURRENCY = 16
"""Default of concurrent calls of an async function."""


@dataclass(frozen=True)
class FunctionAdapter:
    """Calls a function of another library by that library's convention.

    Raises:
        ValueError: `function` is not a function, or `concurrent` is below 1.
    """

    function: Any
    """Dotted path (`package.module:name`), file (`folder/file.py:name`), or the function itself."""
    concurrent: int | None = field(default=None, kw_only=True)
    """Concurrent calls. Default: 1 for a plain function, 16 for an async one."""

    library: ClassVar[str]

    def __post_init__(self) -> None:
        if self.concurrent is not None and self.concurrent < 1:
            raise ValueError(f"{self.library}: concurrent is {self.concurrent}. Give 1 or more, or null.")
        target = self.target
        if inspect.isclass(target) or not callable(target):
            kind = f"the class {target.__name__}" if inspect.isclass(target) else f"a {type(target).__name__}"
            raise ValueError(
                f"{self.library}: {self.function!r} is {kind}, not a function. Reward managers of {self.library} "
                "cannot be used here: name the function that scores a completion."
            )

    @cached_property
    def target(self) -> RewardCallable:
        """The function itself."""
        return import_path(self.function) if isinstance(self.function, str) else self.function

    @property
    def subject(self) -> str:
        """Library and function, to begin a message with."""
        return f"{self.library}: {default_name(self.target)!r}"

    async def call_each(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Return the results of `calls` of the function, in order; all calls have ended when one raises.

        A plain function runs in threads, as in verl and OpenRLHF, so that it does not block other rewards.
        """
        awaited = is_async(self.target)
        slots = asyncio.Semaphore(self.concurrent or (ASYNC_CONCURRENCY if awaited else 1))

        async def one(call: Callable[[], Any]) -> Any:
            async with slots:
                return await (call() if awaited else asyncio.to_thread(call))

        results = await asyncio.gather(*map(one, calls), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results


def log_extras(log_extra: LogExtra | None, extras: Iterable[Mapping[str, Any]]) -> None:
    """Log what a function returned for each completion beside its reward; None where a name is missing."""
    rows = list(extras)
    for name in dict.fromkeys(name for row in rows for name in row):
        if log_extra is not None:
            log_extra(name, [row.get(name) for row in rows])
