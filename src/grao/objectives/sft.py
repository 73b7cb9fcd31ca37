"""Supervised fine-tuning: the likelihood of the reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from grao.groups import GroupBatch, PolicyOutput
from grao.objectives.likelihood import Aggregation, aggregate, check_aggregation
from grao.objectives.objective import LossOutput, Needs, Objective, Progress


@dataclass(frozen=True)
class SFT(Objective):
    """Negative log-likelihood of the reference.

        L = −(1/Σ_q |y_q|) Σ_q Σ_t log π_θ(y_t | q, y_<t)

    With `token_mean` (default) this is `torch.nn.functional.cross_entropy` over the step's reference tokens.
    """

    aggregation: Aggregation = "token_mean"
    """`sequence_mean` gives every row the same weight, for any length of its reference."""
    length: int | None = None
    """The constant of `aggregation="constant"`, in tokens."""

    def __post_init__(self) -> None:
        check_aggregation(self.aggregation, self.length)

    @property
    def needs(self) -> Needs:
        """A reference."""
        return Needs(reference=True)

    def advantages(self, batch: GroupBatch) -> Tensor:
        """Return 1 for the reference, 0 for every other member: [P, M]."""
        weights_PM = torch.zeros_like(batch.rewards_PM)
        weights_PM[:, batch.reference_index] = 1.0
        return weights_PM

    def denominator(self, batch: GroupBatch) -> Tensor:
        """Return [references, reference tokens]."""
        mask_PT = batch.reference(batch.mask_PMT)
        return torch.stack([mask_PT.any(-1).sum(), mask_PT.sum()]).double()

    def loss(self, batch: GroupBatch, output: PolicyOutput, denominator: Tensor, progress: Progress) -> LossOutput:
        """Return the equation above; one term, `imitation`."""
        imitation = aggregate(
            -batch.reference(output.logprobs_PMT)[:, None],
            batch.reference(batch.mask_PMT)[:, None],
            denominator,
            self.aggregation,
            self.length,
        )
        return LossOutput({"imitation": imitation})
