"""Sample completions for groups, with keyed seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from grao.groups import Group
from grao.rollout.engine import Engine, SampleRequest, SamplingParams, draw_seed


def sample_groups(
    engine: Engine, groups: Sequence[Group], params: SamplingParams, *, seed: int, step: int, num_samples: int
) -> list[Group]:
    """Return the groups with `num_samples` new samples each, without rewards.

    Every draw is keyed by (seed, step, row, sample): the result does not depend on how groups are cut into batches or
    spread over processes, nor on whether a run was resumed.
    """
    numbers = range(num_samples)
    requests = [SampleRequest(g.prompt_ids, tuple(draw_seed(seed, step, g.row, n) for n in numbers)) for g in groups]
    samples_PG = engine.sample(requests, params)
    return [replace(group, samples=samples) for group, samples in zip(groups, samples_PG, strict=True)]
