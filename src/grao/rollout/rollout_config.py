"""How the samples of a group are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from grao.rollout.engine import SamplingParams

Truncated = Literal["keep", "mask", "unscored"]
LogprobTemperature = Literal["one", "sampling"]


@dataclass(frozen=True)
class Rollout(SamplingParams):
    """How to sample a group, how to treat truncated samples, and how often to train on them."""

    moved_keys: ClassVar[dict[str, str]] = {
        name: f"engine.{name}" for name in ("dtype", "max_rows", "max_batch_tokens", "packed")
    }

    num_generations: int = 8
    """G, samples per prompt."""
    truncated: Truncated = "keep"
    """What happens to a sample that reached the length limit. `keep`: it counts like any other. `mask`: its reward
    counts in the group's statistics, its tokens not in the loss. `unscored`: it leaves the group's statistics.
    `completions/clipped_ratio` counts them in any case."""
    logprob_temperature: LogprobTemperature = "one"
    """Temperature of the log-probs in the loss: `one` = those of the policy itself; `sampling` = at `temperature`, as
    in TRL."""
    num_iterations: int = 1
    """Passes over each rollout. From the second update on, the policy is not the one that sampled; objectives with a
    likelihood ratio (GRPO, PPO) correct for that and clip."""
    num_mini_batches: int = 1
    """Optimiser steps per pass: a rollout takes the prompts of that many steps at once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_generations", "num_iterations", "num_mini_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}. Give 1 or more.")

    @property
    def updates(self) -> int:
        """Optimiser steps per rollout."""
        return self.num_iterations * self.num_mini_batches

    @property
    def loss_temperature(self) -> float:
        """Temperature of the log-probs in the loss; 1 for greedy sampling, which has no distribution."""
        return self.temperature if self.logprob_temperature == "sampling" and self.temperature > 0 else 1.0

    @property
    def is_comparable(self) -> bool:
        """Whether an engine's log-probs have the temperature of those in the loss; greedy ones are at 1."""
        return self.loss_temperature == (self.temperature if self.temperature > 0 else 1.0)
