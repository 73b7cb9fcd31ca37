"""One reward function with the members it is to score: the call, and what follows when it fails."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from grao.groups import Group
from grao.rewards.errors import CallTimeoutError, RewardError, RewardReturnError, StopError
from grao.rewards.returned import read_returned
from grao.rewards.reward_arguments import Arguments, MemberTable
from grao.rewards.reward_call import Call, Caller
from grao.rewards.reward_function import RewardFunction
from grao.rewards.reward_hooks import Extras, Notes
from grao.rewards.reward_report import FunctionReport

logger = logging.getLogger(__name__)

ISOLATION_CALLS = 64
"""After a call with all members raised: how many members are tried alone to name the first that raises, and how many
must fail in a row from the first on before a function with `on_error="unscored"` is taken to be down altogether."""


Scores = dict[tuple[int, int], float | None]
"""(index of the group, index into `Group.members`) → what a function said."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: a value or None for each member of its table."""

    values: list[float | None]
    errors: int
    seconds: float
    notes: Notes = field(default_factory=lambda: Notes(()))


@dataclass(frozen=True, slots=True)
class Started:
    """A call on its way, and what its function notes meanwhile."""

    call: Call
    notes: Notes


@dataclass(frozen=True, slots=True)
class Job:
    """One function with the members it is to score."""

    function: RewardFunction
    table: MemberTable
    arguments: Arguments
    caller: Caller
    groups: Sequence[Group]

    def start(self, only: int | None = None) -> Started:
        """Call the function with all members, or with one of them."""
        notes = Notes(range(len(self.table)) if only is None else [only])
        arguments = self.arguments.all() if only is None else self.arguments.one(only)
        arguments |= {name: hook for name, hook in notes.hooks.items() if name in self.arguments.constants}
        return Started(self.caller.start(self.function, arguments), notes)

    def outcome(self, running: Started | None) -> Outcome:
        """Wait for the call (start it if nobody has) and deal with a failure as `on_error` says."""
        if not len(self.table):
            return Outcome([], 0, 0.0)
        started = running or self.start()
        call, error = started.call, started.call.error()
        if error is None:
            values = read_returned(call.result(), self.function.name, self.table)
            return Outcome(*self._finite(values), call.seconds, started.notes)
        if isinstance(error, StopError):  # whatever `on_error` says: it would be the same for every member
            raise error
        if self.function.on_error == "raise":
            self._raise(error)
        if isinstance(error, CallTimeoutError):
            self._warn(len(self.table), error, "every member of the call")
            return Outcome([None] * len(self.table), len(self.table), call.seconds)
        return self._isolate(call.seconds)

    def _raise(self, error: Exception) -> NoReturn:
        """Stop the run, naming the first member on which the function raises alone."""
        name, n = self.function.name, len(self.table)
        if isinstance(error, CallTimeoutError):
            raise RewardError(
                f"{error}, for {n} completions in one call, the first of which was {self.table.describe(0)}. "
                "Raise `timeout`, or set on_error: unscored"
            ) from error
        tried = range(min(n, ISOLATION_CALLS))
        for index in tried:
            found = error if n == 1 else self.start(only=index).call.error()
            if isinstance(found, StopError):
                raise found
            if found is not None:
                raise RewardError(
                    f"reward {name!r} raised {_named(found)} on {self.table.describe(index)}. "
                    "Mend the function, or set on_error: unscored"
                ) from found
        raise RewardError(
            f"reward {name!r} raised {_named(error)} when called with {n} completions (the first was "
            f"{self.table.describe(0)}), but on none of the first {len(tried)} of them alone. "
            "Mend the function, or set on_error: unscored"
        ) from error

    def _isolate(self, seconds: float) -> Outcome:
        """Call the function with each member alone, so that one bad member leaves the others their rewards."""
        values: list[float | None] = []
        failures: list[tuple[int, Exception]] = []
        n, notes = len(self.table), Notes(())
        for begin in range(0, n, ISOLATION_CALLS):
            calls = [(i, self.start(only=i)) for i in range(begin, min(n, begin + ISOLATION_CALLS))]
            for index, started in calls:
                if (error := started.call.error()) is not None:
                    if isinstance(error, StopError):
                        raise error
                    failures.append((index, error))
                    values.append(None)
                else:
                    values += read_returned(started.call.result(), self.function.name, self.table, only=index)
                    notes.take(started.notes)
                seconds += started.call.seconds
            if len(failures) == begin + len(calls):  # nothing has worked so far: it is down
                break
        errors = len(failures) + n - len(values)
        if failures:
            index, error = failures[0]
            self._warn(errors, error, self.table.describe(index))
        values, infinite = self._finite(values + [None] * (n - len(values)))
        return Outcome(values, errors + infinite, seconds, notes)

    def _finite(self, values: list[float | None]) -> tuple[list[float | None], int]:
        """The values with NaN and ±∞ refused or turned into None, and how many there were."""
        bad = [i for i, value in enumerate(values) if value is not None and not math.isfinite(value)]
        if not bad:
            return values, 0
        found = RewardReturnError(
            f"reward {self.function.name!r} returned {values[bad[0]]} for {self.table.describe(bad[0])}; "
            "a finite number was needed, or None where the reward does not apply. "
            "Mend the function, or set on_error: unscored"
        )
        if self.function.on_error == "raise":
            raise found
        self._warn(len(bad), found, self.table.describe(bad[0]))
        return [None if i in set(bad) else value for i, value in enumerate(values)], len(bad)

    def _warn(self, errors: int, error: Exception, where: str) -> None:
        logger.warning(
            "reward %r left %d of %d members unscored: %s on %s",
            *(self.function.name, errors, len(self.table), _named(error), where),
        )

    def by_place(self, outcome: Outcome) -> Scores:
        """The values by where their members are; for a comparison R(y, y) = 0 of each reference as well."""
        scores = {(p.group, p.member): v for p, v in zip(self.table.places, outcome.values, strict=True)}
        if self.function.comparison:
            scores |= {(g, len(group.samples)): 0.0 for g, group in enumerate(self.groups)}
        return scores

    def extras(self, outcome: Outcome) -> Extras:
        """What the function noted of each member, by where the members are."""
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for column, by_index in outcome.notes.extras.items():
            for index, value in by_index.items():
                place = self.table.places[index]
                found.setdefault((place.group, place.member), {})[column] = value
        return found

    def report(self, outcome: Outcome) -> FunctionReport:
        """The raw values by role."""
        scores, groups = self.by_place(outcome), list(enumerate(self.groups))
        samples = [scores[g, i] for g, group in groups for i in range(len(group.samples))]
        references = [scores[g, len(group.samples)] for g, group in groups if group.reference is not None]
        places = zip(self.table.places, outcome.values, strict=True)
        return FunctionReport(
            name=self.function.name,
            samples=tuple(samples),
            references=tuple(references),
            rejected=tuple(value for place, value in places if place.role == "rejected answer"),
            errors=outcome.errors,
            seconds=outcome.seconds,
            logged={name: tuple(values) for name, values in outcome.notes.metrics.items()},
        )


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
