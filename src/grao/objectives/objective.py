"""What an objective is: hyperparameters, an `advantages` and a `loss`; both pure functions of tensors.

An objective never sees a model, a tokenizer or a logger. It says what it `needs`; the trainer provides that and
knows no method by name. A new one is a frozen dataclass with two methods::

    @dataclass(frozen=True)
    class BestOfN(Objective):
        needs = Needs(samples=True)

        def advantages(self, batch):
            rewards_PG = batch.samples(batch.rewards_PM).nan_to_num(nan=-torch.inf)
            return pad_members(torch.nn.functional.one_hot(rewards_PG.argmax(1), batch.num_samples), batch)

        def loss(self, batch, output, denominator, progress):
            J_PM = mean_logprob(output.logprobs_PMT, batch.mask_PMT)
            return LossOutput({"imitation": -(batch.advantages_PM * J_PM).sum() / denominator[0]})
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from torch import Tensor

from grao.groups import GroupBatch, PolicyOutput


@dataclass(frozen=True, slots=True)
class Needs:
    """What an objective must be given; the trainer reads these fields and nothing else about it."""

    samples: bool = False
    """Completions drawn from the policy and their rewards; at least two a prompt, unless a critic is the baseline."""
    reference: bool = False
    """A reference answer in every row."""
    rejected: bool = False
    """A rejected answer in every row."""
    frozen_policy: bool = False
    """log-probs under the policy as it was before training."""
    behaviour: Literal["never", "reused", "always"] = "never"
    """log-probs under the policy that drew the samples, as a constant. `reused`: wherever several updates follow a
    collection; with a single one they are those of the loss itself, and are not computed. `always`: also then."""
    critic: bool = False
    """A value of every state, from a critic: at collection for `advantages`, and live for `loss`."""
    entropy: bool = False
    """A differentiable `PolicyOutput.entropy_PMT`."""

    @staticmethod
    def union(all_needs: Iterable[Needs]) -> Needs:
        """Return what any of these needs."""
        several = list(all_needs)
        flags: dict[str, Any] = {f.name: any(getattr(needs, f.name) for needs in several) for f in fields(Needs)}
        flags["behaviour"] = max((needs.behaviour for needs in several), key=("never", "reused", "always").index)
        return Needs(**flags)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage has come, before the update that the loss is computed for."""

    step: int
    """Optimiser steps already made in the stage; 0 at its first update."""
    steps: int
    """Optimiser steps of the whole stage."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A metric that adds up: micro-batches and ranks sum `total` and `count`; the log shows their quotient."""

    total: Tensor
    count: Tensor


@dataclass(frozen=True, slots=True)
class LossOutput:
    """The loss as the terms it is the sum of, with metrics. Nothing logs from inside a loss."""

    terms: dict[str, Tensor]
    """Named, signed, differentiable scalars; each already divided by its denominator of the *whole* step."""
    metrics: dict[str, Mean] = field(default_factory=dict)

    @property
    def loss(self) -> Tensor:
        """Σ terms, to be minimised."""
        return torch.stack([*self.terms.values()]).sum()


class Objective:
    """Base of every objective. Subclasses are frozen dataclasses: the configuration *is* the object."""

    @property
    def needs(self) -> Needs:
        """What the trainer must provide. A subclass may set a plain class attribute instead."""
        return Needs()

    @property
    def title(self) -> str:
        """The objective's name in messages and reports."""
        return type(self).__name__

    def advantages(self, batch: GroupBatch) -> Tensor:
        """The weight each member has earned: [P, M], from `batch.rewards_PM`. Zero where nothing was earned."""
        return torch.zeros_like(batch.rewards_PM)

    def with_advantages(self, batch: GroupBatch) -> GroupBatch:
        """The batch with `advantages_PM` set."""
        return batch.with_(advantages_PM=self.advantages(batch))

    def contributing(self, batch: GroupBatch, progress: Progress) -> Tensor:
        """bool [P, M]: the members whose log-probs can change a term of the loss, or its gradient, at this step.

        The default is every member with tokens that count. The log-probs of all others may be 0 in `loss`: then they
        need not be computed. `batch` has its `advantages_PM` set.
        """
        return batch.mask_PMT.any(-1)

    def denominator(self, batch: GroupBatch) -> Tensor:
        """What this batch adds to the step's denominators: float64 [K]; the default is [P], the groups.

        The trainer sums it over micro-batches and ranks and hands the sum to `loss`. So the losses of micro-batches
        add up exactly to the loss of the whole step, however it was cut.
        """
        return torch.tensor([float(len(batch))], dtype=torch.float64)

    def loss(self, batch: GroupBatch, output: PolicyOutput, denominator: Tensor, progress: Progress) -> LossOutput:
        """The batch's share of the step's loss.

        Args:
            batch: groups with `advantages_PM` set.
            output: what the policy says about them. Members that are not `contributing` may hold 0.
            denominator: float64 [K], `denominator` summed over the whole step.
            progress: the step within the stage.
        """
        raise NotImplementedError


def pad_members(samples_PG: Tensor, batch: GroupBatch) -> Tensor:
    """Values of the samples as a [P, M] tensor, 0 for the given members."""
    given = batch.rewards_PM.shape[1] - batch.num_samples
    return torch.nn.functional.pad(samples_PG.to(batch.rewards_PM.dtype), (0, given))
