"""One optimiser step's groups: prompts in, sampled and scored groups out. Read top to bottom.

dataset rows ─▶ requests with keyed seeds ─▶ samples ─▶ groups ─▶ scored groups
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from grao.data import EncodedExample
from grao.groups import Group
from grao.rewards import RewardReport, RewardSet
from grao.rollout import Engine, Rollout, SampleRequest, draw_seed


def collect(
    examples: Sequence[EncodedExample],
    *,
    step: int,
    seed: int,
    engine: Engine,
    rewards: RewardSet,
    rollout: Rollout,
) -> tuple[list[Group], RewardReport]:
    """Draw G samples for each example from the engine's policy and score them together with the reference.

    Every draw is keyed by (seed, step, row, member), so the result does not depend on how the step is cut into
    batches, on the number of processes, or on whether the run was resumed.
    """
    groups = [example.as_group() for example in examples]
    requests = [
        SampleRequest(
            group.prompt_ids, tuple(draw_seed(seed, step, group.row, j) for j in range(rollout.num_generations))
        )
        for group in groups
    ]
    drawn = engine.sample(requests, rollout)
    groups = [replace(group, samples=samples) for group, samples in zip(groups, drawn, strict=True)]
    scored = rewards.score(groups)
    if rollout.truncated == "unscored":
        return [unscore_truncated(group) for group in scored.groups], scored.report
    return list(scored.groups), scored.report


def unscore_truncated(group: Group) -> Group:
    """The group with the rewards of samples that met the length limit taken away."""
    return replace(
        group,
        samples=tuple(replace(s, reward=None) if s.finish == "length" else s for s in group.samples),
    )


def balance(tokens: Sequence[int], bins: int) -> list[list[int]]:
    """Which groups go to which micro-batch: exactly `bins` of them, none empty, about equally many tokens in each.

    Longest first, each to the lightest bin; a group is never split. Ties go to the lower index, so the cut is
    reproducible.

    >>> balance([5, 1, 4, 2], 2)
    [[0, 1], [2, 3]]
    """
    assert 1 <= bins <= len(tokens), f"{len(tokens)} groups cannot fill {bins} micro-batches"
    filled: list[list[int]] = [[] for _ in range(bins)]
    load = [0] * bins
    for group in sorted(range(len(tokens)), key=lambda g: (-tokens[g], g)):
        lightest = min(range(bins), key=lambda b: (bool(filled[b]), load[b], b))
        filled[lightest].append(group)
        load[lightest] += tokens[group]
    return [sorted(groups) for groups in filled]
