"""The reward protocol: what a reward function receives and returns, and the settings that go with it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar, get_args

RewardCallable = Callable[..., Any]
"""``f(prompts, completions, completion_ids, **columns) -> list[float | None]``, called by keyword, sync or async: the
signature of TRL's reward functions. None = not applicable to this completion: unscored."""

Completion = str | Sequence[dict[str, Any]]
"""Text, or ``[{"role": "assistant", "content": text}]`` if the prompt is a conversation."""

LogMetric = Callable[[str, float], None]
LogExtra = Callable[[str, list[Any]], None]
"""TRL's hooks: log a number, or add a column (one value per completion) to the completions table."""

OnError = Literal["raise", "unscored"]
"""What to do when a function raises, times out or returns NaN or ±∞: stop the run, or leave the affected members
unscored, counted and logged. Never a reward of 0: an outage must not train the policy."""

F = TypeVar("F", bound=RewardCallable)


@dataclass(frozen=True)
class RewardFunction:
    """A reward function and how it enters the sum.

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
    """Seconds per call; None = no limit. A sync function with a timeout runs in its own thread, which Python cannot
    stop: a call that hangs keeps running. An async function is cancelled at its next await."""
    comparison: bool = False
    """The reward compares a completion with the reference answer (the column `reference`). The reference is then not
    sent as a completion: R(y, y) = 0 by definition."""

    def __post_init__(self) -> None:
        if not callable(self.call):
            raise ValueError(f"reward {self.name!r} is a {type(self.call).__name__}. Give something callable.")
        if not self.name:
            raise ValueError("a reward function has an empty name. Its metrics need one: set `name`.")
        if not math.isfinite(self.weight):
            raise ValueError(f"reward {self.name!r} has weight {self.weight}. Give a finite number.")
        if self.on_error not in get_args(OnError):
            raise ValueError(f"reward {self.name!r} has on_error {self.on_error!r}. Choose 'raise' or 'unscored'.")
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"reward {self.name!r} has timeout {self.timeout}. Give a number of seconds, or None.")

    @property
    def is_async(self) -> bool:
        """Whether a call returns an awaitable."""
        return is_async(self.call)


def completion_text(completion: Completion) -> str:
    """Return the text of a completion; for a conversation, the content of its last turn.

    >>> completion_text("7"), completion_text([{"role": "assistant", "content": "7"}])
    ('7', '7')
    """
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def comparison(call: F) -> F:
    """Declare that a reward function compares with the reference answer (see `RewardFunction.comparison`).

    Example::

        @comparison
        def wins(completions, reference, **columns): ...
    """
    call.compares_with_reference = True  # type: ignore[attr-defined]
    return call


def is_async(call: RewardCallable) -> bool:
    """Return whether `call` is an async function or an object with an async ``__call__``."""
    call = innermost(call)
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004


def innermost(call: RewardCallable) -> RewardCallable:
    """Return the callable inside any `functools.partial`."""
    while isinstance(call, partial):
        call = call.func
    return call


def default_name(call: RewardCallable) -> str:
    """Return the function's name, else the class's name, as TRL names reward functions."""
    call = innermost(call)
    return str(getattr(call, "__name__", type(call).__name__))


def keyword_parameters(call: RewardCallable, owner: str) -> tuple[list[str], list[str], bool]:
    """Return the keyword names that `call` accepts, those without a default, and whether it takes ``**kwargs``.

    Raises:
        ValueError: `call` has no readable signature, or positional-only parameters. `owner` names it in the message.
    """
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{owner} has no readable signature. Wrap it in a Python function.") from error
    if unnamed := [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]:
        raise ValueError(f"{owner} takes {unnamed} by position only. Reward functions are called by keyword.")
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = [p.name for p in named if p.default is p.empty]
    return [p.name for p in named], required, any(p.kind is p.VAR_KEYWORD for p in parameters)
