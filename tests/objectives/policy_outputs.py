"""What a policy would say, for tests that call an objective on log-probs of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from grao.groups import GroupBatch, PolicyOutput
from grao.objectives import LossOutput, Objective, Progress

START = Progress(step=0, steps=1)


def loss_of(
    objective: Objective,
    batch: GroupBatch,
    logprobs_PMT: Tensor,
    denominator: Tensor,
    *,
    values_PMT: Tensor | None = None,
    progress: Progress = START,
) -> LossOutput:
    """The loss of these log-probs (and values); no entropy, which must not be read then."""
    entropy_PMT = torch.full_like(logprobs_PMT.detach(), torch.nan)
    return objective.loss(batch, PolicyOutput(logprobs_PMT, entropy_PMT, values_PMT), denominator, progress)
