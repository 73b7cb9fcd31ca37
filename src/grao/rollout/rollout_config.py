"""How the samples of a group are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from grao.rollout.engine import SamplingParams
from grao.rollout.local import LocalEngine, Progress

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
