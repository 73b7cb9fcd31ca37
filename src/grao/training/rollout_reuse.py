"""Several optimiser steps per rollout: which prompts a rollout takes, and which of its groups a step trains on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler

from grao.groups import Group, GroupBatch
from grao.rollout import draw_seed
from grao.training.stages import StageSequence


@dataclass(frozen=True)
class RolloutBatch:
    """Sampled and scored groups, ready to train on, with the updates they serve."""

    groups: list[Group]
    batch: GroupBatch
    """The same groups as tensors, with advantages and constant log-probs set."""
    micro_batches: int
    """Forward passes of one pass over all groups."""
    mini_batches: int
    """Optimiser steps of one pass over all groups."""
    seed: int
    """Keys the order of the groups in later passes."""

    def part(self, served: int) -> tuple[list[Group], GroupBatch]:
        """Return what the next update trains on, after `served` updates: one mini-batch of one pass.

        The first pass takes the groups in order; each later pass in its own order, keyed by the seed.
        """
        if self.mini_batches == 1:
            return self.groups, self.batch
        iteration, place = divmod(served, self.mini_batches)
        n = len(self.groups)
        order = list(range(n)) if iteration == 0 else _permutation(n, draw_seed(self.seed, iteration, 0, 0))
        size = n // self.mini_batches
        chosen = order[place * size : (place + 1) * size]
        return [self.groups[i] for i in chosen], self.batch.select(chosen)


class ReuseSampler(Sampler[int]):
    """The rows of a run in which a rollout serves several updates, in the order of the data loader.

    A rollout takes the rows of `mini_batches` steps. The places of its later updates repeat the same rows, which
    nothing reads, so the loader's position equals the optimiser's and resuming by skipping batches finds the next
    rollout. Every pass over the data is a new permutation; rows at its end that do not fill a rollout are left out.

    Args:
        rows: Rows of the data set.
        per_step: Prompts per optimiser step, over all processes.
        mini_batches: Optimiser steps' worth of prompts per rollout.
        stages: The stages of the run.
        seed: Keys the permutations.
    """

    def __init__(self, rows: int, per_step: int, mini_batches: int, stages: StageSequence, seed: int) -> None:
        self._rows, self._per_step, self._stages, self._seed = rows, per_step, stages, seed
        self._mini_batches = mini_batches
        largest = per_step * max(self._sampled_steps(i) for i in range(len(stages.stages)))
        if rows < largest:
            raise ValueError(
                f"A rollout takes {largest} prompts (prompts per step × num_mini_batches), but there are {rows} rows. "
                "Lower trainer.per_device_train_batch_size, trainer.gradient_accumulation_steps or "
                "rollout.num_mini_batches."
            )

    def __len__(self) -> int:
        return self._stages.steps * self._per_step

    def __iter__(self) -> Iterator[int]:
        left: list[int] = []
        passes = 0
        for i, stage in enumerate(self._stages.stages):
            sampled, updates = self._sampled_steps(i), self._stages.updates_per_rollout(stage)
            for _ in range(stage.steps // updates):
                if len(left) < sampled * self._per_step:
                    left, passes = _permutation(self._rows, draw_seed(self._seed, passes, 0, 0)), passes + 1
                chosen, left = left[: sampled * self._per_step], left[sampled * self._per_step :]
                yield from chosen * (updates // sampled)

    def passes(self, step: int) -> float:
        """Return the passes over the data after `step` steps, not counting rows left out at the end of a pass."""
        taken = 0.0
        for i, (stage, start) in enumerate(zip(self._stages.stages, self._stages.starts, strict=True)):
            made = min(max(step - start, 0), stage.steps)
            taken += made / self._stages.updates_per_rollout(stage) * self._sampled_steps(i) * self._per_step
        return taken / self._rows

    def _sampled_steps(self, i: int) -> int:
        """Return the steps' worth of prompts per rollout of the stage."""
        return self._mini_batches if self._stages.stages[i].objective.needs.samples else 1


def _permutation(n: int, seed: int) -> list[int]:
    order: Sequence[int] = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    return list(order)
