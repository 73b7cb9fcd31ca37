"""The checks of a run, in one place: what must fit together before the first step."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import TrainingArguments

from grao.data import EncodedExample
from grao.objectives import Objective
from grao.rollout import Rollout
from grao.training.run_schedule import RunSchedule, make_schedule
from grao.training.stages import Stage


def check_run(
    objective: Objective | Sequence[Stage],
    rows: Sequence[EncodedExample],
    rollout: Rollout,
    args: TrainingArguments,
    *,
    has_rewards: bool,
) -> RunSchedule:
    """Return the schedule of a run whose objectives, rows, rollouts and steps fit together.

    Raises:
        ValueError: Something does not fit, with the setting to change.
    """
    check_fills_a_step(len(rows), args)
    schedule = make_schedule(objective, rollout, args, len(rows))
    for stage in schedule.stages.stages:
        name = stage.objective.title
        check_objective(name, stage.objective, has_rewards=has_rewards, num_generations=rollout.num_generations)
        check_rows(stage.objective, rows)
    return schedule


def check_objective(
    name: str, objective: Objective, *, has_rewards: bool, num_generations: int, prefix: str = ""
) -> None:
    """Raise a `ValueError` unless an objective that samples has rewards and enough samples per group.

    Args:
        name: The objective as the user calls it.
        objective: The objective of one stage.
        has_rewards: Whether at least one reward is given.
        num_generations: Samples per prompt.
        prefix: Section of `num_generations`, such as ``rollout.``.
    """
    if objective.needs.samples and not has_rewards:
        raise ValueError(f"{name} scores samples, but no rewards are given. Give at least one reward.")
    # Part by part: the critic of one part of a sum is no baseline for another.
    if num_generations < 2 and any(p.needs.samples and not p.needs.critic for p in objective.summands()):
        raise ValueError(
            f"{prefix}num_generations is {num_generations}, but {name} compares the samples of a group. "
            "Give at least 2."
        )


def check_rows(objective: Objective, examples: Sequence[EncodedExample]) -> None:
    """Raise a `ValueError` for the first row that lacks an answer the objective needs."""
    for field in ("reference", "rejected"):
        if not getattr(objective.needs, field):
            continue
        missing = next((e.example.row for e in examples if getattr(e, f"{field}_ids") is None), None)
        if missing is not None:
            raise ValueError(f"{objective.title} needs a {field} answer in every row, but row {missing} has none.")


def check_fills_a_step(rows: int, args: TrainingArguments) -> None:
    """Raise a `ValueError` where dropping incomplete batches would leave nothing to train on."""
    if args.dataloader_drop_last and rows < args.train_batch_size:
        raise ValueError(
            f"trainer.dataloader_drop_last drops incomplete batches, and {rows} rows do not fill one of "
            f"{args.train_batch_size} prompts. Turn it off, or lower trainer.per_device_train_batch_size."
        )


def check_fits_context(
    rows: Sequence[EncodedExample], max_new_tokens: int, context_length: int | None, setting: str
) -> None:
    """Raise a `ValueError` where the longest prompt and its answer exceed the model's context.

    Args:
        rows: Encoded rows, at least one.
        max_new_tokens: Longest answer, in tokens.
        context_length: The model's context, in tokens; None = unlimited.
        setting: The key that set `max_new_tokens`.
    """
    longest = max(rows, key=lambda row: len(row.prompt_ids))
    prompt = len(longest.prompt_ids)
    if context_length is not None and prompt + max_new_tokens > context_length:
        raise ValueError(
            f"Row {longest.example.row} has a prompt of {prompt} tokens; with {setting}={max_new_tokens} it exceeds "
            f"the model's context of {context_length}. Set data.max_prompt_tokens to "
            f"{max(context_length - max_new_tokens, 1)} with data.overlong 'drop' or 'cut', or lower {setting}."
        )
