"""The policy's outputs on a batch of groups: everything that an objective reads from the model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class PolicyOutput:
    """Log-probs, entropy and values of a `GroupBatch`, each [P, M, T] and 0 where the batch is masked."""

    logprobs_PMT: Tensor
    """log π_θ(x_t | q, x_<t) of every member token, in nats; differentiable in training."""
    entropy_PMT: Tensor
    """Entropy of the distribution each token was scored under, in nats; differentiable only where the objective's
    `needs.entropy` asks for it."""
    values_PMT: Tensor | None = None
    """V_φ of the state before each token, differentiable; None without a critic."""
    router_loss: Tensor | None = None
    """Load-balancing loss of a mixture of experts, without its coefficient; None where the model has none."""
