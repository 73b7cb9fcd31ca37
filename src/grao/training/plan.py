"""The plan of a run: its stages, how many steps it makes, and which rows it takes where collections are used again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from transformers import TrainingArguments

from grao.data import EncodedExample
from grao.objectives import Objective
from grao.rewards import RewardSet
from grao.rollout import Rollout
from grao.training.reuse import CollectionSampler
from grao.training.stages import Chain, Stage


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a run that is a function of the step."""

    chain: Chain
    sampler: CollectionSampler | None
    """None where every step collects anew: rows then come in the order of transformers' own sampler."""


def make_plan(objective: Objective | Sequence[Stage], rollout: Rollout, args: TrainingArguments, rows: int) -> Plan:
    """Lay out the run; where the stages or the reuse of collections decide its length, set `args.max_steps`.

    Raises:
        ValueError: lengths that do not go together: stages and `max_steps`, collections and steps, checkpoints in the
            middle of a collection, fewer rows than a collection takes.
    """
    chain = _chain(objective, rollout, args, rows)
    if chain.has_schedule:
        chain.check_schedule(args)
    if not chain.needs.samples and rollout.updates > 1:
        raise ValueError(
            "num_iterations and num_mini_batches repeat updates on drawn samples, and nothing is drawn here: leave "
            "them at 1, and set trainer.num_train_epochs"
        )
    if not chain.reuses:
        return Plan(chain, None)
    if args.train_sampling_strategy != "random":
        raise ValueError(
            f"trainer.train_sampling_strategy is {args.train_sampling_strategy!r}, but collections that serve several "
            "updates take rows in an order of their own: set it to random, or num_iterations and num_mini_batches to 1"
        )
    for strategy, key, every in (
        ("steps", "trainer.save_steps", args.save_steps),
        ("best", "evaluation.every", args.eval_steps),
    ):
        if args.save_strategy == strategy and every:  # 0 and none: never
            chain.check_checkpoints(key, int(every if every >= 1 else ceil(chain.steps * every)))
    args.max_steps = chain.steps
    return Plan(chain, CollectionSampler(rows, prompts_a_step(args), rollout.num_mini_batches, chain, args.seed))


def check_needs(chain: Chain, examples: Sequence[EncodedExample], rewards: RewardSet | None, rollout: Rollout) -> None:
    """Raise a `ValueError` where a stage is not given what its objective needs."""
    for stage in chain.stages:
        needs, name = stage.objective.needs, type(stage.objective).__name__
        if needs.samples and rewards is None:
            raise ValueError(f"{name} scores samples, but no rewards were given")
        if needs.samples and not needs.critic and rollout.num_generations < 2:
            raise ValueError(
                f"num_generations is {rollout.num_generations}, but {name} compares the samples of a group: "
                "give at least 2"
            )
        for field, needed in (("reference", needs.reference), ("rejected", needs.rejected)):
            lacking = next((e.example.row for e in examples if getattr(e, f"{field}_ids") is None), None)
            if needed and lacking is not None:
                raise ValueError(f"{name} needs a {field} answer in every row, but row {lacking} has none")


def prompts_a_step(args: TrainingArguments) -> int:
    """Prompts of one optimiser step, over all processes."""
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


def _chain(objective: Objective | Sequence[Stage], rollout: Rollout, args: TrainingArguments, rows: int) -> Chain:
    if isinstance(objective, Objective):
        updates = rollout.updates if objective.needs.samples else 1
        return Chain([Stage(objective, _steps(args, rows, rollout, updates))], updates)
    chain = Chain(objective, rollout.updates)
    if args.max_steps not in (-1, chain.steps):
        raise ValueError(f"max_steps is {args.max_steps}, but the stages make {chain.steps} in all: leave it out")
    args.max_steps = chain.steps
    return chain


def _steps(args: TrainingArguments, rows: int, rollout: Rollout, updates: int) -> int:
    """Optimiser steps of a run of one stage."""
    if args.max_steps > 0:
        return args.max_steps
    if updates == 1:  # as transformers counts
        batches = rows / (args.train_batch_size * args.world_size)
        batches = int(batches) if args.dataloader_drop_last else ceil(batches)
        return max(1, ceil(args.num_train_epochs * max(1, ceil(batches / args.gradient_accumulation_steps))))
    collections = rows // (prompts_a_step(args) * rollout.num_mini_batches)
    return max(1, ceil(args.num_train_epochs * collections)) * updates
