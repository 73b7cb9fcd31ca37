"""From a configuration, or from Python objects, to a trained model. Every check runs before the first step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils import logging as transformers_logging

from grao.data import DataConfig, EncodedExample, Encoder, Example, ensure_pad_token, load_examples, validate_examples
from grao.objectives import Needs, Objective
from grao.policy import ModelConfig, load_policy
from grao.records import RunDirectory, latest_good_checkpoint
from grao.rewards import RewardConfig, RewardFunction, load_reward
from grao.rollout import Engine, EngineConfig, Rollout
from grao.terminal import make_console
from grao.training.callbacks import CompletionsTable, ProgressBar, Recorder, summary_lines
from grao.training.critic_training import CriticConfig
from grao.training.model_card import write_model_card
from grao.training.monitor import Monitor
from grao.training.run_checks import check_fits_context, check_run
from grao.training.run_config import EvaluationConfig, RunConfig, load_reward_set
from grao.training.stages import Stage
from grao.training.trainer import GroupTrainer

RESUME_MAY_CHANGE = frozenset({"trainer.max_steps", "trainer.save_steps", "trainer.save_total_limit", "monitor"})
"""Settings that may change on resume: none of them changes a finished step, nor the draws of a later one."""

IN_MEMORY = "rows in memory"
"""The `data.source` of rows that Python code passed."""


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """What a run leaves."""

    directory: Path
    model: Path
    """An ordinary transformers directory, or peft adapters."""
    trainer: GroupTrainer


def train(
    config: RunConfig, *, resume: bool = False, overwrite: bool = False, console: Console | None = None
) -> TrainedRun:
    """Run a configuration to its end.

    Args:
        config: What to run.
        resume: Continue from the latest good checkpoint of `trainer.output_dir`, to the same bits.
        overwrite: Replace the run in that directory.
        console: Shows progress.

    Raises:
        ValueError, FileExistsError: Bad input, found before the first step, with its remedy.
        NotFiniteError: A loss or gradient that is not finite.
    """
    evaluation = config.evaluation
    examples = read_examples(config.data, config.needs)
    held_out = None if evaluation is None else read_examples(evaluation.data, config.needs)
    return _run(config, examples, held_out, resume, overwrite, console or make_console())


def align(
    model: str | ModelConfig,
    rows: Iterable[Mapping[str, Any]],
    *,
    objective: Objective | Sequence[Stage],
    rewards: Sequence[Any] = (),
    rollout: Rollout | None = None,
    engine: EngineConfig | Engine | None = None,
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
        model: Hub id, path or `ModelConfig`.
        rows: Mappings (a list, a `datasets.Dataset`) with `prompt`, `reference` (or `completion`, `chosen`) and
            every column that the rewards read.
        objective: What to optimise; or a list of `Stage`s, whose steps are then the run's.
        rewards: Functions of TRL's signature, names, paths, models or `RewardFunction`s; see `load_reward`.
        rollout: How to sample.
        engine: Which engine samples: settings such as `LocalEngineConfig(max_rows=64)`, or an engine.
        critic: Which critic, for objectives that need one.
        held_out: Rows to answer and score every `evaluate_every` steps.
        held_out_rewards: Scores the answers; `rewards` by default.
        evaluate_every: Steps.
        monitor: What else to measure.
        resume: As in `train`.
        overwrite: As in `train`.
        console: As in `train`.
        trainer: Fields of transformers' `TrainingArguments`, with this library's defaults.

    Raises:
        ValueError, FileExistsError, NotFiniteError: As `train`.
    """
    in_memory, evaluation = DataConfig(source=IN_MEMORY), None
    if held_out is None and held_out_rewards:
        raise ValueError("held_out_rewards has no rows to score. Give held_out as well.")
    if held_out is not None:
        scored_by = _loaded(held_out_rewards)
        evaluation = EvaluationConfig(data=in_memory, rewards=scored_by, every=evaluate_every)  # type: ignore[arg-type]
    config = RunConfig(
        model=ModelConfig(model) if isinstance(model, str) else model,
        data=in_memory,
        objective=objective,  # type: ignore[arg-type]  # Python code may pass objects
        rewards=_loaded(rewards),  # type: ignore[arg-type]
        rollout=rollout or Rollout(),
        engine=engine or {},  # type: ignore[arg-type]
        critic=critic or CriticConfig(),
        monitor=monitor or Monitor(),
        evaluation=evaluation,
        trainer=trainer,
    )
    examples = _checked(load_examples(rows), config.needs)
    held_out_examples = None if held_out is None else _checked(load_examples(held_out), config.needs)
    return _run(config, examples, held_out_examples, resume, overwrite, console or make_console())


def _loaded(rewards: Sequence[Any]) -> list[RewardConfig | RewardFunction]:
    """Return rewards that are ready; one given by name or path keeps it, for the record."""
    if isinstance(rewards, str) or not isinstance(rewards, Sequence):
        raise ValueError(f"rewards is {rewards!r}. Give a list of rewards.")
    return [RewardConfig(reward) if isinstance(reward, str) else load_reward(reward) for reward in rewards]


def read_examples(data: DataConfig, needs: Needs) -> Sequence[Example]:
    """Load the rows of a data section and check each for what `needs` requires."""
    return _checked(data.load(), needs)


