"""A run as a sequence of stages, such as SFT for 200 steps, then GRPO for 300. One objective is one stage.

Each stage equals a run of its own: it starts from the policy of the previous stage, with a fresh optimiser, its own
warm-up and learning-rate schedule, and the policy it starts from as its frozen policy. The pass over the data
continues from stage to stage, there is one record, and a killed run resumes in the middle of any stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import SchedulerType, TrainingArguments, get_scheduler

from grao.objectives import Needs, Objective, Progress


@dataclass(frozen=True, slots=True)
class Stage:
    """One objective and its number of steps."""

    objective: Objective
    steps: int
    """Optimiser steps."""
    learning_rate: float | None = None
    """Learning rate of this stage; None = `trainer.learning_rate`."""

    def __post_init__(self) -> None:
        name = type(self.objective).__name__
        if not isinstance(self.objective, Objective):
            raise ValueError(f"The objective of a stage is {self.objective!r}. Give an object such as GRAO().")
        if self.steps < 1:
            raise ValueError(f"The stage {name} has {self.steps} steps. Give 1 or more.")
        if self.learning_rate is not None and not self.learning_rate >= 0:
            raise ValueError(f"The stage {name} has a learning rate of {self.learning_rate}. Give 0 or more.")


class StageSequence:
    """The stages of a run, looked up by optimiser step.

    Args:
        stages: In the order they run.
        updates: Optimiser steps per rollout, in stages that draw samples.
    """

    def __init__(self, stages: Sequence[Stage], updates: int = 1) -> None:
        if not stages:
            raise ValueError("The list of stages is empty. Give at least one stage.")
        self.stages = tuple(stages)
        self.starts = tuple(sum(stage.steps for stage in stages[:i]) for i in range(len(stages)))
        self.steps = sum(stage.steps for stage in stages)
        self._updates = updates
        for stage in self.stages:
            updates = self.updates_per_rollout(stage)
            if stage.steps % updates:
                raise ValueError(
                    f"The stage {type(stage.objective).__name__} has {stage.steps} steps, but each rollout serves "
                    f"{updates} (num_iterations × num_mini_batches). Give a multiple of {updates}."
                )

    @property
    def needs(self) -> Needs:
        """The union of what the stages need."""
        return Needs.union(stage.objective.needs for stage in self.stages)

    def index(self, step: int) -> int:
        """Return the index of the stage that runs after `step` steps; the last stage when all are done."""
        return max(i for i, start in enumerate(self.starts) if start <= min(step, self.steps - 1))

    def updates_per_rollout(self, stage: Stage) -> int:
        """Return the optimiser steps that one rollout of the stage serves."""
        return self._updates if stage.objective.needs.samples else 1

    def updates_served(self, step: int) -> int:
        """Return the updates that the current rollout has served after `step` steps; 0 asks for a new rollout."""
        i = self.index(step)
        return (step - self.starts[i]) % self.updates_per_rollout(self.stages[i])

    def progress(self, step: int) -> Progress:
        """Return where in its stage the step after `step` steps is."""
        i = self.index(step)
        return Progress(step - self.starts[i], self.stages[i].steps)

    @property
    def reuses(self) -> bool:
        """Whether any rollout serves several updates."""
        return any(self.updates_per_rollout(stage) > 1 for stage in self.stages)

    def check_checkpoints(self, key: str, every: int) -> None:
        """Raise a `ValueError` where a checkpoint would fall between two updates on one rollout.

        Rollouts are not checkpointed, and the policy that drew one is gone by the time a run resumes.

        Args:
            key: The setting that decides, for the message.
            every: Steps between checkpoints, 1 or more.
        """
        for step in range(every, self.steps, every):
            if self.updates_served(step) != 0:
                updates = self.updates_per_rollout(self.stages[self.index(step)])
                raise ValueError(
                    f"{key} is {every}, which puts a checkpoint at step {step}, in the middle of a rollout. "
                    f"Give a multiple of {updates} (num_iterations × num_mini_batches)."
                )

    @property
    def has_schedule(self) -> bool:
        """Whether the learning rate depends on the stage; if not, transformers' own schedule is used."""
        return len(self.stages) > 1 or self.stages[0].learning_rate is not None

    def check_schedule(self, args: TrainingArguments) -> None:
        """Raise a `ValueError` for a schedule that is no function of the step, or has no rate to scale."""
        for stage in self.stages:
            self._shape(stage, args)
            if stage.learning_rate and args.learning_rate == 0:
                raise ValueError(
                    f"trainer.learning_rate is 0, but the stage {type(stage.objective).__name__} scales it. "
                    "Set trainer.learning_rate above 0, and learning_rate: 0 in stages that must not train."
                )

    def schedule(self, optimizer: Any, args: TrainingArguments, *, own_rates: int = 0) -> LambdaLR:
        """Return a schedule with each stage's warm-up and decay over its own steps, from its own learning rate.

        Args:
            optimizer: Made with `args.learning_rate`.
            args: Name the kind of schedule; they have passed `check_schedule`.
            own_rates: How many of the optimiser's last parameter groups (a critic's) keep their own learning rate in
                every stage. Warm-up and decay apply to them, the stage's learning rate does not.
        """
        shapes = [self._shape(stage, args) for stage in self.stages]

        def shape(step: int) -> float:
            i = self.index(step)
            return shapes[i](step - self.starts[i])

        def scaled(step: int) -> float:
            rate = self.stages[self.index(step)].learning_rate
            if rate is None:
                return shape(step)
            return shape(step) * rate / args.learning_rate if rate > 0 else 0.0

        groups = len(optimizer.param_groups)
        return LambdaLR(optimizer, [scaled if i < groups - own_rates else shape for i in range(groups)])

    def _shape(self, stage: Stage, args: TrainingArguments) -> Callable[[int], float]:
        """Return the learning rate as a function of the stage's step, as a multiple of its first one."""
        rate = args.learning_rate if stage.learning_rate is None else stage.learning_rate
        # Some schedules end at an absolute rate: they read their start from the optimiser.
        stand_in = torch.optim.SGD([torch.zeros(1)], lr=rate or args.learning_rate or 1.0)
        settings = args.lr_scheduler_kwargs
        assert not isinstance(settings, str), "transformers parses it"
        scheduler = get_scheduler(
            args.lr_scheduler_type,
            stand_in,
            num_warmup_steps=args.get_warmup_steps(stage.steps),
            num_training_steps=stage.steps,
            scheduler_specific_kwargs=settings,
        )
        if not isinstance(scheduler, LambdaLR):
            kind = SchedulerType(args.lr_scheduler_type).value
            raise ValueError(
                f"trainer.lr_scheduler_type {kind} depends on more than the step, which stages do not support. "
                "Choose constant, constant_with_warmup, linear or cosine."
            )
        shape: Callable[[int], float] = scheduler.lr_lambdas[0]
        return shape
