"""From a configuration to a trained model: everything is checked before the first step."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils import logging as transformers_logging

from grao.configuration import to_mapping
from grao.data import DataConfig, EncodedExample, Encoder, Example, ensure_pad_token, load_examples, validate_examples
from grao.evaluation import Sampling
from grao.objectives import Needs, Objective
from grao.policy import ModelConfig, load_policy
from grao.records import RunDirectory, latest_good_checkpoint
from grao.rewards import RewardConfig, RewardSet, load_reward
from grao.rollout import Rollout
from grao.terminal import make_console
from grao.training.callbacks import CompletionsTable, ProgressBar, Recorder, summary_lines
from grao.training.card import write_model_card
from grao.training.config import RunConfig, check_trainer, make_arguments
from grao.training.plan import check_needs, make_plan
from grao.training.stages import Chain, Stage
from grao.training.trainer import CriticConfig, GroupTrainer, Monitor

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


@dataclass(frozen=True, slots=True)
class _Parts:
    """A run as objects, whether a configuration or Python code described it."""

    model: ModelConfig
    objective: Objective | Sequence[Stage]
    rewards: RewardSet | None
    examples: Sequence[Example]
    encoding: DataConfig
    held_out: Sequence[Example] | None
    held_out_encoding: DataConfig | None
    held_out_rewards: RewardSet | None
    """None = those of the training."""
    held_out_sampling: Sampling | None
    rollout: Rollout
    critic: CriticConfig
    monitor: Monitor
    args: TrainingArguments
    keep_checkpoints: int | None
    resolved: dict[str, Any]
    """What the record will say this run was."""

    @property
    def needs(self) -> Needs:
        """Of the objective, or of any of the stages."""
        return _needs(self.objective)

    def new_tokens(self, held_out: bool) -> int:
        """How long an answer to these rows may be."""
        own = self.held_out_sampling if held_out else None
        return (own or self.rollout).max_new_tokens


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
    objective, evaluation = config.make_objective(), config.evaluation
    parts = _Parts(
        model=config.model,
        objective=objective,
        rewards=_reward_set(config.rewards),
        examples=read_examples(config.data, _needs(objective)),
        encoding=config.data,
        held_out=None if evaluation is None else read_examples(evaluation.data, _needs(objective)),
        held_out_encoding=None if evaluation is None else evaluation.data,
        held_out_rewards=_reward_set(() if evaluation is None else evaluation.rewards),
        held_out_sampling=None if evaluation is None else evaluation.sampling(config.rollout),
        rollout=config.rollout,
        critic=config.critic,
        monitor=config.monitor,
        args=config.training_arguments(),
        keep_checkpoints=config.trainer.get("save_total_limit"),
        resolved=config.resolved(),
    )
    return _run(parts, resume, overwrite, console or make_console())


def align(
    model: str | ModelConfig,
    rows: Iterable[Mapping[str, Any]],
    *,
    objective: Objective | Sequence[Stage],
    rewards: Sequence[Any] = (),
    rollout: Rollout | None = None,
    critic: CriticConfig | None = None,
    held_out: Iterable[Mapping[str, Any]] | None = None,
    held_out_rewards: Sequence[Any] = (),
    evaluate_every: int = 50,
    monitor: Monitor | None = None,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
    **trainer: Any,
) -> TrainedRun:
    """Align a model from Python: rows in memory, rewards as functions, any `Objective`.

    Example::

        def correct(completions, answer, **columns):
            return [float(a in text) for text, a in zip(completions, answer)]

        align("Qwen/Qwen3-0.6B", [{"prompt": "3 + 4 =", "reference": " 7", "answer": "7"}, ...],
              objective=GRAO.recommended(), rewards=[correct], output_dir="runs/first", max_steps=100)

    Args:
        model: hub id, path or `ModelConfig`.
        rows: mappings (a list, a `datasets.Dataset`) with `prompt`, `reference` (or `completion`, `chosen`) and
            whatever else the rewards read.
        objective: what to optimise; or a list of `Stage`s, whose steps are then the run's.
        rewards: functions of TRL's signature, names, paths, models or `RewardFunction`s; see `load_reward`.
        rollout: how samples are drawn.
        critic: which critic, for objectives that need one.
        held_out: rows to answer and score every `evaluate_every` steps.
        held_out_rewards: what scores them; `rewards` by default.
        evaluate_every: steps.
        monitor: what else to watch.
        resume: as in `train`.
        overwrite: as in `train`.
        console: as in `train`.
        trainer: fields of transformers' `TrainingArguments`, with this library's defaults.

    Raises:
        As `train`.
    """
    model = ModelConfig(model) if isinstance(model, str) else model
    rollout, monitor, critic = rollout or Rollout(), monitor or Monitor(), critic or CriticConfig()
    if not isinstance(objective, Objective):
        if "num_train_epochs" in trainer:
            raise ValueError("the stages say how long the run is, each by its steps: leave out num_train_epochs")
        trainer = {"max_steps": sum(stage.steps for stage in objective), **trainer}
    settings = check_trainer(trainer)
    encoding = DataConfig(source="rows in memory")
    functions = [load_reward(reward) for reward in rewards]
    judges = [load_reward(reward) for reward in held_out_rewards]
    parts = _Parts(
        model=model,
        objective=objective,
        rewards=RewardSet(functions) if functions else None,
        examples=_checked(load_examples(rows), _needs(objective)),
        encoding=encoding,
        held_out=None if held_out is None else _checked(load_examples(held_out), _needs(objective)),
        held_out_encoding=encoding,
        held_out_rewards=RewardSet(judges) if judges else None,
        held_out_sampling=None,
        rollout=rollout,
        critic=critic,
        monitor=monitor,
        args=make_arguments(settings, evaluate_every if held_out is not None else None, at_start=True),
        keep_checkpoints=settings.get("save_total_limit"),
        resolved={
            "model": to_mapping(model),
            "data": to_mapping(encoding),
            "objective": _described(objective),
            "rewards": [{"path": function.name, "weight": function.weight} for function in functions],
            "held_out_rewards": [{"path": judge.name, "weight": judge.weight} for judge in judges],
            "rollout": to_mapping(rollout),
            "critic": to_mapping(critic),
            "monitor": to_mapping(monitor),
            "trainer": settings,
        },
    )
    return _run(parts, resume, overwrite, console or make_console())


def _run(parts: _Parts, resume: bool, overwrite: bool, console: Console) -> TrainedRun:
    transformers_logging.disable_progress_bar()  # the console shows one bar, ours
    console.quiet = console.quiet or parts.args.process_index > 0
    set_seed(parts.args.seed)  # adapters are initialised from the global generator
    policy = load_policy(parts.model)
    said = ensure_pad_token(policy.tokenizer)
    if said:
        console.print(said, highlight=False, soft_wrap=True)
    encoder = parts.encoding.encoder(policy.tokenizer, policy.context_length)
    train_rows = _encode(parts.examples, encoder, parts, console)
    eval_rows = None
    if parts.held_out is not None and parts.held_out_encoding is not None:
        eval_encoder = parts.held_out_encoding.encoder(policy.tokenizer, policy.context_length)
        eval_rows = _encode(parts.held_out, eval_encoder, parts, console, answered=True)

    if parts.rewards is not None and parts.needs.samples:
        parts.rewards.check([row.as_group() for row in train_rows])
    if (held_out_rewards := parts.held_out_rewards or parts.rewards) is not None and eval_rows is not None:
        held_out_rewards.check([row.as_group() for row in eval_rows])
    check_fills_a_step(len(train_rows), parts.args)
    plan = make_plan(parts.objective, parts.rollout, parts.args, len(train_rows))
    check_needs(plan.chain, train_rows, parts.rewards, parts.rollout)
    record, checkpoint = _open(parts, resume, overwrite, console)
    # Not `resume`: a run killed before its first checkpoint starts over, evaluation and all.
    parts.args.eval_on_start = parts.args.eval_on_start and checkpoint is None
    bar = ProgressBar(console)
    table = CompletionsTable(console, parts.monitor.completions_every, parts.monitor.completions_shown)
    trainer = GroupTrainer(
        policy.model,
        parts.objective,
        policy.tokenizer,
        train_rows,
        parts.args,
        rewards=parts.rewards,
        rollout=replace(parts.rollout, stop_token_ids=(*parts.rollout.stop_token_ids, *encoder.stop_ids)),
        engine=parts.rollout.local_engine(policy.model, policy.tokenizer, partial(bar.working, "sampled")),
        eval_examples=eval_rows,
        eval_rewards=parts.held_out_rewards,
        eval_sampling=_with_ends(parts.held_out_sampling, encoder.stop_ids),
        monitor=parts.monitor,
        record=record,
        critic=parts.critic,
        progress=bar.working,
        callbacks=[bar, table, Recorder(record, parts.keep_checkpoints)],
    )
    table.trainer = trainer
    for default in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(default)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        bar.close()
    return _finish(trainer, record, parts, console)


def _reward_set(rewards: Sequence[RewardConfig]) -> RewardSet | None:
    return RewardSet([reward.load() for reward in rewards]) if rewards else None


def _with_ends(sampling: Sampling | None, stop_ids: tuple[int, ...]) -> Sampling | None:
    """Answers that end where samples do: at an end of turn too."""
    return None if sampling is None else replace(sampling, stop_token_ids=(*sampling.stop_token_ids, *stop_ids))


def _needs(objective: Objective | Sequence[Stage]) -> Needs:
    return objective.needs if isinstance(objective, Objective) else Chain(objective).needs


def _described(objective: Objective | Sequence[Stage]) -> Any:
    """For the record of a run described by Python code."""
    if isinstance(objective, Objective):
        return {"name": type(objective).__name__, **vars(objective)}
    return [
        {"steps": stage.steps, "learning_rate": stage.learning_rate, **_described(stage.objective)}
        for stage in objective
    ]


def read_examples(data: DataConfig, needs: Needs) -> Sequence[Example]:
    """The section's rows, every one of them checked for what is needed."""
    return _checked(data.load(), needs)


