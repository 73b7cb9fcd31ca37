"""The frozen policy of each stage: what the KL and the likelihood ratios of DPO are measured from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainingArguments

from grao.data import EncodedExample
from grao.groups import GroupBatch
from grao.policy import FrozenPolicy
from grao.records.durable import make_atomically
from grao.training.failures import explain_failed_write
from grao.training.frozen_logprob_table import FrozenLogprobTable
from grao.training.run_schedule import prompts_per_step
from grao.training.stages import Stage, StageSequence


class FrozenAnchor:
    """Holds the policy that the current stage started from, as weights or as a table of log-probs.

    Args:
        model: The policy at the start of the run.
        stages: The stages of the run.
        monitor_kl: Whether the KL of samples is measured even where the objective does not need it.
        policy: The frozen policy of the first stage; made from `model` by default.
    """

    def __init__(
        self, model: Any, stages: StageSequence, *, monitor_kl: bool, policy: FrozenPolicy | None = None
    ) -> None:
        self._model, self._stages, self._monitor_kl = model, stages, monitor_kl
        self.policy = policy or (FrozenPolicy(model) if self.is_wanted(stages.stages[0]) else None)
        self.table: FrozenLogprobTable | None = None

    def to(self, device: torch.device | str) -> FrozenAnchor:
        """Move the frozen policy to the policy's device."""
        if self.policy is not None:
            self.policy.to(device)
        return self

    def is_wanted(self, stage: Stage) -> bool:
        """Whether the stage needs a frozen policy, or the monitor does."""
        needs = stage.objective.needs
        return needs.frozen_policy or (self._monitor_kl and needs.samples)

    def enter(self, place: int, begins: bool, args: TrainingArguments) -> None:
        """Freeze the policy at the start of a later stage, or load what was frozen then.

        Args:
            place: Index of the stage, 1 or more.
            begins: Whether the stage starts now; False when a run resumes in its middle.
            args: Name the run directory and whether checkpoints are saved.

        Raises:
            ValueError: The run resumes in the middle of a stage whose frozen policy is missing.
        """
        self.policy, self.table = None, None
        if not self.is_wanted(self._stages.stages[place]):
            return
        frozen = FrozenPolicy(self._model, adapted=True).to(args.device)
        file = Path(str(args.output_dir)) / "stages" / str(place) / "frozen_policy.safetensors"
        if not begins:
            self._load(frozen, file, place)
        elif args.should_save and args.save_strategy != "no":
            with explain_failed_write("frozen policy of a stage", self._stages.starts[place], str(args.output_dir)):
                file.parent.mkdir(parents=True, exist_ok=True)
                make_atomically(file, frozen.save)
        self.policy = frozen

    def _load(self, frozen: FrozenPolicy, file: Path, place: int) -> None:
        if not file.is_file():
            remedy = "Start the run over"
            if not self._stages.stages[place].objective.needs.frozen_policy:
                remedy += ", or set monitor.kl_every to 0"
            raise ValueError(f"{file} is missing: it holds the frozen policy of stage {place + 1}. {remedy}.")
        frozen.load(file)

    def tabulate(
        self,
        stage: Stage,
        rows: Sequence[EncodedExample],
        to_batch: Callable[[Sequence[EncodedExample]], GroupBatch],
        logprobs: Callable[[GroupBatch], Tensor],
        args: TrainingArguments,
        progress: Callable[[str, int, int], None],
    ) -> None:
        """Replace the frozen policy by a table of log-probs, where every row is used and nothing is sampled.

        Args:
            stage: The stage that starts.
            rows: All training rows.
            to_batch: Collates rows.
            logprobs: Returns log π_frozen of a batch.
            args: Say how many rows a step takes.
            progress: Called with (what, rows done, rows).
        """
        needs = stage.objective.needs
        if needs.samples or not needs.frozen_policy or stage.steps * prompts_per_step(args) < len(rows):
            return
        size = args.train_batch_size
        self.table = FrozenLogprobTable(
            (to_batch(rows[start : start + size]) for start in range(0, len(rows), size)),
            logprobs,
            lambda done: progress("rows under the frozen policy", done, len(rows)),
        )
        self.policy = None  # frees the copy of the weights

    def logprobs(self, batch: GroupBatch, temperature: float, autocast: AbstractContextManager) -> Tensor:
        """Return log π_frozen of every unmasked member token, in nats, constant: [P, M, T]."""
        assert self.policy is not None, "is_wanted decides whether there is a frozen policy"
        return self.policy.logprobs(batch, temperature=temperature, autocast=autocast)
