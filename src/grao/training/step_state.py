"""Everything that an optimiser step reads and changes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import TrainerState, TrainingArguments

from grao.groups import Group, GroupBatch
from grao.objectives import Objective, Progress
from grao.policy import router_coefficient
from grao.records import RunDirectory
from grao.rewards import RewardSet
from grao.rollout import Engine, Rollout
from grao.training.critic_training import CriticTraining
from grao.training.frozen_anchor import FrozenAnchor
from grao.training.gradient_shares import GradientShares
from grao.training.last_step_checkpoint import LastStepCheckpoint
from grao.training.meter import Meter
from grao.training.monitor import Monitor
from grao.training.rollout_reuse import RolloutBatch
from grao.training.stages import Stage, StageSequence


@dataclass
class StepState:
    """The collaborators of a run, its place in the stages, and what one step leaves for its micro-batches."""

    model: Any
    """The policy, not wrapped by a distributed engine."""
    stages: StageSequence
    engine: Engine
    rollout: Rollout
    rewards: RewardSet | None
    anchor: FrozenAnchor
    critic: CriticTraining | None
    last_step: LastStepCheckpoint
    monitor: Monitor
    record: RunDirectory | None
    args: TrainingArguments
    accelerator: Accelerator
    trainer_state: TrainerState
    """transformers' own; counts steps and tokens, and is saved with every checkpoint."""
    pad_token_id: int
    started: float = 0.0
    """`time.perf_counter` at the start of the current step."""
    meter: Meter = field(default_factory=Meter)
    entered_stage: int | None = None
    """Index of the stage that `enter_stage` prepared."""
    rollout_batch: RolloutBatch | None = None
    """The rollout that the current updates train on."""
    last_groups: list[Group] = field(default_factory=list)
    """The groups of the current step."""
    micro_batches_left: int = 0
    groups_in_step: int = 0
    """Over all processes."""
    shares: GradientShares | None = None
    """Where the shares of the gradient are measured in this step."""

    @property
    def global_step(self) -> int:
        """Optimiser steps made so far."""
        return self.trainer_state.global_step

    @property
    def stage(self) -> Stage:
        """The stage of the next step."""
        return self.stages.stages[self.stages.index(self.global_step)]

    @property
    def objective(self) -> Objective:
        """The objective of that stage."""
        return self.stage.objective

    @property
    def progress(self) -> Progress:
        """How far the stage has come."""
        return self.stages.progress(self.global_step)

    @property
    def seed(self) -> int:
        """The run's seed, which keys every draw."""
        return self.args.seed

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.args.device

    @property
    def output_dir(self) -> str:
        """The run directory."""
        return str(self.args.output_dir)

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes records."""
        return self.trainer_state.is_world_process_zero

    @property
    def router_coefficient(self) -> float:
        """Weight of the load-balancing loss; 0 for a dense model."""
        return router_coefficient(self.accelerator.unwrap_model(self.model))

    @property
    def trained_parameters(self) -> list[Tensor]:
        """The policy's parameters with gradients."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def shares_are_due(self) -> bool:
        """Whether this step measures the shares of the gradient."""
        every = self.monitor.gradient_shares_every
        return every > 0 and self.global_step % every == 0

    @property
    def kl_is_due(self) -> bool:
        """Whether any step that this rollout serves measures the KL to the frozen policy."""
        every, first = self.monitor.kl_every, self.global_step
        if self.anchor.policy is None or every == 0:
            return False
        return any(step % every == 0 for step in range(first, first + self.stages.updates_per_rollout(self.stage)))

    def autocast(self) -> AbstractContextManager:
        """The run's mixed precision."""
        return self.accelerator.autocast()

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """Return the sum over all processes."""
        return self.accelerator.reduce(value.to(self.device), reduction="sum")

    def count_tokens(self, batch: GroupBatch) -> None:
        """Add the batch's tokens, over all processes, to the count that checkpoints keep."""
        self.trainer_state.num_input_tokens_seen += int(self.sum_over_ranks(torch.tensor(batch.num_tokens)))
