"""What the adapters for other libraries' reward functions share: finding, calling item by item, handing extras on."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from grao.dotted_path import import_path
from grao.rewards.reward_function import RewardCallable, default_name, is_async

LogExtra = Callable[[str, list[Any]], None]
"""`log_extra(column, values)`: one value a completion, for the completions table. TRL's, as is `log_metric`."""
LogMetric = Callable[[str, float], None]

AT_ONCE = 16
"""Calls of an async function that run beside each other, unless told otherwise."""


def find_function(function: str | RewardCallable, library: str) -> RewardCallable:
    """The function that a dotted path (`package.module:name`, `folder/file.py:name`) names, or the function itself.

    Raises:
        ValueError: there is none, or it is a class: those libraries' reward managers read their own batches.
    """
    found = import_path(function) if isinstance(function, str) else function
    if inspect.isclass(found) or not callable(found):
        kind = f"the class {found.__name__}" if inspect.isclass(found) else f"a {type(found).__name__}"
        raise ValueError(
            f"{library}: {function!r} is {kind}; a function is needed. A reward manager (of {library}'s own batches) "
            "cannot be used here: name the function that it calls for a completion"
        )
    return found


def parameters_of(function: RewardCallable, library: str) -> tuple[set[str], set[str], bool]:
    """Names it takes by keyword, those of them it cannot do without, and whether it takes any other name too."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{library}: the arguments of {default_name(function)!r} cannot be read; wrap it in a Python function"
        ) from error
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = {p.name for p in named if p.default is p.empty}
    return {p.name for p in named}, required, any(p.kind is p.VAR_KEYWORD for p in parameters)


async def call_each(function: RewardCallable, calls: Sequence[Callable[[], Any]], concurrent: int | None) -> list[Any]:
    """The results of `calls`, which call `function`, in their order; all have ended when one raises.

    At most `concurrent` run beside each other: None is 16 of an async function and 1 of a plain one. Those run in
    threads, as verl and OpenRLHF run them, so that they hold up nobody else's.
    """
    awaited = is_async(function)
    free = asyncio.Semaphore(concurrent or (AT_ONCE if awaited else 1))

    async def one(call: Callable[[], Any]) -> Any:
        async with free:
            return await (call() if awaited else asyncio.to_thread(call))

    results = await asyncio.gather(*map(one, calls), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def check_concurrent(concurrent: int | None, library: str) -> None:
    """Raise ValueError unless at least one call may run."""
    if concurrent is not None and concurrent < 1:
        raise ValueError(f"{library}: concurrent is {concurrent}; give 1 or more, or null")


def log_extras(log_extra: LogExtra | None, extras: Iterable[Mapping[str, Any]]) -> None:
    """Hand on what a function said of each completion besides its reward; None where it said nothing of a name."""
    said = list(extras)
    for name in dict.fromkeys(name for one in said for name in one):
        if log_extra is not None:
            log_extra(name, [one.get(name) for one in said])
