"""Evaluation on held-out rows while training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from grao.data import EncodedExample
from grao.evaluation import Item, Sampling, evaluate_heldout, heldout_metrics, items_of
from grao.records import RunDirectory, read_run
from grao.rewards import RewardError, RewardSet
from grao.rollout import EngineError
from grao.training.completion_rows import completion_rows
from grao.training.failures import add_remark, how_to_resume
from grao.training.step_state import StepState

logger = logging.getLogger(__name__)


@dataclass
class HeldOutEvaluation:
    """Answers held-out prompts, scores the answers, and compares them with those before training."""

    rewards: RewardSet | None
    sampling: Sampling
    record: RunDirectory | None
    """Where the answers are written; None = nowhere."""
    _start: Sequence[Item] | None = field(default=None, init=False)
    _start_known: bool = field(default=False, init=False)

    def run(self, state: StepState, rows: Sequence[EncodedExample] | None) -> dict[str, float]:
        """Evaluate the current policy; return the figures by name.

        Args:
            state: The run's. The answers at step 0 are what NAG compares with later.
            rows: Held-out rows.

        Raises:
            ValueError: No rows, or no rewards.
            RewardError, EngineError: The rewards or the engine failed. No checkpoint is saved: resumed there, the run
                would skip its evaluation.
        """
        if rows is None or self.rewards is None:
            raise ValueError("Evaluation needs held-out rows and rewards. Give eval_examples and rewards.")
        step, seed, num_samples = state.global_step, self.sampling.seed, self.sampling.num_samples
        state.engine.open()
        try:
            state.engine.sync(state.model, version=str(step))
            with state.autocast():
                result = evaluate_heldout(
                    state.engine, self.rewards, rows, self.sampling, seed=seed, num_samples=num_samples
                )
        except (RewardError, EngineError) as error:
            add_remark(error, f"This was an evaluation. {how_to_resume(state.output_dir)}")
            raise
        items = items_of(result.groups)
        metrics = heldout_metrics(items, self._compared_with(items, step))
        if self.record is not None and state.is_main_process:
            self.record.write_completions(step, completion_rows(result.groups), held_out=True)
        return metrics

    def _compared_with(self, items: Sequence[Item], step: int) -> Sequence[Item] | None:
        """Return the answers of step 0 for a later step; keep them at step 0."""
        if step == 0:
            self._start, self._start_known = items, True
            return None
        if not self._start_known:
            self._start, self._start_known = self._recorded_start(), True
            if self._start is None:
                logger.warning("no eval_nag: the policy was not evaluated before training (evaluation.at_start)")
        return self._start

    def _recorded_start(self) -> list[Item] | None:
        """Read the answers of step 0 from the record of a resumed run."""
        if self.record is None or not self.record.config_file.is_file():
            return None
        run = read_run(self.record.path)
        if 0 not in run.completion_steps(held_out=True):
            return None
        items: list[Item] = []
        for row in run.completions(0, held_out=True):
            if row["kind"] == "sample":
                sample = items[-1].sample + 1 if items and items[-1].row == row["row"] else 0
                items.append(_item(row, sample))
        return items


def _item(row: dict[str, Any], sample: int) -> Item:
    return Item(
        row=row["row"],
        sample=sample,
        prompt=row["prompt"],
        answer=row["completion"],
        reference=None,
        category=None,
        tokens=row["length"],
        finish=row["finish"],
        reward=row["reward"],
    )
