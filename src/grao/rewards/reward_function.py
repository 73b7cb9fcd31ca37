"""A reward function with the choices that go with it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar, get_args

RewardCallable = Callable[..., Any]
"""``f(prompts, completions, completion_ids, **columns) -> list[float | None]``, by keyword, sync or async: the
signature of TRL's reward functions. None = not applicable to this completion: unscored."""

OnError = Literal["raise", "unscored"]
"""What follows when a function raises, runs out of time or returns NaN or ±∞: stop the run, or leave the members
concerned unscored, counted and logged. Never a reward of 0: an outage must not train the policy."""

F = TypeVar("F", bound=RewardCallable)


@dataclass(frozen=True)
class RewardFunction:
    """One reward and how it enters the sum.

    Example::

        RewardFunction(correct, name="correct", weight=1.0, on_error="unscored", timeout=30.0)
    """

    call: RewardCallable
    name: str
    """Unique in a run: metrics are ``rewards/{name}/mean`` and so on."""
    weight: float = 1.0
    """A member's reward is Σ weight · value over the functions that scored it."""
    on_error: OnError = "raise"
    timeout: float | None = None
    """Seconds that one call may take; None = no limit. A sync function then runs in a thread of its own, which
    Python cannot end: one that hangs goes on beside the run. An async function is cancelled where it awaits; one
    that computes without awaiting holds up every other async function, whatever its timeout."""
    comparison: bool = False
    """The reward compares a completion with the reference answer (the column `reference`). The reference is then not
    sent as a completion: R(y, y) = 0 by definition."""

    def __post_init__(self) -> None:
        if not callable(self.call):
            raise ValueError(f"reward {self.name!r} is a {type(self.call).__name__}, which cannot be called")
        if not self.name:
            raise ValueError("a reward function needs a name: its metrics are named after it")
        if not math.isfinite(self.weight):
            raise ValueError(f"reward {self.name!r} has weight {self.weight}; a weight is a finite number")
        if self.on_error not in get_args(OnError):
            raise ValueError(f"reward {self.name!r} has on_error {self.on_error!r}; choose 'raise' or 'unscored'")
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"reward {self.name!r} has timeout {self.timeout}; it is a number of seconds, or None")

    @property
    def is_async(self) -> bool:
        """Whether a call returns an awaitable: an async function, or an object with an async ``__call__``."""
        return is_async(self.call)


def comparison(call: F) -> F:
    """Declare that a reward function compares with the reference answer (see `RewardFunction.comparison`).

    Example::

        @comparison
        def wins(completions, reference, **columns): ...
    """
    call.compares_with_reference = True  # type: ignore[attr-defined]
    return call


def is_async(call: RewardCallable) -> bool:
    """Whether a call returns an awaitable: an async function, or an object with an async ``__call__``."""
    call = innermost(call)
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004


def innermost(call: RewardCallable) -> RewardCallable:
    """The callable inside any `functools.partial`."""
    while isinstance(call, partial):
        call = call.func
    return call


def default_name(call: RewardCallable) -> str:
    """The function's name, else the class's name: what TRL names a reward function by."""
    call = innermost(call)
    return str(getattr(call, "__name__", type(call).__name__))


def refuse_repeated_names(functions: Sequence[RewardFunction]) -> None:
    """Two functions of one name would write to the same metric and the same entry of `Member.rewards`."""
    names = [function.name for function in functions]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two reward functions are named {repeated[0]!r}; give one of them another `name`")
