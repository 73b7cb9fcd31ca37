"""A run as a chain of stages: SFT for 200 steps, then GRPO for 300. A run of one objective is a chain of one.

A stage is what a run of its own would be: it starts from the policy that the stage before it left, with a fresh
optimiser, its own warm-up and schedule, and, as frozen policy, the policy that it starts from. What a chain adds: the
data pass goes on, there is one record, and a killed run resumes wherever it was.
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
    """One objective and how long it is followed."""

    objective: Objective
    steps: int
    """Optimiser steps."""
    learning_rate: float | None = None
    """Of this stage; None = `trainer.learning_rate`."""

    def __post_init__(self) -> None:
        name = type(self.objective).__name__
        if self.steps < 1:
            raise ValueError(f"the stage {name} has {self.steps} steps; give 1 or more")
        if self.learning_rate is not None and not self.learning_rate >= 0:
            raise ValueError(f"the stage {name} has a learning rate of {self.learning_rate}; give 0 or more")


class Chain:
    """The stages of a run, found by the number of steps made.

    Args:
        stages: one after the other.
        updates: optimiser steps that follow each collection, in stages that draw samples.
    """

    def __init__(self, stages: Sequence[Stage], updates: int = 1) -> None:
        if not stages:
            raise ValueError("a run needs at least one stage")
        self.stages = tuple(stages)
        self.starts = tuple(sum(stage.steps for stage in stages[:i]) for i in range(len(stages)))
        self.steps = sum(stage.steps for stage in stages)
        self._updates = updates
        for stage in self.stages:
            updates = self.updates(stage)
            if stage.steps % updates:
                raise ValueError(
                    f"{type(stage.objective).__name__} has {stage.steps} steps, but each collection serves {updates} "
                    "(num_iterations × num_mini_batches): give a multiple"
                )

    @property
    def needs(self) -> Needs:
        """What any of the stages needs."""
        return Needs.union(stage.objective.needs for stage in self.stages)

    def index(self, step: int) -> int:
        """Which stage makes the step after `step` steps; the last one when all are made."""
        return max(i for i, start in enumerate(self.starts) if start <= min(step, self.steps - 1))

    def progress(self, step: int) -> Progress:
        """How far its stage has come after `step` steps of the run."""
        i = self.index(step)
        return Progress(step - self.starts[i], self.stages[i].steps)

    def updates(self, stage: Stage) -> int:
        """Optimiser steps that follow each of the stage's collections."""
        return self._updates if stage.objective.needs.samples else 1

    def turn(self, step: int) -> int:
        """How many updates the current collection has already served; 0 asks for a new one."""
        i = self.index(step)
        return (step - self.starts[i]) % self.updates(self.stages[i])

    @property
    def reuses(self) -> bool:
        """Whether any collection serves several updates."""
        return any(self.updates(stage) > 1 for stage in self.stages)

    def check_checkpoints(self, key: str, every: int) -> None:
        """Raise a `ValueError` where a checkpoint would fall between two updates on one collection.

        A collection is not stored: what drew it is gone by then, so it could not be made again to the same bits.

        Args:
            key: the setting that says so.
            every: steps between checkpoints, 1 or more.
        """
        for step in range(every, self.steps, every):
            if self.turn(step) != 0:
                updates = self.updates(self.stages[self.index(step)])
                raise ValueError(
                    f"{key} is {every}, and step {step} lies between two updates on one collection; "
                    f"checkpoints are made where a new one starts: give a multiple of {updates} "
                    "(num_iterations × num_mini_batches)"
                )

    @property
    def has_schedule(self) -> bool:
        """Whether the learning rate follows the stages; if not, transformers' own schedule says it all."""
        return len(self.stages) > 1 or self.stages[0].learning_rate is not None

    def check_schedule(self, args: TrainingArguments) -> None:
        """Raise a `ValueError` for a schedule that is not a function of the step alone, or has nothing to scale."""
        for stage in self.stages:
            self._shape(stage, args)
            if stage.learning_rate and args.learning_rate == 0:
                raise ValueError(
                    f"trainer.learning_rate is 0, and the stage {type(stage.objective).__name__} has one of its own, "
                    "which is a multiple of it: give trainer.learning_rate a positive number, and a learning_rate of "
                    "0 to the stages that shall stand still"
                )

    def schedule(self, optimizer: Any, args: TrainingArguments, *, own_rates: int = 0) -> LambdaLR:
        """Each stage's warm-up and decay over its own steps, from its own learning rate.

        Args:
            optimizer: made with `args.learning_rate`.
            args: where the kind of schedule is said; it has passed `check_schedule`.
            own_rates: how many of the optimiser's last groups (a critic's) keep a learning rate of their own in every
                stage: warm-up and decay apply to it, the stage's learning rate does not.
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
        """The learning rate after so many steps of the stage, as a multiple of the one it starts from."""
        rate = args.learning_rate if stage.learning_rate is None else stage.learning_rate
        # Some schedules end at a rate and not at a share of one: they read where they start from the optimiser.
        stand_in = torch.optim.SGD([torch.zeros(1)], lr=rate or args.learning_rate or 1.0)
        settings = args.lr_scheduler_kwargs
        assert not isinstance(settings, str), "transformers has parsed it"
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
                f"trainer.lr_scheduler_type {kind} depends on more than the step, which stages cannot follow: "
                "choose constant, constant_with_warmup, linear or cosine"
            )
        shape: Callable[[int], float] = scheduler.lr_lambdas[0]
        return shape
