"""The interface of objectives: hyperparameters, and pure functions of tensors for advantages and loss.

An objective never sees a model, a tokenizer or a logger. It declares what it `needs`; the trainer
provides that and knows no method by name. A new one is a frozen dataclass with two methods::

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
    """What the trainer must provide. It reads nothing else about an objective."""

    samples: bool = False
    """Completions of the policy with rewards; at least two per prompt, unless a critic is the baseline."""
    reference: bool = False
    """A reference answer in every row."""
    rejected: bool = False
    """A rejected answer in every row."""
    frozen_policy: bool = False
    """log-probs under the policy as it was before training."""
    behaviour: Literal["never", "reused", "always"] = "never"
    """log-probs under the policy that drew the samples, as a constant. `reused`: only where several updates follow a
    rollout; after a single one they equal those of the loss. `always`: also then."""
    critic: bool = False
    """Values of a critic: at rollout for `advantages`, and live for `loss`."""
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
    """The terms of a loss, and metrics. Nothing logs from inside a loss."""

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

    def summands(self) -> tuple[Objective, ...]:
        """Return the objectives that this one adds up: itself, unless it is a sum."""
        return (self,)

    def advantages(self, batch: GroupBatch) -> Tensor:
        """Return the advantage of each member: [P, M], from `batch.rewards_PM`."""
        return torch.zeros_like(batch.rewards_PM)

    def with_advantages(self, batch: GroupBatch) -> GroupBatch:
        """Return the batch with `advantages_PM` set; the trainer calls this."""
        return batch.with_(advantages_PM=self.advantages(batch))

    def contributing(self, batch: GroupBatch, progress: Progress) -> Tensor:
        """Return bool [P, M], the members whose log-probs can change a term of the loss or its gradient.

        The default is every member with tokens that count. The log-probs of all others may be 0 in `loss`: then they
        need not be computed. `batch` has its `advantages_PM` set.
        """
        return batch.mask_PMT.any(-1)

    def denominator(self, batch: GroupBatch) -> Tensor:
        """Return what this batch adds to the step's denominators: float64 [K]; by default [P], the groups.

        The trainer sums it over micro-batches and ranks and passes the sum to `loss`. The losses of micro-batches then
        add up exactly to the loss of the whole step, for any cut.
        """
        return torch.tensor([float(len(batch))], dtype=torch.float64)

    def loss(self, batch: GroupBatch, output: PolicyOutput, denominator: Tensor, progress: Progress) -> LossOutput:
        """Return the batch's share of the step's loss.

        Args:
            batch: groups with `advantages_PM` set.
            output: what the policy says about them. Members that are not `contributing` may hold 0.
            denominator: float64 [K], `denominator` summed over the whole step.
            progress: the step within the stage.
        """
        raise NotImplementedError


def pad_members(samples_PG: Tensor, batch: GroupBatch) -> Tensor:
    """Pad values of the samples to [P, M], with 0 for reference and rejected answer."""
    given = batch.rewards_PM.shape[1] - batch.num_samples
    return torch.nn.functional.pad(samples_PG.to(batch.rewards_PM.dtype), (0, given))
