"""The trainer: transformers' own, with the collection of groups put in front of every optimiser step.

What it overrides, and nothing else:

- `get_batch_samples`, called once a step with all its micro-batches: pull the prompts, draw and score groups with the
  current weights, cut them into as many micro-batches, balanced by tokens. (Not in the data loader: accelerate
  fetches one batch ahead there, and would sample with the weights before the last update.) Where a collection serves
  several steps, only the first of them pulls, and the sampler leaves room for the others.
- `compute_loss`: log-probs of the groups, the objective's loss over the denominator of the whole step.
- `_clip_grad_norm` and `_get_grad_norm`: the critic's gradients count too; one that is not finite stops the run before
  the optimiser sees it.
- `create_optimizer` and `create_scheduler`: the critic's weights; a schedule for each stage.
- `_save_checkpoint`, `_load_from_checkpoint` and `save_model`: the critic beside the policy; a write that fails says
  what is safe. A reward that fails for good ends the run with a checkpoint of the last step.
- `log` and `evaluate`: group metrics; held-out rewards.

It reads what an objective needs and knows none by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, gather_object
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments

from grao.compat.torch_modules import evaluating
from grao.data import EncodedExample
from grao.evaluation import Sampling, evaluate_heldout, heldout_metrics, items_of
from grao.groups import Group, GroupBatch, collate
from grao.objectives import LossOutput, Objective
from grao.policy import Critic, CriticKind, FrozenPolicy, group_logprobs, router_coefficient
from grao.records import RunDirectory, latest_good_checkpoint
from grao.records.durable import make_atomically
from grao.rewards import RewardError, RewardSet
from grao.rollout import Engine, Rollout, draw_seed
from grao.training.collect import balance, collect
from grao.training.constants import FrozenTable, drawn_only, over_groups
from grao.training.metrics import (
    Meter,
    add_lengths,
    advantage_bound,
    group_metrics,
    likelihood_metrics,
    member_advantages,
    merge,
    running_metrics,
)
from grao.training.plan import check_needs, make_plan, prompts_a_step
from grao.training.random_states import RandomStates
from grao.training.reuse import Collection
from grao.training.shares import GradientShares
from grao.training.stages import Stage
from grao.training.start_answers import StartAnswers


class NotFiniteError(FloatingPointError):
    """A loss or gradient that is not finite; the optimiser has not seen it."""


@dataclass(frozen=True)
class Monitor:
    """What to watch, beyond what every step shows."""

    kl_every: int = 10
    """Steps between estimates of the KL to the frozen policy; 0 = never. Costs a copy of the weights (none with
    adapters) and, on those steps, one forward pass. An objective that needs the frozen policy measures it always."""
    gradient_shares_every: int = 0
    """Steps between measurements of each loss term's share of the gradient; 0 = never. Costs one backward pass a
    term on those steps."""
    completions_every: int = 10
    """Steps between tables of completions in the terminal; 0 = never. The records hold all of them."""
    completions_shown: int = 4
    """Rows of that table."""

    def __post_init__(self) -> None:
        for name in ("kl_every", "gradient_shares_every", "completions_every", "completions_shown"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 (never) or a number of steps")


@dataclass(frozen=True)
class CriticConfig:
    """The critic, for objectives that need one (PPO)."""

    kind: CriticKind = "separate"
    """`separate`: a value head on a copy of the policy's backbone; it costs a second model and leaves the policy
    alone. `shared`: one on the policy's own hidden states; it costs a vector, but the value loss then trains the
    policy's backbone too, which made PPO worse where we measured it (docs/decisions.md)."""
    learning_rate: float | None = None
    """Of the critic's own weights, in every stage; null = that of the policy. A schedule applies to both."""

    def __post_init__(self) -> None:
        if self.learning_rate is not None and not self.learning_rate >= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; give 0 or more")


class Rows(Dataset):
    """Encoded examples as a torch data set."""

    def __init__(self, examples: Sequence[EncodedExample]) -> None:
        self._examples = list(examples)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> EncodedExample:
        return self._examples[index]