def _checked(examples: Sequence[Example], needs: Needs) -> Sequence[Example]:
    validate_examples(examples, needs_reference=needs.reference, needs_rejected=needs.rejected)
    return examples


def _encode(
    examples: Sequence[Example], encoder: Encoder, parts: _Parts, console: Console, *, answered: bool = False
) -> list[EncodedExample]:
    rows, report = encoder.encode_all(examples)
    console.print(str(report), highlight=False, soft_wrap=True)
    room = encoder.context_length
    new = parts.new_tokens(answered)
    setting = "evaluation.max_new_tokens" if new != parts.rollout.max_new_tokens else "rollout.max_new_tokens"
    if (parts.needs.samples or answered) and room is not None and report.longest_prompt + new > room:
        longest = max(rows, key=lambda row: len(row.prompt_ids))
        raise ValueError(
            f"row {longest.example.row}: its prompt of {report.longest_prompt} tokens and "
            f"{setting}={new} exceed the model's context of {room}; set "
            f"data.max_prompt_tokens to {max(room - new, 1)} with data.overlong 'drop' or 'cut', or lower "
            f"{setting}"
        )
    return rows


def check_fills_a_step(rows: int, args: TrainingArguments) -> None:
    """Raise a `ValueError` where dropping incomplete batches would leave nothing to train on."""
    if args.dataloader_drop_last and rows < args.train_batch_size:
        raise ValueError(
            f"trainer.dataloader_drop_last leaves out incomplete batches, and {rows} rows do not fill one of "
            f"{args.train_batch_size} prompts: nothing would be trained. Turn it off, or lower "
            "trainer.per_device_train_batch_size"
        )


