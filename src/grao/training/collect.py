"""One optimiser step's groups: prompts in, sampled and scored groups out. Read top to bottom.

dataset rows ─▶ requests with keyed seeds ─▶ samples ─▶ groups ─▶ scored groups
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch

from grao.data import EncodedExample
from grao.groups import Group
from grao.rewards import RewardReport, RewardSet
from grao.rollout import Engine, LocalEngine, Progress, SampleRequest, SamplingParams, draw_seed

Truncated = Literal["keep", "mask", "unscored"]
LogprobTemperature = Literal["one", "sampling"]
RolloutDtype = Literal["model", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Rollout(SamplingParams):
    """How the samples of a group are drawn, and what becomes of those cut off."""

    num_generations: int = 8
    """G, samples a prompt."""
    truncated: Truncated = "keep"
    """A sample that met the length limit is kept; or masked: its reward counts in the statistics, its tokens not in
    the loss; or unscored: it leaves the group's statistics. Counted in `completions/clipped_ratio` either way."""
    logprob_temperature: LogprobTemperature = "one"
    """Log-probs in the loss are of the policy itself (`one`) or at the sampling temperature (`sampling`, as TRL)."""
    num_iterations: int = 1
    """Passes over each collection. From the second update on a collection the policy is not what drew it any more;
    objectives with a likelihood ratio (GRPO, PPO) correct for that and clip."""
    num_mini_batches: int = 1
    """Optimiser steps in one such pass: so many steps' worth of prompts are collected at once."""
    dtype: RolloutDtype = "model"
    """Of the weights while they sample; `model` = as they are. bfloat16 is faster, and the samples are then those of
    the rounded weights: `sampling/logprob_difference` in the log says how far those are from the policy."""
    max_rows: int = 256
    """Completions under way at once; as some end, waiting prompts take their place. A group is never split."""
    max_batch_tokens: int | None = None
    """Columns of cache at once, of prompts and new tokens; null = any number."""
    packed: bool = True
    """On a CPU, sample by packed copies of the linear layers' weights: faster, for those weights' memory once more
    while it samples. Not decided by the memory that is free: a resumed run would differ in its last bits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_iterations", "num_mini_batches", "max_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if self.max_batch_tokens is not None and self.max_batch_tokens < 1:
            raise ValueError(f"max_batch_tokens is {self.max_batch_tokens}; give 1 or more, or null")
        if self.dtype not in get_args(RolloutDtype):
            raise ValueError(f"dtype is {self.dtype!r}; it must be one of {', '.join(get_args(RolloutDtype))}")

    @property
    def updates(self) -> int:
        """Optimiser steps that follow each collection."""
        return self.num_iterations * self.num_mini_batches

    @property
    def loss_temperature(self) -> float:
        """The temperature of the log-probs in the loss; greedy sampling has no distribution, so 1."""
        return self.temperature if self.logprob_temperature == "sampling" and self.temperature > 0 else 1.0

    @property
    def is_comparable(self) -> bool:
        """Whether an engine's log-probs are at the temperature of those in the loss; greedy ones are at 1."""
        return self.loss_temperature == (self.temperature if self.temperature > 0 else 1.0)

    def local_engine(self, model: Any, tokenizer: Any, progress: Progress | None = None) -> LocalEngine:
        """The engine that samples from the model itself, in this process."""
        return LocalEngine(
            model,
            tokenizer,
            max_rows=self.max_rows,
            max_batch_tokens=self.max_batch_tokens,
            dtype=None if self.dtype == "model" else getattr(torch, self.dtype),
            packed=self.packed,
            progress=progress,
        )


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
