"""Rows in, sampled and scored groups out.

rows → requests with keyed seeds → samples → groups → scored groups
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from grao.data import EncodedExample
from grao.groups import Group
from grao.rewards import RewardReport, RewardSet
from grao.rollout import Engine, Rollout, sample_groups


def collect(
    examples: Sequence[EncodedExample],
    *,
    step: int,
    seed: int,
    engine: Engine,
    rewards: RewardSet,
    rollout: Rollout,
) -> tuple[list[Group], RewardReport]:
    """Sample G completions per row from the engine's policy and score them together with the reference.

    Every draw is keyed by (seed, step, row, member), so the result does not depend on how the step is cut into
    batches, on the number of processes, or on whether the run was resumed.
    """
    groups = [example.as_group() for example in examples]
    scored = rewards.score(
        sample_groups(engine, groups, rollout, seed=seed, step=step, num_samples=rollout.num_generations)
    )
    if rollout.truncated == "unscored":
        return [unscore_truncated(group) for group in scored.groups], scored.report
    return list(scored.groups), scored.report


def unscore_truncated(group: Group) -> Group:
    """Remove the rewards of samples that reached the length limit."""
    return replace(
        group,
        samples=tuple(replace(s, reward=None) if s.finish == "length" else s for s in group.samples),
    )
