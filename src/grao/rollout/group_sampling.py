"""Sample completions for groups, with keyed seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from grao.groups import Group
from grao.rollout.engine import Engine, EngineError, SampleRequest, SamplingParams, draw_seed


def sample_groups(
    engine: Engine, groups: Sequence[Group], params: SamplingParams, *, seed: int, step: int, num_samples: int
) -> list[Group]:
    """Return the groups with `num_samples` new samples each, without rewards.

    Every draw is keyed by (seed, step, row, sample): the result does not depend on how groups are cut into batches or
    spread over processes, nor on whether a run was resumed.

    Raises:
        EngineError: The engine returned too few completions, or one without ids or with too few log-probs.
    """
    numbers = range(num_samples)
    requests = [SampleRequest(g.prompt_ids, tuple(draw_seed(seed, step, g.row, n) for n in numbers)) for g in groups]
    samples_PG = engine.sample(requests, params)
    if len(samples_PG) != len(groups):
        raise EngineError(f"The engine answered {len(samples_PG)} of {len(groups)} requests.")
    for group, samples in zip(groups, samples_PG, strict=True):
        if len(samples) != num_samples:
            raise EngineError(f"The engine returned {len(samples)} of {num_samples} completions for row {group.row}.")
        for sample in samples:
            logprobs = len(sample.ids) if sample.logprobs is None else len(sample.logprobs)
            if not sample.ids or logprobs != len(sample.ids):
                found = f"{len(sample.ids)} ids and {logprobs} log-probs"
                raise EngineError(
                    f"The engine returned a completion with {found} for row {group.row}. It must have an id or more, "
                    "and a log-prob for each."
                )
    return [replace(group, samples=samples) for group, samples in zip(groups, samples_PG, strict=True)]