class GroupTrainer(Trainer):
    """Trains a causal language model on groups, by any `Objective`.

    Args:
        model: a causal LM that went through `grao.policy.install_scoring`, with or without adapters.
        objective: what to optimise; or stages, one after the other, which then say how many steps the run makes.
        tokenizer: the model's.
        train_examples: encoded rows; each gives one group a time it is drawn.
        args: transformers' arguments. `per_device_train_batch_size` counts *prompts* in a micro-batch.
        rewards: what scores the samples and the reference; needed by objectives that need samples.
        rollout: how samples are drawn.
        engine: who draws them; the model itself, in this process, by default.
        eval_examples: held-out rows, to be answered and scored.
        eval_rewards: what scores them; `rewards` by default.
        eval_sampling: how they are answered; greedily, as long as samples, by default.
        monitor: what else to watch.
        record: the run directory that completions are written to.
        frozen_policy: the KL anchor of the first stage; made from `model` as it is now where something needs it.
        critic: which critic, where an objective needs one.
        progress: is told what long work is under way, how much of it is done, and of how much.
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
        engine: Engine | None = None,
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
        self.rollout = rollout or Rollout()
        self.monitor = monitor or Monitor()
        self.rewards = rewards
        self.eval_rewards = eval_rewards or rewards
        self.eval_sampling = eval_sampling or Sampling(
            max_new_tokens=self.rollout.max_new_tokens,
            temperature=0.0,
            stop=self.rollout.stop,
            stop_token_ids=self.rollout.stop_token_ids,
        )
        self._start: StartAnswers = StartAnswers(record)
        self.record = record
        plan = make_plan(objective, self.rollout, args, len(train_examples))
        self.chain, self._sampler = plan.chain, plan.sampler
        self.objective: Objective = self.chain.stages[0].objective
        check_needs(self.chain, train_examples, rewards, self.rollout)
        wants_frozen = self._wants_frozen_policy(self.chain.stages[0])
        self.frozen_policy = frozen_policy or (FrozenPolicy(model) if wants_frozen else None)
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
        self._tokenizer = tokenizer
        self.engine: Engine = engine or self.rollout.local_engine(model, tokenizer)
        if self.frozen_policy is not None:
            self.frozen_policy.to(self.args.device)
        self._critic_config = critic or CriticConfig()
        self.critic = self._make_critic() if self.chain.needs.critic else None
        self._progress = progress or (lambda doing, done, total: None)
        self._entered: int | None = None
        self._frozen_table: FrozenTable | None = None
        self._collection: Collection | None = None
        self.meter = Meter()
        self.last_groups: list[Group] = []
        self._shares: GradientShares | None = None
        self._micro_batches_left = 0
        self._groups_in_step = 0
        self._step_started = 0.0
        self._after_step: RandomStates | None = None
        self.add_callback(_StepEnd(self))

    @property
    def _stage(self) -> Stage:
        return self.chain.stages[self.chain.index(self.state.global_step)]

    # ------------------------------------------------------------------ stages

    def _enter_stage(self) -> None:
        """Once at the start of each stage, and once after resuming in the middle of one."""
        place = self.chain.index(self.state.global_step)
        if place == self._entered:
            return
        stage, begins = self.chain.stages[place], self.state.global_step == self.chain.starts[place]
        self.objective = stage.objective
        if place > 0:
            if begins:
                _state_of(self.optimizer).clear()
            if begins and self.critic is not None and stage.objective.needs.critic:
                self.critic.restart(self.model)
            self.frozen_policy = self._freeze(place, begins) if self._wants_frozen_policy(stage) else None
        self._frozen_table = self._tabulate(stage)
        if self._frozen_table is not None:
            self.frozen_policy = None  # its copy of the weights is not needed any more
        self._entered = place

    def _wants_frozen_policy(self, stage: Stage) -> bool:
        needs = stage.objective.needs
        return needs.frozen_policy or (self.monitor.kl_every > 0 and needs.samples)

    def _freeze(self, place: int, begins: bool) -> FrozenPolicy:
        """The policy at the start of a later stage: as it is now or, resumed in its middle, as it was kept then."""
        frozen = FrozenPolicy(self.model, adapted=True).to(self.args.device)
        file = Path(str(self.args.output_dir)) / "stages" / str(place) / "frozen_policy.safetensors"
        if not begins:
            if not file.is_file():
                only_watched = not self.chain.stages[place].objective.needs.frozen_policy
                raise ValueError(
                    f"{file} is missing: it holds the policy that stage {place + 1} started from, and a run resumed "
                    "in the middle of it measures its KL from there. Start the run anew"
                    + (", or set monitor.kl_every to 0" if only_watched else "")
                )
            frozen.load(file)
        elif self.args.should_save and self.args.save_strategy != "no":
            with self._saying_what_is_safe("frozen policy of a stage"):
                file.parent.mkdir(parents=True, exist_ok=True)
                make_atomically(file, frozen.save)
        return frozen

    def _tabulate(self, stage: Stage) -> FrozenTable | None:
        """log π_frozen of every row, once, where each is trained on at least once and nothing is drawn."""
        rows, needs = self.train_dataset, stage.objective.needs
        assert isinstance(rows, Rows)
        if needs.samples or not needs.frozen_policy or stage.steps * prompts_a_step(self.args) < len(rows):
            return None
        size = self.args.train_batch_size
        starts = range(0, len(rows), size)
        return FrozenTable(
            (self._collate(self._collect([rows[i] for i in range(s, min(s + size, len(rows)))])) for s in starts),
            lambda batch: self._frozen_logprobs(batch.to(self.args.device)),
            lambda done: self._progress("rows under the frozen policy", done, len(rows)),
        )

    # ------------------------------------------------------------------ critic

    def _make_critic(self) -> Critic:
        distributed = self.accelerator.distributed_type
        if distributed not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
            raise ValueError(
                f"a critic trains in one process or under DDP, not under {distributed.value}: choose an objective "
                "without a critic (grao, grpo), or another launcher"
            )
        critic = Critic(self.model, self._critic_config.kind).to(self.args.device)
        if self.args.gradient_checkpointing and critic.backbone is not None:
            critic.backbone.gradient_checkpointing_enable(self.args.gradient_checkpointing_kwargs)
        return critic

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """transformers' optimiser, with the critic's weights in groups of their own."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        for group in self._critic_groups() if fresh else ():
            optimizer.add_param_group(group)
        return optimizer

    def _critic_groups(self) -> list[dict[str, Any]]:
        """The critic's weights for the optimiser: those that decay and, as in the policy, norms and biases without."""
        if self.critic is None:
            return []
        rate, decaying = self._critic_config.learning_rate, self.get_decay_parameter_names(self.critic)
        return [
            {
                "params": [p for name, p in self.critic.named_parameters() if (name in decaying) is decays],
                "weight_decay": self.args.weight_decay if decays else 0.0,
                "lr": self.args.learning_rate if rate is None else rate,
            }
            for decays in (True, False)
        ]

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """transformers' schedule; for stages, each one's own, one after the other."""
        if not self.chain.has_schedule or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        optimizer = self.optimizer if optimizer is None else optimizer
        own_rates = 0 if self._critic_config.learning_rate is None else len(self._critic_groups())
        self.lr_scheduler = self.chain.schedule(optimizer, self.args, own_rates=own_rates)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def _clip_grad_norm(self, model: Any) -> Any:
        if self.critic is None:
            return super()._clip_grad_norm(model)
        return self._clip_with_critic(model, self.args.max_grad_norm)

    def _clip_with_critic(self, model: Any, limit: float) -> Any:
        """One norm over policy and critic, as if they were one model."""
        assert self.critic is not None
        for parameter in self.critic.parameters():
            if parameter.grad is not None:  # DDP averages the policy's gradients only
                parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")
        return self.accelerator.clip_grad_norm_([*model.parameters(), *self.critic.parameters()], limit)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.critic is not None:
            self.critic.load(resume_from_checkpoint)

    # ------------------------------------------------------------------ collect

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, GroupBatch]], Tensor | None]:
        """One optimiser step: prompts → groups → micro-batches, and the step's denominator."""
        if self.state.global_step >= self.state.max_steps:
            return [], None  # resumed from the last step's checkpoint: transformers would make one step more
        self._enter_stage()
        self._step_started = time.perf_counter()
        if self.critic is not None:
            self.critic.zero_grad(set_to_none=True)
        turn = self.chain.turn(self.state.global_step)
        if turn == 0:
            self._collection = self._next_collection(epoch_iterator, num_batches)
        elif self._collection is None:
            raise ValueError(
                f"step {self.state.global_step + 1} goes on with a collection that no checkpoint stores: resume from "
                "one that was made where a new collection starts"
            )
        if self._collection is None:
            return [], None
        groups, batch = self._collection.part(turn)
        self._measure(groups, batch)
        bins = self._collection.micro_batches // self._collection.mini_batches
        running = self._what_runs(batch)
        self.meter.add(running_metrics(batch, running))
        micro_batches = [batch.select(places).to(device) for places in balance(_tokens(running), bins)]
        self._micro_batches_left = len(micro_batches)
        if self._due(self.monitor.gradient_shares_every):
            self._shares = GradientShares(self._trained_parameters)
        self._groups_in_step = int(self._sum_over_ranks(torch.tensor(len(batch))))
        denominator = self._sum_over_ranks(self.objective.denominator(batch))
        return [{"groups": micro_batch} for micro_batch in micro_batches], denominator

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        return super()._get_train_sampler(train_dataset) if self._sampler is None else self._sampler

    def _next_collection(self, epoch_iterator: Iterator, num_batches: int) -> Collection | None:
        """Prompts → sampled, scored groups with their constants and advantages; None when the data has run out."""
        updates = self.chain.updates(self._stage)
        mini_batches = self.rollout.num_mini_batches if updates > 1 else 1
        pulled = list(islice(epoch_iterator, num_batches * updates))
        pulled = pulled[: len(pulled) * mini_batches // updates]  # the rest holds the places of later passes
        if not pulled:
            return None
        groups = self._collect([example for batch in pulled for example in batch["examples"]])
        batch = self._collate(groups)
        batch = self._with_constants(batch, balance(_tokens(batch), len(pulled)))
        batch = self.objective.with_advantages(batch)
        if not self.rollout.is_comparable:
            batch = batch.with_(sampling_logprobs_PMT=None)
        if self.record is not None and self.is_world_process_zero() and batch.num_samples:
            self.record.write_completions(self.state.global_step + 1, completion_rows(groups, batch))
        return Collection(
            groups, batch, len(pulled), mini_batches, draw_seed(self.args.seed, self.state.global_step, 0, 0)
        )

    def _collate(self, groups: Sequence[Group]) -> GroupBatch:
        return collate(
            groups,
            pad_token_id=self._pad_token_id,
            mask_truncated=self.rollout.truncated == "mask",
            mask_reference=not self.objective.needs.reference,
        )

    def _used(self, examples: Sequence[EncodedExample]) -> Sequence[EncodedExample]:
        """The examples without the rejected answer, where nothing looks at it."""
        if self.objective.needs.rejected:
            return examples
        return [replace(example, rejected_ids=None) for example in examples]

    def _collect(self, examples: Sequence[EncodedExample]) -> list[Group]:
        examples = self._used(examples)
        if not self.objective.needs.samples:
            return [example.as_group() for example in examples]
        assert self.rewards is not None
        self.engine.sync(self.model, version=str(self.state.global_step))
        try:
            with self.accelerator.autocast():
                groups, report = collect(
                    examples,
                    step=self.state.global_step,
                    seed=self.args.seed,
                    engine=self.engine,
                    rewards=self.rewards,
                    rollout=self.rollout,
                )
            failed = None
        except RewardError as error:
            failed = error
        self._stop_together(failed)
        for name, value in report.metrics().items():
            self.meter.add_value(name, value)
        return groups

    def _stop_together(self, failed: RewardError | None) -> None:
        """Where the rewards failed in any process, save what can be resumed from, and end in all of them."""
        if not bool(self._sum_over_ranks(torch.tensor(int(failed is not None)))):
            return
        error = failed or RewardError("the rewards failed in another process, which says why")
        self._save_last_step()
        self.accelerator.wait_for_everyone()  # the checkpoint is sealed
        _remark(error, f"{self._last_good()}, where --resume (resume=True) begins")
        raise error

    def _save_last_step(self) -> None:
        """A checkpoint of the last step, sealed, unless there is one; to be called where the next collection failed.

        That is a border between collections. Nothing of the failed one is in the weights, the optimiser or the meter,
        and the generators are put back to where that step left them: resumed from here, a run is the run that would
        have gone on.
        """
        good = latest_good_checkpoint(Path(str(self.args.output_dir))).step
        self.accelerator.wait_for_everyone()  # all have looked before one of them writes
        if self.args.save_strategy == "no" or self._after_step is None or good == self.state.global_step:
            return
        assert self.model is not None
        self._after_step.restore()
        self.control.should_log, self.control.should_evaluate, self.control.should_save = True, False, True
        self._maybe_log_save_evaluate(
            self._tr_loss, None, self.model, None, self.state.epoch or 0.0, None, self._step_started
        )

    def _measure(self, groups: list[Group], batch: GroupBatch) -> None:
        self.last_groups = groups
        self.meter.add(group_metrics(batch))
        samples = [sample for group in groups for sample in group.samples]
        add_lengths(self.meter, [len(s.ids) for s in samples], [s.finish == "stop" for s in samples])
        if samples:
            assert batch.advantages_PM is not None
            self.meter.add_extreme("advantage/abs_max", float(batch.advantages_PM.abs().max()), max)
            if batch.advantages_PM.dim() == 2:
                self.meter.add_extreme("advantage/bound", advantage_bound(batch.rewards_PM.shape[1]), max)
        # Kept in the trainer's state, so that a resumed run goes on counting.
        self.state.num_input_tokens_seen += int(self._sum_over_ranks(torch.tensor(batch.num_tokens)))

    # ------------------------------------------------------------------ constants

    def _with_constants(self, batch: GroupBatch, cut: list[list[int]]) -> GroupBatch:
        """The batch with what the objective needs beside the live log-probs, and the monitor's KL where it is due."""
        needs, compute = self.objective.needs, partial(over_groups, cut=cut, device=self.args.device)
        reused = self.chain.updates(self._stage) > 1
        if needs.behaviour == "always" or (needs.behaviour == "reused" and reused):
            batch = batch.with_(behaviour_logprobs_PMT=compute(drawn_only(batch), compute=self._live_logprobs))
        if needs.critic:
            batch = batch.with_(values_PMT=compute(drawn_only(batch), compute=self._live_values))
        if self._frozen_table is not None:
            return batch.with_(frozen_logprobs_PMT=self._frozen_table.logprobs(batch))
        if needs.frozen_policy or (needs.samples and self._kl_is_due()):
            batch = batch.with_(frozen_logprobs_PMT=compute(batch, compute=self._frozen_logprobs))
        return batch

    @torch.no_grad()
    def _live_logprobs(self, batch: GroupBatch) -> Tensor:
        with evaluating(self.model), self.accelerator.autocast():
            return group_logprobs(self.model, batch, temperature=self.rollout.loss_temperature).logprobs_PMT

    @torch.no_grad()
    def _live_values(self, batch: GroupBatch) -> Tensor:
        assert self.critic is not None
        with evaluating(self.model, self.critic), self.accelerator.autocast():
            return self.critic.values(self.model, batch)

    def _frozen_logprobs(self, batch: GroupBatch) -> Tensor:
        assert self.frozen_policy is not None
        return self.frozen_policy.logprobs(
            batch, temperature=self.rollout.loss_temperature, autocast=self.accelerator.autocast()
        )

    def _kl_is_due(self) -> bool:
        """At one of the steps that this collection serves."""
        if self.frozen_policy is None or self.monitor.kl_every == 0:
            return False
        first = self.state.global_step
        return any(step % self.monitor.kl_every == 0 for step in range(first, first + self.chain.updates(self._stage)))

    def _sum_over_ranks(self, value: Tensor) -> Tensor:
        return self.accelerator.reduce(value.to(self.args.device), reduction="sum")

    def _due(self, every: int) -> bool:
        return every > 0 and self.state.global_step % every == 0

    @property
    def _pad_token_id(self) -> int:
        return int(self._tokenizer.pad_token_id or 0)

    @property
    def _trained_parameters(self) -> list[Tensor]:
        assert self.model is not None
        return [p for p in self.model.parameters() if p.requires_grad]

    # ------------------------------------------------------------------ loss

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The micro-batch's share of the step's loss, times the number of processes, over which DDP averages."""
        batch: GroupBatch = inputs["groups"]
        denominator = num_items_in_batch
        assert isinstance(denominator, Tensor)
        running = self._what_runs(batch)
        scored = group_logprobs(model, running, temperature=self.rollout.loss_temperature)
        if self.critic is not None:
            scored = replace(scored, **self._values(model, batch))
        output = self.objective.loss(batch, scored, denominator, self.chain.progress(self.state.global_step))
        loss = output.loss
        if scored.router_loss is not None:
            loss = loss + self._router_coefficient * scored.router_loss * len(batch) / self._groups_in_step
            self.meter.add_value("aux_loss", scored.router_loss.item())
        self._stop_unless_finite(loss, output, batch)
        with torch.no_grad():
            self._add_loss_metrics(output)
            self.meter.add(likelihood_metrics(running, scored.logprobs_PMT.detach(), scored.entropy_PMT))
        if self._shares is not None:
            self._shares.add(output.terms)
        self._micro_batches_left -= 1
        return loss * self.accelerator.num_processes

    def _what_runs(self, batch: GroupBatch) -> GroupBatch:
        """The batch with every member masked whose log-probs neither the loss nor the monitor asks for.

        Only for scoring: the loss takes its lengths and denominators from the whole batch. The load-balancing loss of
        a mixture of experts is about all tokens, and so is a KL: where they are measured, everything runs.
        """
        if batch.frozen_logprobs_PMT is not None or self._router_coefficient > 0:
            return batch
        contributing_PM = self.objective.contributing(batch, self.chain.progress(self.state.global_step))
        return batch.with_(mask_PMT=batch.mask_PMT & contributing_PM[..., None])

    @property
    def _router_coefficient(self) -> float:
        return router_coefficient(self.accelerator.unwrap_model(self.model))

    def _values(self, model: Any, batch: GroupBatch) -> dict[str, Tensor]:
        """The field of `PolicyOutput` that only an objective with a critic reads."""
        assert self.critic is not None
        if not self.objective.needs.critic:
            return {}
        with self.accelerator.autocast():  # the policy's `forward` brings its own; this is only its backbone
            return {"values_PMT": self.critic.values(self.accelerator.unwrap_model(model), drawn_only(batch))}

    def _add_loss_metrics(self, output: LossOutput) -> None:
        """Terms add up over a step's micro-batches and ranks, and are averaged over steps."""
        steps = 1.0 if self._micro_batches_left == 1 and self.is_world_process_zero() else 0.0
        for name, term in output.terms.items():
            self.meter.add_share(f"loss/{name}", term.item(), steps)
        self.meter.add(output.metrics)

    def _stop_unless_finite(self, loss: Tensor, output: LossOutput, batch: GroupBatch) -> None:
        if bool(torch.isfinite(loss)):
            return
        terms = ", ".join(f"{name} {term.item():g}" for name, term in output.terms.items())
        raise NotFiniteError(self._not_finite(f"the loss is {loss.item():g} ({terms})", batch.rows_P.tolist()))

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if grad_norm is None and self.critic is not None:
            grad_norm = self._clip_with_critic(model, float("inf"))
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        value = float(norm)
        if not torch.isfinite(torch.tensor(value)):
            rows = [group.row for group in self.last_groups]
            raise NotFiniteError(self._not_finite(f"the gradient's norm is {value}", rows))
        self.meter.add_value("grad/second_moment", value**2)
        if self._shares is not None:
            for name, share in self._shares.metrics().items():
                self.meter.add_value(name, share)
            self._shares = None
        return norm

    def _not_finite(self, found: str, rows: list[int]) -> str:
        return (
            f"step {self.state.global_step + 1}: {found}. Rows of this batch: {rows}. No update was made; "
            f"{self._last_good()}. Usual causes: a learning rate too high, a reward of extreme size, or half "
            "precision without bf16"
        )

    def _last_good(self) -> str:
        good = latest_good_checkpoint(Path(str(self.args.output_dir))).path
        return f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"

    # ------------------------------------------------------------------ save

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with self._saying_what_is_safe("checkpoint"):
            super()._save_checkpoint(model, trial)
            if self.critic is not None and self.args.should_save:
                self.critic.save(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model as transformers does."""
        with nullcontext() if _internal_call else self._saying_what_is_safe("model"):
            super().save_model(output_dir, _internal_call)

    @contextmanager
    def _saying_what_is_safe(self, written: str) -> Iterator[None]:
        """A full disk as an OSError: torch and safetensors report it by a RuntimeError and an exception of theirs."""
        try:
            yield
        except (OSError, RuntimeError, SafetensorError) as error:
            raise OSError(
                f"step {self.state.global_step}: the {written} could not be written ({error}); {self._last_good()}. "
                "Where the disk is full, free some space; then resume this run"
            ) from error

    # ------------------------------------------------------------------ logs and evaluation

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the group metrics gathered since the last log."""
        if self._sampler is not None:
            self.state.epoch = self._sampler.passes(self.state.global_step)
        if "loss" in logs:
            merged = merge(gather_object([self.meter.state()]))
            self.meter.clear()
            merged["num_tokens"] = self.state.num_input_tokens_seen
            logs = {**logs, **merged}
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Answer the held-out prompts and score the answers; metrics under ``eval_``."""
        rows: Any = eval_dataset if eval_dataset is not None else self.eval_dataset
        if rows is None or self.eval_rewards is None:
            raise ValueError("evaluation needs held-out rows and rewards; give eval_examples and rewards")
        self.engine.sync(self.model, version=str(self.state.global_step))
        try:
            with self.accelerator.autocast():
                result = evaluate_heldout(
                    self.engine,
                    self.eval_rewards,
                    [rows[i] for i in range(len(rows))],
                    self.eval_sampling,
                    seed=self.eval_sampling.seed,
                    num_samples=self.eval_sampling.num_samples,
                )
        except RewardError as error:
            # No checkpoint of this step: resumed from there, the run would go on without its evaluation.
            _remark(error, f"This was an evaluation; {self._last_good()}, where --resume (resume=True) begins")
            raise
        items = items_of(result.groups)
        found = heldout_metrics(items, self._start.compared_with(items, self.state.global_step))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        if self.record is not None and self.is_world_process_zero():
            self.record.write_completions(self.state.global_step, completion_rows(result.groups), held_out=True)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class _StepEnd(TrainerCallback):
    """Seconds from the start of a collection to the end of the optimiser's update; and the generators after it."""

    def __init__(self, trainer: GroupTrainer) -> None:
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.meter.add_value("step_time", time.perf_counter() - self._trainer._step_started)
        self._trainer._after_step = RandomStates.now()


def _remark(error: RewardError, remark: str) -> None:
    """Say more in the message of an error, which keeps its class."""
    error.args = (f"{error}. {remark[0].upper()}{remark[1:]}",)


def _tokens(batch: GroupBatch) -> list[int]:
    """Tokens of each group that run: its prompt once, and its members; 0 where all of them are masked."""
    lengths_P = batch.lengths_PM.sum(1)
    tokens: list[int] = ((batch.prompt_mask_PS.sum(1) + lengths_P) * (lengths_P > 0)).tolist()
    return tokens


def _state_of(optimizer: Any) -> Any:
    """The moments an optimiser keeps for each weight, under accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer).state


def completion_rows(groups: Sequence[Group], batch: GroupBatch | None = None) -> list[dict[str, Any]]:
    """One record a member: what was asked, what was answered, what it earned."""
    rows = []
    advantages_PM = None if batch is None or batch.advantages_PM is None else member_advantages(batch)
    for p, group in enumerate(groups):
        kinds = ["sample"] * len(group.samples) + ["reference"] * (group.reference is not None)
        for m, (kind, member) in enumerate(zip(kinds, group.members, strict=False)):
            rows.append(
                {
                    "row": group.row,
                    "kind": kind,
                    "prompt": group.prompt,
                    "completion": member.text,
                    "reward": member.reward,
                    "advantage": None if advantages_PM is None else float(advantages_PM[p, m]),
                    "length": len(member.ids),
                    "finish": member.finish,
                    **{f"rewards/{name}": value for name, value in member.rewards.items()},
                    **{f"extra/{name}": value for name, value in member.extras.items()},
                }
            )
    return rows
