"""transformers' `Trainer` with the steps of `grao.training.step` in its hooks.

A step is in `step.py`; this file holds only what transformers' hooks require:

- `get_batch_samples` prepares a step. transformers calls it once per optimiser step, for all its micro-batches. (Not
  the data loader: accelerate fetches one batch ahead there, and would sample with the weights before the last update.)
- `compute_loss` is one micro-batch.
- `create_optimizer`, `create_scheduler`, `_clip_grad_norm`, `_get_grad_norm`: the critic's weights, a learning-rate
  schedule per stage, and a stop before the optimiser sees a gradient that is not finite.
- `_save_checkpoint`, `_load_from_checkpoint`, `save_model`: the critic beside the policy, and errors that name the
  checkpoint that is safe.
- `log`, `evaluate`: group metrics, held-out rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments

from grao.data import EncodedExample
from grao.evaluation import Sampling
from grao.groups import GroupBatch
from grao.objectives import Objective
from grao.policy import Critic, FrozenPolicy
from grao.records import RunDirectory
from grao.rewards import RewardSet
from grao.rollout import Engine, EngineConfig, Rollout, make_engine
from grao.training.callbacks import StepHooks
from grao.training.critic_training import CriticConfig, CriticTraining
from grao.training.failures import explain_failed_write, not_finite
from grao.training.frozen_anchor import FrozenAnchor
from grao.training.heldout_evaluation import HeldOutEvaluation
from grao.training.last_step_checkpoint import LastStepCheckpoint
from grao.training.meter import merge_meters
from grao.training.monitor import Monitor
from grao.training.run_checks import check_run
from grao.training.stage_entry import enter_stage
from grao.training.stages import Stage
from grao.training.step import micro_batch_loss, prepare_step
from grao.training.step_state import StepState


class Rows(Dataset):
    """Encoded examples as a torch data set."""

    def __init__(self, examples: Sequence[EncodedExample]) -> None:
        self.examples = list(examples)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> EncodedExample:
        return self.examples[index]


class GroupTrainer(Trainer):
    """Trains a causal language model on groups, by any `Objective`.

    Args:
        model: A causal LM prepared by `grao.policy.install_scoring`, with or without adapters.
        objective: What to optimise; or a list of stages, whose steps are then the run's.
        tokenizer: The model's.
        train_examples: Encoded rows; each gives one group whenever it is drawn.
        args: transformers' arguments. `per_device_train_batch_size` counts *prompts* per micro-batch.
        rewards: Scores samples and references; needed by objectives that sample.
        rollout: How to sample.
        engine: An engine or its settings; samples from the model itself, in this process, by default.
        eval_examples: Held-out rows to answer and score.
        eval_rewards: Scores the answers; `rewards` by default.
        eval_sampling: How to answer held-out rows; greedily, with the rollout's lengths and stops, by default.
        monitor: What else to measure.
        record: The run directory that completions are written to.
        frozen_policy: The KL anchor of the first stage; made from `model` where something needs it.
        critic: Which critic, for objectives that need one.
        progress: Called with (what, done, total) during long work.
        callbacks: transformers' callbacks.
    """

    loss_is_scaled_for_ga = True  # `compute_loss` divides by the whole step's denominator

    def __init__(
        self,
        model: Any,
        objective: Objective | Sequence[Stage],
        tokenizer: PreTrainedTokenizerBase,
        train_examples: Sequence[EncodedExample],
        args: TrainingArguments,
        *,
        rewards: RewardSet | None = None,
        rollout: Rollout | None = None,
        engine: Engine | EngineConfig | Mapping[str, Any] | None = None,
        eval_examples: Sequence[EncodedExample] | None = None,
        eval_rewards: RewardSet | None = None,
        eval_sampling: Sampling | None = None,
        monitor: Monitor | None = None,
        record: RunDirectory | None = None,
        frozen_policy: FrozenPolicy | None = None,
        critic: CriticConfig | None = None,
        progress: Callable[[str, int, int], None] | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        rollout, monitor = rollout or Rollout(), monitor or Monitor()
        schedule = check_run(objective, train_examples, rollout, args, has_rewards=rewards is not None)
        anchor = FrozenAnchor(model, schedule.stages, monitor_kl=monitor.kl_every > 0, policy=frozen_policy)
        self._sampler = schedule.sampler
        args.remove_unused_columns = False
        super().__init__(
            model=model,
            args=args,
            train_dataset=Rows(train_examples),
            eval_dataset=None if eval_examples is None else Rows(eval_examples),
            data_collator=lambda rows: {"examples": rows},
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        self.model_accepts_loss_kwargs = True
        self.progress = progress or (lambda what, done, total: None)
        needs_critic = schedule.stages.needs.critic
        self.step = StepState(
            model=self.model,
            stages=schedule.stages,
            engine=make_engine(engine, model, tokenizer, partial(self.progress, "sampled")),
            rollout=rollout,
            rewards=rewards,
            anchor=anchor.to(self.args.device),
            critic=CriticTraining(model, critic or CriticConfig(), args, self.accelerator) if needs_critic else None,
            last_step=LastStepCheckpoint(args, self.accelerator, self._save_last_step),
            monitor=monitor,
            record=record,
            args=self.args,
            accelerator=self.accelerator,
            trainer_state=self.state,
            pad_token_id=int(tokenizer.pad_token_id or 0),
        )
        self.heldout = HeldOutEvaluation(eval_rewards or rewards, eval_sampling or Sampling.like(rollout), record)
        self.add_callback(StepHooks(self.step))

    @property
    def critic(self) -> Critic | None:
        """The critic, for objectives that need one."""
        return None if self.step.critic is None else self.step.critic.critic

    @property
    def frozen_policy(self) -> FrozenPolicy | None:
        """The KL anchor of the current stage; None where nothing needs its weights."""
        return self.step.anchor.policy

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as transformers does, with the engine open; close it at the end or on an error."""
        self.step.engine.open()
        try:
            return super().train(*args, **kwargs)
        finally:
            self.step.engine.close()

    # --- a step

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, GroupBatch]], Tensor | None]:
        """Prepare one optimiser step; return its micro-batches and its denominator."""
        if self.state.global_step >= self.state.max_steps:
            return [], None  # resumed from the last step's checkpoint: transformers would make one step more
        self.step.trainer_state = self.state
        enter_stage(self.step, self.optimizer, self.train_dataset.examples, self.progress)  # type: ignore[union-attr]
        self.step.started = time.perf_counter()
        if self.critic is not None:
            self.critic.zero_grad(set_to_none=True)
        prepared = prepare_step(self.step, epoch_iterator, num_batches)
        if prepared is None:
            return [], None
        micro_batches, denominator = prepared
        return [{"groups": micro_batch} for micro_batch in micro_batches], denominator

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the micro-batch's share of the loss, times the number of processes, over which DDP averages."""
        assert isinstance(num_items_in_batch, Tensor), "get_batch_samples returns the denominator"
        return (
            micro_batch_loss(self.step, model, inputs["groups"], num_items_in_batch) * self.accelerator.num_processes
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        return super()._get_train_sampler(train_dataset) if self._sampler is None else self._sampler

    # --- optimiser

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Make transformers' optimiser, with the critic's weights in parameter groups of their own."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if fresh and self.step.critic is not None:
            for group in self.step.critic.parameter_groups(self.get_decay_parameter_names(self.step.critic.critic)):
                optimizer.add_param_group(group)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Make transformers' schedule or, for stages, a sequence of theirs."""
        if not self.step.stages.has_schedule or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        own_rates = 0 if self.step.critic is None else self.step.critic.own_rates
        optimizer = self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = self.step.stages.schedule(optimizer, self.args, own_rates=own_rates)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def _clip_grad_norm(self, model: Any) -> Any:
        if self.step.critic is None:
            return super()._clip_grad_norm(model)
        return self.step.critic.clip_together(model, self.args.max_grad_norm)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if grad_norm is None and self.step.critic is not None:
            grad_norm = self.step.critic.clip_together(model, float("inf"))
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        value = float(norm)
        if not torch.isfinite(torch.tensor(value)):
            rows = [group.row for group in self.step.last_groups]
            raise not_finite(f"the gradient's norm is {value}", self.state.global_step + 1, rows, self.step.output_dir)
        self.step.meter.add_value("grad/second_moment", value**2)
        if self.step.shares is not None:
            for name, share in self.step.shares.metrics().items():
                self.step.meter.add_value(name, share)
            self.step.shares = None
        return norm

    # --- save and load

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with explain_failed_write("checkpoint", self.state.global_step, self.step.output_dir):
            super()._save_checkpoint(model, trial)
            if self.critic is not None and self.args.should_save:
                self.critic.save(Path(self.step.output_dir) / f"checkpoint-{self.state.global_step}")

    def _save_last_step(self) -> None:
        """Log and save the step that is over, through transformers' own path."""
        assert self.model is not None
        self.control.should_log, self.control.should_evaluate, self.control.should_save = True, False, True
        self._maybe_log_save_evaluate(
            self._tr_loss, None, self.model, None, self.state.epoch or 0.0, None, self.step.started
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.critic is not None:
            self.critic.load(resume_from_checkpoint)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model as transformers does."""
        explained = explain_failed_write("model", self.state.global_step, self.step.output_dir)
        with nullcontext() if _internal_call else explained:
            super().save_model(output_dir, _internal_call)

    # --- logs and evaluation

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the group metrics gathered since the last log."""
        if self._sampler is not None:
            self.state.epoch = self._sampler.passes(self.state.global_step)
        if "loss" in logs:
            merged = merge_meters(gather_object([self.step.meter.state()]))
            self.step.meter.clear()
            merged["num_tokens"] = self.state.num_input_tokens_seen
            logs = {**logs, **merged}
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Answer the held-out prompts and score the answers; metrics under ``eval_``."""
        rows: Any = eval_dataset if eval_dataset is not None else self.eval_dataset
        self.step.trainer_state = self.state
        try:
            found = self.heldout.run(self.step, None if rows is None else [rows[i] for i in range(len(rows))])
        finally:
            if not self.is_in_train:
                self.step.engine.close()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
