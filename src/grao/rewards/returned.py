"""What a reward function returned, as numbers; anything else is refused by name, row and completion."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

from grao.rewards.errors import RewardReturnError
from grao.rewards.reward_arguments import MemberTable


def read_returned(returned: Any, name: str, table: MemberTable, only: int | None = None) -> list[float | None]:
    """One float or None for each member of `table` (or for its member `only`), NaN and ±∞ still among them.

    A bool counts as 0 or 1; numpy and torch scalars, arrays and tensors of one axis are read as their numbers.

    Raises:
        RewardReturnError: not a list, not of the right length, or an entry that is no number.
    """
    members = range(len(table)) if only is None else [only]
    if inspect.iscoroutine(returned):
        returned.close()
        raise RewardReturnError(
            f"reward {name!r} is a plain function that returned a coroutine; declare it with `async def`"
        )
    if isinstance(returned, str | bytes | dict) or not isinstance(returned, Iterable):
        raise RewardReturnError(
            f"reward {name!r} returned a {type(returned).__name__}; "
            f"a list of {len(members)} numbers or None was needed, one for each completion"
        )
    values = list(returned)
    if len(values) != len(members):
        raise RewardReturnError(
            f"reward {name!r} returned {len(values)} values for {len(members)} completions; "
            f"one each is needed, None where it does not apply. The first was {table.describe(members[0])}"
        )
    return [_number(value, name, table, index) for value, index in zip(values, members, strict=True)]


def _number(value: Any, name: str, table: MemberTable, index: int) -> float | None:
    if value is None:
        return None
    if hasattr(value, "item") and getattr(value, "size", None) != 0:
        value = _scalar(value)
    if isinstance(value, Real):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    raise RewardReturnError(
        f"reward {name!r} returned {_shown(value)} of type {type(value).__name__} for {table.describe(index)}; "
        "a number or None was needed"
    )


def _scalar(value: Any) -> Any:
    """The Python number in a numpy or torch scalar; the value itself where it holds several."""
    try:
        return value.item()
    except (ValueError, RuntimeError):
        return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
