"""Score members by one reward function: the call, reading what it returned, and handling its failures."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from typing import Any, NoReturn

from grao.groups import Group
from grao.rewards.errors import CallTimeoutError, RewardError, RewardReturnError, StopError
from grao.rewards.reward_arguments import MemberTable
from grao.rewards.reward_call import Caller, CallResult
from grao.rewards.reward_function import RewardFunction
from grao.rewards.reward_hooks import HOOKS, Extras, HookLog
from grao.rewards.reward_report import FunctionReport

logger = logging.getLogger(__name__)

ISOLATION_CALLS = 64
"""After a call with all members raised: how many members are tried one by one to name the first that raises, and how
many must fail in a row from the first on before a function with `on_error="unscored"` counts as down."""

Scores = dict[tuple[int, int], float | None]
"""(index of the group, index into `Group.members`) → value."""


@dataclass(frozen=True, slots=True)
class PendingCall:
    """A started call and what its function logs meanwhile."""

    future: Future[CallResult]
    log: HookLog


@dataclass(frozen=True, slots=True)
class FunctionOutcome:
    """A value or None for each member of the table, and what to log."""

    scoring: FunctionScoring
    values: list[float | None]
    errors: int
    seconds: float
    log: HookLog

    @property
    def scores(self) -> Scores:
        """The values by place; for a comparison also R(y, y) = 0 of each reference."""
        scoring = self.scoring
        scores = {(p.group, p.member): v for p, v in zip(scoring.table.places, self.values, strict=True)}
        if scoring.function.comparison:
            scores |= {(g, len(group.samples)): 0.0 for g, group in enumerate(scoring.groups)}
        return scores

    @property
    def extras(self) -> Extras:
        """The logged columns by place."""
        places = self.scoring.table.places
        return {(places[i].group, places[i].member): row for i, row in self.log.extras.items()}

    @property
    def report(self) -> FunctionReport:
        """The unweighted values by role."""
        scores, groups = self.scores, list(enumerate(self.scoring.groups))
        places = zip(self.scoring.table.places, self.values, strict=True)
        return FunctionReport(
            name=self.scoring.function.name,
            samples=tuple(scores[g, i] for g, group in groups for i in range(len(group.samples))),
            references=tuple(scores[g, len(group.samples)] for g, group in groups if group.reference is not None),
            rejected=tuple(value for place, value in places if place.role == "rejected answer"),
            errors=self.errors,
            seconds=self.seconds,
            logged={name: tuple(values) for name, values in self.log.metrics.items()},
        )


@dataclass(frozen=True, slots=True)
class FunctionScoring:
    """One function and the members it is to score."""

    function: RewardFunction
    table: MemberTable
    names: Set[str]
    """The arguments that the function accepts."""
    context: Mapping[str, Any]
    """Arguments that belong to the call, not to a member."""
    caller: Caller
    groups: Sequence[Group]

    def start(self, members: Sequence[int] | None = None) -> PendingCall:
        """Call the function with these members (default: all)."""
        members = range(len(self.table)) if members is None else members
        log = HookLog(members)
        lists = {name: [values[i] for i in members] for name, values in self.table.lists.items()}
        arguments = {**self.context, **{hook: getattr(log, hook) for hook in HOOKS}, **lists}
        arguments = {name: value for name, value in arguments.items() if name in self.names}
        return PendingCall(self.caller.start(self.function, arguments), log)

    def finish(self, pending: PendingCall | None) -> FunctionOutcome:
        """Wait for the call (None: start it now) and handle a failure as `on_error` says; a `StopError` is raised."""
        if not len(self.table):
            return FunctionOutcome(self, [], 0, 0.0, HookLog(()))
        pending = pending or self.start()
        call = pending.future.result()
        if (error := call.error) is None:
            values, infinite = self._finite(read_returned(call.value, self.function.name, self.table))
            return FunctionOutcome(self, values, infinite, call.seconds, pending.log)
        if isinstance(error, StopError):
            raise error
        if self.function.on_error == "raise":
            self._raise(error)
        if isinstance(error, CallTimeoutError):
            self._warn(len(self.table), error, "every member of the call")
            return FunctionOutcome(self, [None] * len(self.table), len(self.table), call.seconds, HookLog(()))
        return self._isolate(call.seconds)

    def _raise(self, error: Exception) -> NoReturn:
        """Stop the run, naming the first member on which the function raises alone."""
        name, n = self.function.name, len(self.table)
        if isinstance(error, CallTimeoutError):
            raise RewardError(
                f"{error}, in a call with {n} completions (the first was {self.table.describe(0)}). "
                "Raise `timeout`, or set on_error: unscored."
            ) from error
        tried = range(min(n, ISOLATION_CALLS))
        for index in tried:
            found = error if n == 1 else self.start([index]).future.result().error
            if isinstance(found, StopError):
                raise found
            if found is not None:
                raise RewardError(
                    f"reward {name!r} raised {_named(found)} on {self.table.describe(index)}. "
                    "Fix the function, or set on_error: unscored."
                ) from found
        raise RewardError(
            f"reward {name!r} raised {_named(error)} when called with {n} completions (the first was "
            f"{self.table.describe(0)}), but on none of the first {len(tried)} of them alone. "
            "Fix the function, or set on_error: unscored."
        ) from error

    def _isolate(self, seconds: float) -> FunctionOutcome:
        """Call the function with each member alone, so that one bad member does not cost the others their rewards."""
        values: list[float | None] = []
        failures: list[tuple[int, Exception]] = []
        n, log = len(self.table), HookLog(())
        for begin in range(0, n, ISOLATION_CALLS):
            calls = [(i, self.start([i])) for i in range(begin, min(n, begin + ISOLATION_CALLS))]
            for index, pending in calls:
                call = pending.future.result()
                if (error := call.error) is not None:
                    if isinstance(error, StopError):
                        raise error
                    failures.append((index, error))
                    values.append(None)
                else:
                    values += read_returned(call.value, self.function.name, self.table, only=index)
                    log.update(pending.log)
                seconds += call.seconds
            if len(failures) == begin + len(calls):  # nothing has worked so far: the function is down
                break
        errors = len(failures) + n - len(values)
        if failures:
            index, error = failures[0]
            self._warn(errors, error, self.table.describe(index))
        values, infinite = self._finite(values + [None] * (n - len(values)))
        return FunctionOutcome(self, values, errors + infinite, seconds, log)

    def _finite(self, values: list[float | None]) -> tuple[list[float | None], int]:
        """Refuse NaN and ±∞, or replace them by None and count them, as `on_error` says."""
        bad = [i for i, value in enumerate(values) if value is not None and not math.isfinite(value)]
        if not bad:
            return values, 0
        where = self.table.describe(bad[0])
        error = RewardReturnError(
            f"reward {self.function.name!r} returned {values[bad[0]]} for {where}. Return a finite number, or None "
            "where the reward does not apply; or set on_error: unscored."
        )
        if self.function.on_error == "raise":
            raise error
        self._warn(len(bad), error, where)
        return [None if i in set(bad) else value for i, value in enumerate(values)], len(bad)

    def _warn(self, errors: int, error: Exception, where: str) -> None:
        logger.warning(
            "reward %r left %d of %d members unscored: %s on %s",
            *(self.function.name, errors, len(self.table), _named(error), where),
        )


def read_returned(returned: Any, name: str, table: MemberTable, only: int | None = None) -> list[float | None]:
    """Read one float or None for each member of `table` (or for its member `only`), NaN and ±∞ included.

    A bool counts as 0 or 1. numpy and torch scalars, and one-dimensional arrays and tensors, are read as numbers.

    Raises:
        RewardReturnError: Not a list, not of the right length, or an entry that is not a number.
    """
    members = range(len(table)) if only is None else [only]
    if inspect.iscoroutine(returned):
        returned.close()
        raise RewardReturnError(f"reward {name!r} is a plain function but returned a coroutine. Use `async def`.")
    if isinstance(returned, str | bytes | dict) or not isinstance(returned, Iterable):
        raise RewardReturnError(
            f"reward {name!r} returned a {type(returned).__name__}. "
            f"Return a list of {len(members)} numbers or None, one per completion."
        )
    values = list(returned)
    if len(values) != len(members):
        raise RewardReturnError(
            f"reward {name!r} returned {len(values)} values for {len(members)} completions (the first was "
            f"{table.describe(members[0])}). Return one value per completion, None where it does not apply."
        )
    return [_number(value, name, table, index) for value, index in zip(values, members, strict=True)]


def _number(value: Any, name: str, table: MemberTable, index: int) -> float | None:
    if value is None:
        return None
    if hasattr(value, "item") and getattr(value, "size", None) != 0:
        with suppress(ValueError, RuntimeError):  # of an array or tensor of several values: refused below
            value = value.item()
    if isinstance(value, Real):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    text = repr(value)
    raise RewardReturnError(
        f"reward {name!r} returned {text if len(text) <= 60 else text[:60] + '…'} of type {type(value).__name__} for "
        f"{table.describe(index)}. Return a number or None."
    )


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
