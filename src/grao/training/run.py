"""From a configuration to a trained model: everything is checked before the first step."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils import logging as transformers_logging

from grao.data import EncodedExample, Encoder, Example, ensure_pad_token, load_examples, validate_examples
from grao.objectives import Objective
from grao.policy import Policy, load_policy
from grao.records import RunDirectory, latest_good_checkpoint
from grao.rewards import RewardSet, load_reward
from grao.rollout import LocalEngine
from grao.training.callbacks import CompletionsTable, ProgressBar, Recorder, summary_lines
from grao.training.card import write_model_card
from grao.training.config import DataConfig, RewardConfig, RunConfig
from grao.training.trainer import GroupTrainer

logger = logging.getLogger(__name__)

RESUME_MAY_CHANGE = frozenset({"trainer.max_steps", "trainer.save_steps", "trainer.save_total_limit", "monitor"})
"""What a resumed run may set anew: none of it changes a step already made, nor the draws of a later one."""


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """What a run leaves."""

    directory: Path
    model: Path
    """An ordinary transformers directory (or peft adapters)."""
    trainer: GroupTrainer


def train(
    config: RunConfig, *, resume: bool = False, overwrite: bool = False, console: Console | None = None
) -> TrainedRun:
    """Run a configuration to its end.

    Args:
        config: what to run.
        resume: go on from the latest good checkpoint of `trainer.output_dir`, to the same bits.
        overwrite: replace the run that is there.
        console: where progress is shown.

    Raises:
        ValueError, FileExistsError: bad input, before the first step, with what to do about it.
        NotFiniteError: a loss or gradient that is not finite.
    """
    console = console or Console()
    transformers_logging.disable_progress_bar()  # the console shows one bar, ours
    objective = config.make_objective()
    rewards = RewardSet([_reward(r) for r in config.rewards]) if config.rewards else None
    examples = read_examples(config.data, objective)
    held_out = None if config.evaluation is None else read_examples(config.evaluation.data, objective)
    args = config.training_arguments(resuming=resume)
    set_seed(args.seed)  # adapters are initialised from the global generator
    policy = load_policy(config.model)
    said = ensure_pad_token(policy.tokenizer)
    if said:
        console.print(said, highlight=False)
    encoder = make_encoder(config.data, policy)
    train_rows = _encode(examples, encoder, config, console)
    eval_rows = None
    if held_out is not None and config.evaluation is not None:
        eval_rows = _encode(held_out, make_encoder(config.evaluation.data, policy), config, console)

    record = RunDirectory.create(
        config.run_directory, config.resolved(), overwrite=overwrite, resume=resume, allow=RESUME_MAY_CHANGE
    )
    bar = ProgressBar(console)
    table = CompletionsTable(console, config.monitor.completions_every, config.monitor.completions_shown)
    trainer = GroupTrainer(
        policy.model,
        objective,
        policy.tokenizer,
        train_rows,
        args,
        rewards=rewards,
        rollout=config.rollout,
        engine=LocalEngine(policy.model, policy.tokenizer),
        eval_examples=eval_rows,
        monitor=config.monitor,
        record=record,
        callbacks=[bar, table, Recorder(record, config.trainer.get("save_total_limit"))],
    )
    table.trainer = trainer
    for default in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(default)
    try:
        trainer.train(resume_from_checkpoint=_checkpoint(record, console) if resume else None)
        if config.evaluation is not None and trainer.state.global_step % config.evaluation.every:
            trainer.evaluate()  # else the last step has just been evaluated
    finally:
        bar.close()
    return _finish(trainer, record, config, objective, console)


def read_examples(data: DataConfig, objective: Objective) -> Sequence[Example]:
    """The section's rows, every one of them checked for what the objective needs."""
    examples = load_examples(
        data.source,
        data.format,
        data.split,
        config=data.config,
        revision=data.revision,
        columns=data.columns or None,
        skip=data.skip,
        limit=data.limit,
        **data.options,
    )
    validate_examples(examples, needs_reference=objective.needs.reference, needs_rejected=objective.needs.rejected)
    return examples


def make_encoder(data: DataConfig, policy: Policy) -> Encoder:
    """The section's encoder for this policy."""
    return Encoder(
        policy.tokenizer,
        chat_template=data.chat_template,
        max_prompt_tokens=data.max_prompt_tokens,
        max_reference_tokens=data.max_reference_tokens,
        context_length=policy.context_length,
        overlong=data.overlong,
    )


def _encode(
    examples: Sequence[Example], encoder: Encoder, config: RunConfig, console: Console
) -> list[EncodedExample]:
    rows, report = encoder.encode_all(examples)
    console.print(str(report), highlight=False)
    room = encoder.context_length
    new = config.rollout.max_new_tokens
    if config.make_objective().needs.samples and room is not None and report.longest_prompt + new > room:
        longest = max(rows, key=lambda row: len(row.prompt_ids))
        raise ValueError(
            f"row {longest.example.row}: its prompt of {report.longest_prompt} tokens and "
            f"rollout.max_new_tokens={new} exceed the model's context of {room}; set "
            f"data.max_prompt_tokens to {max(room - new, 1)} with data.overlong 'drop' or 'cut', or lower "
            "rollout.max_new_tokens"
        )
    return rows


def _reward(reward: RewardConfig) -> Any:
    settings: dict[str, Any] = {"weight": reward.weight, "on_error": reward.on_error, "timeout": reward.timeout}
    if reward.name is not None:
        settings["name"] = reward.name
    if reward.comparison is not None:
        settings["comparison"] = reward.comparison
    return load_reward(reward.path, reward.kwargs, **settings)


def _checkpoint(record: RunDirectory, console: Console) -> str | None:
    """The latest good checkpoint to go on from; None where the run was killed before its first."""
    latest = latest_good_checkpoint(record.path)
    for rejected in latest.rejected:
        console.print(f"passing over {rejected.path.name}: {rejected.reason}", highlight=False)
    record.truncate_after(-1 if latest.path is None else latest.step)
    console.print(
        "no checkpoint yet: starting over" if latest.path is None else f"resuming from {latest.path}", highlight=False
    )
    return None if latest.path is None else str(latest.path)


def _finish(
    trainer: GroupTrainer, record: RunDirectory, config: RunConfig, objective: Objective, console: Console
) -> TrainedRun:
    trainer.save_model(str(record.model_folder))
    if trainer.is_world_process_zero():
        write_model_card(record.model_folder, config, objective, trainer.state.log_history)
        for line in summary_lines(record.metrics_file):
            console.print(line, highlight=False)
        console.print(f"model: {record.model_folder}   records: {record.path}", highlight=False)
    return TrainedRun(record.path, record.model_folder, trainer)
