"""Everything about a run that is a function of the step: its stages, its length, and the rows each rollout takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from transformers import TrainingArguments

from grao.objectives import Objective
from grao.rollout import Rollout
from grao.training.rollout_reuse import ReuseSampler
from grao.training.stages import Stage, StageSequence


@dataclass(frozen=True, slots=True)
class RunSchedule:
    """The stages of a run and the order of its rows."""

    stages: StageSequence
    sampler: ReuseSampler | None
    """None where every step has its own rollout: rows then come in the order of transformers' own sampler."""


def make_schedule(
    objective: Objective | Sequence[Stage], rollout: Rollout, args: TrainingArguments, rows: int
) -> RunSchedule:
    """Lay out the run; set `args.max_steps` where stages or reused rollouts decide its length.

    Raises:
        ValueError: Lengths that contradict each other: stages and `max_steps`, rollouts and steps, checkpoints in the
            middle of a rollout, fewer rows than a rollout takes.
    """
    stages = _stages(objective, rollout, args, rows)
    if stages.has_schedule:
        stages.check_schedule(args)
    if not stages.needs.samples and rollout.updates > 1:
        raise ValueError(
            "num_iterations and num_mini_batches repeat updates on samples, but no stage samples. "
            "Leave them at 1 and set trainer.num_train_epochs."
        )
    if not stages.reuses:
        return RunSchedule(stages, None)
    if args.train_sampling_strategy != "random":
        raise ValueError(
            f"trainer.train_sampling_strategy is {args.train_sampling_strategy!r}, but rollouts that serve several "
            "updates need random. Set it to random, or num_iterations and num_mini_batches to 1."
        )
    for strategy, key, every in (
        ("steps", "trainer.save_steps", args.save_steps),
        ("best", "evaluation.every", args.eval_steps),
    ):
        if args.save_strategy == strategy and every:  # 0 and None mean never
            stages.check_checkpoints(key, int(every if every >= 1 else ceil(stages.steps * every)))
    args.max_steps = stages.steps
    return RunSchedule(stages, ReuseSampler(rows, prompts_per_step(args), rollout.num_mini_batches, stages, args.seed))


def prompts_per_step(args: TrainingArguments) -> int:
    """Return the prompts of one optimiser step, over all processes."""
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


def _stages(
    objective: Objective | Sequence[Stage], rollout: Rollout, args: TrainingArguments, rows: int
) -> StageSequence:
    if isinstance(objective, Objective):
        updates = rollout.updates if objective.needs.samples else 1
        return StageSequence([Stage(objective, _steps(args, rows, rollout, updates))], updates)
    stages = StageSequence(objective, rollout.updates)
    if args.max_steps not in (-1, stages.steps):
        raise ValueError(f"max_steps is {args.max_steps}, but the stages have {stages.steps} steps. Leave it out.")
    args.max_steps = stages.steps
    return stages


def _steps(args: TrainingArguments, rows: int, rollout: Rollout, updates: int) -> int:
    """Return the optimiser steps of a run with one stage."""
    if args.max_steps > 0:
        return args.max_steps
    if updates == 1:  # as transformers counts
        batches = rows / (args.train_batch_size * args.world_size)
        batches = int(batches) if args.dataloader_drop_last else ceil(batches)
        return max(1, ceil(args.num_train_epochs * max(1, ceil(batches / args.gradient_accumulation_steps))))
    rollouts = rows // (prompts_per_step(args) * rollout.num_mini_batches)
    return max(1, ceil(args.num_train_epochs * rollouts)) * updates
