"""Scoring: groups in, the same groups with rewards out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grao.groups import Group, Member
from grao.rewards.function_scoring import Job, Outcome, Scores
from grao.rewards.reward_arguments import MemberTable
from grao.rewards.reward_call import Caller
from grao.rewards.reward_function import RewardFunction, refuse_repeated_names
from grao.rewards.reward_hooks import HOOKS, Extras, join_extras
from grao.rewards.reward_loading import Source, load_reward
from grao.rewards.reward_report import RewardReport


@dataclass(frozen=True, slots=True)
class ScoredGroups:
    """The groups with `Member.reward` and `Member.rewards` filled in, and what there is to log."""

    groups: tuple[Group, ...]
    report: RewardReport


class RewardSet:
    """The reward functions of a run.

    A member's reward is Σ_k w_k · r_k over the functions k that scored it; None (unscored) where none did.

    Example::

        scored = RewardSet(["math", RewardFunction(brevity, name="brevity", weight=0.1)]).score(groups)
        scored.groups[0].samples[0].reward, scored.report.metrics()["rewards/math/mean"]
    """

    def __init__(self, functions: Sequence[Source], *, score_rejected: bool = False) -> None:
        """Take functions in any form that `load_reward` takes; `score_rejected` sends rejected answers too."""
        self.functions = tuple(load_reward(function) for function in functions)
        self.score_rejected = score_rejected
        self._caller = Caller()
        if not self.functions:
            raise ValueError("no reward function was given; name at least one")
        refuse_repeated_names(self.functions)

    def score(self, groups: Sequence[Group], context: Mapping[str, Any] | None = None) -> ScoredGroups:
        """Score all members of all groups: one call a function, references in the same call as the samples.

        Async functions run beside each other and beside the sync ones, which take their turns in order. `context`
        reaches the functions by name, unrepeated (``{"trainer_state": state}``). So do the hooks ``log_metric`` and
        ``log_extra`` (see `Notes`), whose notes end in the report and in `Member.extras`.

        Raises:
            ValueError: a function needs a column that the data lacks, or compares with a reference that is missing.
            RewardError: a function raised or timed out, unless its `on_error` is ``"unscored"``.
            RewardReturnError: it returned no list of one number or None a member; NaN and ±∞ as `on_error` says.
        """
        jobs = [self._job(function, groups, context or {}) for function in self.functions]
        running = {job.function.name: job.start() for job in jobs if job.function.is_async and len(job.table)}
        outcomes: dict[str, Outcome] = {}
        try:
            # Sync functions first: the async ones are on their way meanwhile.
            for job in sorted(jobs, key=lambda job: job.function.is_async):
                outcomes[job.function.name] = job.outcome(running.get(job.function.name))
        finally:
            for started in running.values():
                started.call.cancel()
        scores = {job.function.name: job.by_place(outcomes[job.function.name]) for job in jobs}
        extras = join_extras({job.function.name: job.extras(outcomes[job.function.name]) for job in jobs})
        weights = {function.name: function.weight for function in self.functions}
        return ScoredGroups(
            groups=tuple(_with_scores(group, g, scores, weights, extras) for g, group in enumerate(groups)),
            report=RewardReport(tuple(job.report(outcomes[job.function.name]) for job in jobs)),
        )

    def check(self, groups: Sequence[Group]) -> None:
        """Refuse rows that some function could not score, before anything is drawn: nothing is called.

        Raises:
            ValueError: a function needs a column that the data lacks, or compares with a reference that is missing.
        """
        empty = (Member(ids=(), text=""),)
        for function in self.functions:
            self._job(function, [replace(group, samples=empty) for group in groups], {})

    def _job(self, function: RewardFunction, groups: Sequence[Group], context: Mapping[str, Any]) -> Job:
        if function.comparison:
            _require_references(function, groups)
        table = MemberTable.of(groups, reference=not function.comparison, rejected=self.score_rejected)
        # The hooks are made for each call; here they only count as given.
        arguments = table.arguments(function.call, function.name, {**context, **dict.fromkeys(HOOKS)})
        return Job(function, table, arguments, self._caller, groups)


def combine(values: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    """Σ weight · value over the functions that gave a value; None where none did.

    >>> combine({"a": 1.0, "b": None, "c": 3.0}, {"a": 1.0, "b": 9.0, "c": 0.5})
    2.5
    """
    scored = [weights[name] * value for name, value in values.items() if value is not None]
    return sum(scored) if scored else None


def _with_scores(
    group: Group, g: int, scores: Mapping[str, Scores], weights: Mapping[str, float], extras: Extras
) -> Group:
    """The group with new members; a member no function was asked about stays as it is."""

    def scored(member: Member, m: int) -> Member:
        values = {name: of[g, m] for name, of in scores.items() if (g, m) in of}
        if not values:
            return member
        return replace(member, reward=combine(values, weights), rewards=values, extras=extras.get((g, m), {}))

    members = [scored(member, m) for m, member in enumerate(group.members)]
    given = iter(members[len(group.samples) :])
    return replace(
        group,
        samples=tuple(members[: len(group.samples)]),
        reference=next(given) if group.reference is not None else None,
        rejected=next(given) if group.rejected is not None else None,
    )


def _require_references(function: RewardFunction, groups: Sequence[Group]) -> None:
    for group in groups:
        if group.reference is None:
            raise ValueError(
                f"reward {function.name!r} compares with the reference answer, but row {group.row} has none; "
                "drop such rows, or use a reward that judges a completion by itself"
            )
