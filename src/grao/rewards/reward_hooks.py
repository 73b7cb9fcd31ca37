"""The hooks `log_metric` and `log_extra`, by which a reward function logs beside the values it returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HOOKS = ("log_metric", "log_extra")
"""The keyword arguments by which reward functions receive them, as in TRL."""

Extras = Mapping[tuple[int, int], Mapping[str, Any]]
"""(index of the group, index into `Group.members`) → column → value."""


@dataclass
class HookLog:
    """What a function logged in one call about its members; dropped if the call fails.

    Example, in a reward function::

        def correct(completions, answer, log_metric, log_extra, **columns):
            found = [extract(text) for text in completions]
            log_extra("found", found)
            log_metric("found_none", found.count(None) / len(found))
            return [float(f == a) for f, a in zip(found, answer)]
    """

    members: Sequence[int]
    """Indices into the `MemberTable`."""
    metrics: dict[str, list[float]] = field(default_factory=dict)
    """Name → the value of each call of the hook."""
    extras: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Member → column → value."""

    def log_metric(self, name: str, value: float) -> None:
        """Log a number under exactly this name, as in TRL: the mean over all calls, steps of a log line and processes.

        A name that the trainer logs too is averaged with the trainer's values.
        """
        self.metrics.setdefault(name, []).append(float(value))

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        """Add a column to the completions table, one value per completion of this call."""
        found = list(values)
        if len(found) != len(self.members):
            raise ValueError(
                f"log_extra({column!r}, …) was given {len(found)} values for {len(self.members)} completions. "
                "Give one value per completion, None for those without."
            )
        for member, value in zip(self.members, found, strict=True):
            self.extras.setdefault(member, {})[column] = value

    def update(self, other: HookLog) -> None:
        """Add the log of another call about other members of the same table."""
        for name, values in other.metrics.items():
            self.metrics.setdefault(name, []).extend(values)
        self.extras |= other.extras


def join_extras(by_function: Mapping[str, Extras]) -> dict[tuple[int, int], dict[str, Any]]:
    """Merge the extra columns of all functions. A column that several of them fill is named ``function/column``.

    >>> join_extras({"a": {(0, 0): {"why": "short", "n": 3}}, "b": {(0, 0): {"why": "rude"}}})
    {(0, 0): {'a/why': 'short', 'n': 3, 'b/why': 'rude'}}
    """
    columns = {name: {column for row in extras.values() for column in row} for name, extras in by_function.items()}
    times = Counter(column for filled in columns.values() for column in filled)
    joined: dict[tuple[int, int], dict[str, Any]] = {}
    for name, extras in by_function.items():
        for place, row in extras.items():
            own = {column if times[column] == 1 else f"{name}/{column}": value for column, value in row.items()}
            joined.setdefault(place, {}).update(own)
    return joined