def _open(parts: _Parts, resume: bool, overwrite: bool, console: Console) -> tuple[RunDirectory, str | None]:
    """The run's directory and the checkpoint to go on from; made by the main process, then found by the others."""
    path = str(parts.args.output_dir)
    with parts.args.main_process_first(desc="run directory"):
        if parts.args.process_index > 0:
            good = latest_good_checkpoint(Path(path)).path if resume else None
            return RunDirectory(Path(path)), None if good is None else str(good)
        record = RunDirectory.create(path, parts.resolved, overwrite=overwrite, resume=resume, allow=RESUME_MAY_CHANGE)
        return record, _checkpoint(record, console) if resume else None


def _checkpoint(record: RunDirectory, console: Console) -> str | None:
    """The latest good checkpoint to go on from; None where the run was killed before its first."""
    latest = latest_good_checkpoint(record.path)
    for rejected in latest.rejected:
        console.print(f"passing over {rejected.path.name}: {rejected.reason}", highlight=False, soft_wrap=True)
    record.truncate_after(-1 if latest.path is None else latest.step)
    begins = "no checkpoint yet: starting over" if latest.path is None else f"resuming from {latest.path}"
    console.print(begins, highlight=False, soft_wrap=True)
    return None if latest.path is None else str(latest.path)


def _finish(trainer: GroupTrainer, record: RunDirectory, parts: _Parts, console: Console) -> TrainedRun:
    trainer.save_model(str(record.model_folder))
    if trainer.is_world_process_zero():
        (record.model_folder / "training_args.bin").unlink(missing_ok=True)  # a pickle; config.yaml says it all
        write_model_card(record.model_folder, parts.resolved, parts.objective, trainer.state.log_history)
        for line in summary_lines(record.metrics_file):
            console.print(line, highlight=False)
        console.print(f"model: {record.model_folder}   records: {record.path}", highlight=False, soft_wrap=True)
    return TrainedRun(record.path, record.model_folder, trainer)