def _checked(examples: Sequence[Example], needs: Needs) -> Sequence[Example]:
    validate_examples(examples, needs_reference=needs.reference, needs_rejected=needs.rejected)
    return examples


def _run(
    config: RunConfig,
    examples: Sequence[Example],
    held_out: Sequence[Example] | None,
    resume: bool,
    overwrite: bool,
    console: Console,
) -> TrainedRun:
    transformers_logging.disable_progress_bar()  # the console shows one bar, ours
    args, objective, needs = config.training_arguments(), config.make_objective(), config.needs
    console.quiet = console.quiet or args.process_index > 0
    rewards = load_reward_set(config.rewards)
    eval_rewards = None if config.evaluation is None else load_reward_set(config.evaluation.rewards) or rewards
    set_seed(args.seed)  # adapters are initialised from the global generator
    policy = load_policy(config.model)
    if notice := ensure_pad_token(policy.tokenizer):
        console.print(notice, highlight=False, soft_wrap=True)
    encoder = config.data.encoder(policy.tokenizer, policy.context_length)
    rows = _encode(examples, encoder, console)
    if needs.samples:
        check_fits_context(rows, config.rollout.max_new_tokens, policy.context_length, "rollout.max_new_tokens")
    if rewards is not None and needs.samples:
        rewards.check([row.as_group() for row in rows])
    # The chat template's end-of-turn ids are stop tokens too.
    rollout = replace(config.rollout, stop_token_ids=(*config.rollout.stop_token_ids, *encoder.stop_ids))
    sampling, eval_rows = None, None
    if config.evaluation is not None and held_out is not None:
        sampling = config.evaluation.sampling(rollout)
        eval_encoder = config.evaluation.data.encoder(policy.tokenizer, policy.context_length)
        eval_rows = _encode(held_out, eval_encoder, console)
        setting = "rollout" if config.evaluation.max_new_tokens is None else "evaluation"
        check_fits_context(eval_rows, sampling.max_new_tokens, policy.context_length, f"{setting}.max_new_tokens")
        assert eval_rewards is not None, "RunConfig checks that something scores held-out answers"
        eval_rewards.check([row.as_group() for row in eval_rows])

    check_run(objective, rows, rollout, args, has_rewards=rewards is not None)
    record, checkpoint = _open(config, args, resume, overwrite, console)
    # Not `resume`: a run killed before its first checkpoint starts over, evaluation included.
    args.eval_on_start = args.eval_on_start and checkpoint is None
    bar = ProgressBar(console)
    table = CompletionsTable(console, config.monitor.completions_every, config.monitor.completions_shown)
    trainer = GroupTrainer(
        policy.model,
        objective,
        policy.tokenizer,
        rows,
        args,
        rewards=rewards,
        rollout=rollout,
        engine=config.engine,
        eval_examples=eval_rows,
        eval_rewards=eval_rewards,
        eval_sampling=sampling,
        monitor=config.monitor,
        record=record,
        critic=config.critic,
        progress=bar.working,
        callbacks=[bar, table, Recorder(record, config.trainer.get("save_total_limit"))],
    )
    table.trainer = trainer
    for default in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(default)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        bar.close()
    return _finish(trainer, record, config, console)


def _encode(examples: Sequence[Example], encoder: Encoder, console: Console) -> list[EncodedExample]:
    rows, report = encoder.encode_all(examples)
    console.print(str(report), highlight=False, soft_wrap=True)
    return rows


def _open(
    config: RunConfig, args: TrainingArguments, resume: bool, overwrite: bool, console: Console
) -> tuple[RunDirectory, str | None]:
    """Open the run directory and find the checkpoint to resume from; the main process makes it, the others wait."""
    path = str(args.output_dir)
    with args.main_process_first(desc="run directory"):
        if args.process_index > 0:
            good = latest_good_checkpoint(Path(path)).path if resume else None
            return RunDirectory(Path(path)), None if good is None else str(good)
        record = RunDirectory.create(
            path, config.resolved(), overwrite=overwrite, resume=resume, allow=RESUME_MAY_CHANGE
        )
        return record, _checkpoint(record, console) if resume else None


def _checkpoint(record: RunDirectory, console: Console) -> str | None:
    """Return the latest good checkpoint; None where the run was killed before its first."""
    latest = latest_good_checkpoint(record.path)
    for path, reason in latest.rejected.items():
        console.print(f"skipping {path.name}: {reason}", highlight=False, soft_wrap=True)
    record.truncate_after(-1 if latest.path is None else latest.step)
    notice = "no checkpoint yet: starting over" if latest.path is None else f"resuming from {latest.path}"
    console.print(notice, highlight=False, soft_wrap=True)
    return None if latest.path is None else str(latest.path)


def _finish(trainer: GroupTrainer, record: RunDirectory, config: RunConfig, console: Console) -> TrainedRun:
    trainer.save_model(str(record.model_folder))
    if trainer.is_world_process_zero():
        (record.model_folder / "training_args.bin").unlink(missing_ok=True)  # a pickle; config.yaml holds the same
        write_model_card(record.model_folder, config.resolved(), config.make_objective(), trainer.state.log_history)
        for line in summary_lines(record.metrics_file):
            console.print(line, highlight=False)
        console.print(f"model: {record.model_folder}   records: {record.path}", highlight=False, soft_wrap=True)
    return TrainedRun(record.path, record.model_folder, trainer)
