"""Several optimiser steps on one collection: which prompts are collected when, and which of them a step trains on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler

from grao.groups import Group, GroupBatch
from grao.rollout import draw_seed
from grao.training.stages import Chain


@dataclass(frozen=True)
class Collection:
    """Sampled and scored groups with their constants, and the updates they serve."""

    groups: list[Group]
    batch: GroupBatch
    micro_batches: int
    """How many forward passes its groups make."""
    mini_batches: int
    """How many updates one pass over it makes."""
    seed: int
    """Of the order of later passes."""

    def part(self, turn: int) -> tuple[list[Group], GroupBatch]:
        """What the update of this turn trains on: one mini-batch of one pass over the collection.

        The first pass takes the groups in order; each later one in an order of its own, keyed by the seed.
        """
        if self.mini_batches == 1:
            return self.groups, self.batch
        iteration, place = divmod(turn, self.mini_batches)
        n = len(self.groups)
        order = list(range(n)) if iteration == 0 else _permutation(n, draw_seed(self.seed, iteration, 0, 0))
        size = n // self.mini_batches
        chosen = order[place * size : (place + 1) * size]
        return [self.groups[i] for i in chosen], self.batch.select(chosen)


class CollectionSampler(Sampler[int]):
    """The rows of a whole run in which collections serve several updates, in the order of the data loader.

    A collection takes the rows of `mini_batches` steps; the places of the later steps that it serves hold the same
    rows again, which nobody reads: so the loader's position is that of the optimiser, and resuming by skipping batches
    finds the next collection. Every pass over the data is a new permutation; the rows at its end that do not fill a
    collection are left out of it.

    Args:
        rows: rows of the data set.
        per_step: prompts of one optimiser step, over all processes.
        mini_batches: optimiser steps' worth of prompts in one collection.
        chain: the stages of the run.
        seed: of the permutations.
    """

    def __init__(self, rows: int, per_step: int, mini_batches: int, chain: Chain, seed: int) -> None:
        self._rows, self._per_step, self._chain, self._seed = rows, per_step, chain, seed
        self._mini_batches = mini_batches
        largest = per_step * max(self._drawn_steps(i) for i in range(len(chain.stages)))
        if rows < largest:
            raise ValueError(
                f"a collection takes {largest} prompts (prompts a step × num_mini_batches), but there are {rows} "
                "rows: lower trainer.per_device_train_batch_size, trainer.gradient_accumulation_steps or "
                "rollout.num_mini_batches"
            )

    def __len__(self) -> int:
        return self._chain.steps * self._per_step

    def __iter__(self) -> Iterator[int]:
        left: list[int] = []
        passes = 0
        for i, stage in enumerate(self._chain.stages):
            drawn, updates = self._drawn_steps(i), self._chain.updates(stage)
            for _ in range(stage.steps // updates):
                if len(left) < drawn * self._per_step:
                    left, passes = _permutation(self._rows, draw_seed(self._seed, passes, 0, 0)), passes + 1
                chosen, left = left[: drawn * self._per_step], left[drawn * self._per_step :]
                yield from chosen * (updates // drawn)

    def passes(self, step: int) -> float:
        """How often the data has been gone through after so many steps, rows left out at the end of a pass aside."""
        taken = 0.0
        for i, (stage, start) in enumerate(zip(self._chain.stages, self._chain.starts, strict=True)):
            made = min(max(step - start, 0), stage.steps)
            taken += made / self._chain.updates(stage) * self._drawn_steps(i) * self._per_step
        return taken / self._rows

    def _drawn_steps(self, i: int) -> int:
        """Steps' worth of prompts in one collection of the stage."""
        return self._mini_batches if self._chain.stages[i].objective.needs.samples else 1


def _permutation(n: int, seed: int) -> list[int]:
    order: Sequence[int] = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    return list(order)
