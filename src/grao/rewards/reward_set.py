"""Score groups with all reward functions of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grao.groups import Group, Member
from grao.rewards.function_scoring import FunctionOutcome, FunctionScoring, Scores
from grao.rewards.reward_arguments import MemberTable
from grao.rewards.reward_call import Caller
from grao.rewards.reward_function import RewardFunction
from grao.rewards.reward_hooks import HOOKS, Extras, join_extras
from grao.rewards.reward_loading import Source, load_reward
from grao.rewards.reward_report import RewardReport


@dataclass(frozen=True, slots=True)
class ScoredGroups:
    """The groups with `Member.reward` and `Member.rewards` filled in, and a report to log."""

    groups: tuple[Group, ...]
    report: RewardReport


class RewardSet:
    """The reward functions of a run.

    A member's reward is Σ_k w_k · r_k over the functions k that scored it; None (unscored) if none did.

    Example::

        scored = RewardSet(["math", RewardFunction(brevity, name="brevity", weight=0.1)]).score(groups)
        scored.groups[0].samples[0].reward, scored.report.metrics()["rewards/math/mean"]
    """

    def __init__(self, functions: Sequence[Source], *, score_rejected: bool = False) -> None:
        """Load the functions with `load_reward`; `score_rejected` also scores rejected answers."""
        self.functions = tuple(load_reward(function) for function in functions)
        self.score_rejected = score_rejected
        self._caller = Caller()
        if not self.functions:
            raise ValueError("no reward function was given. Name at least one.")
        names = [function.name for function in self.functions]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two reward functions are named {repeated[0]!r}. Give one of them another `name`.")

    def score(self, groups: Sequence[Group], context: Mapping[str, Any] | None = None) -> ScoredGroups:
        """Score all members of all groups: one call per function, references in the same call as the samples.

        Async functions run concurrently with each other and with the sync ones, which run in order. `context` is
        passed on by name (``{"trainer_state": state}``). So are the hooks ``log_metric`` and ``log_extra`` (see
        `HookLog`); what they log ends in the report and in `Member.extras`.

        Raises:
            ValueError: A function needs a column that the data lacks, or a reference that is missing.
            RewardError: A function raised or timed out, and its `on_error` is ``"raise"``.
            RewardReturnError: It did not return one number or None per member; for NaN and ±∞ `on_error` decides.
        """
        scorings = [self._scoring(function, groups, context or {}) for function in self.functions]
        running = {s.function.name: s.start() for s in scorings if s.function.is_async and len(s.table)}
        finished: dict[str, FunctionOutcome] = {}
        try:
            # Sync functions first: the async ones run meanwhile.
            for scoring in sorted(scorings, key=lambda s: s.function.is_async):
                finished[scoring.function.name] = scoring.finish(running.get(scoring.function.name))
        finally:
            for pending in running.values():
                pending.future.cancel()
        outcomes = {function.name: finished[function.name] for function in self.functions}
        scores = {name: outcome.scores for name, outcome in outcomes.items()}
        extras = join_extras({name: outcome.extras for name, outcome in outcomes.items()})
        weights = {function.name: function.weight for function in self.functions}
        return ScoredGroups(
            groups=tuple(_with_scores(group, g, scores, weights, extras) for g, group in enumerate(groups)),
            report=RewardReport(tuple(outcome.report for outcome in outcomes.values())),
        )

    def check(self, groups: Sequence[Group]) -> None:
        """Refuse rows that some function could not score, before anything is sampled. Calls no function.

        Raises:
            ValueError: A function needs a column that the data lacks, or a reference that is missing.
        """
        empty = (Member(ids=(), text=""),)
        for function in self.functions:
            self._scoring(function, [replace(group, samples=empty) for group in groups], {})

    def _scoring(
        self, function: RewardFunction, groups: Sequence[Group], context: Mapping[str, Any]
    ) -> FunctionScoring:
        lacking = [group.row for group in groups if group.reference is None] if function.comparison else []
        if lacking:
            raise ValueError(
                f"reward {function.name!r} compares with the reference answer, but row {lacking[0]} has none. "
                "Drop such rows, or use a reward that scores a completion by itself."
            )
        table = MemberTable.of(groups, reference=not function.comparison, rejected=self.score_rejected)
        names = table.accepted_names(function.call, function.name, (*context, *HOOKS))
        return FunctionScoring(function, table, names, context, self._caller, groups)


def combine(values: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    """Return Σ weight · value over the functions that gave a value; None if none did.

    >>> combine({"a": 1.0, "b": None, "c": 3.0}, {"a": 1.0, "b": 9.0, "c": 0.5})
    2.5
    """
    scored = [weights[name] * value for name, value in values.items() if value is not None]
    return sum(scored) if scored else None


def _with_scores(
    group: Group, g: int, scores: Mapping[str, Scores], weights: Mapping[str, float], extras: Extras
) -> Group:
    """Return the group with scored members; a member that was not sent to any function stays as it is."""

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
