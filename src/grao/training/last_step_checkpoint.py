"""A checkpoint of the last finished step, saved when the next rollout fails."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import TrainingArguments

from grao.records import latest_good_checkpoint
from grao.rewards import RewardError
from grao.rollout import EngineError
from grao.training.failures import add_remark, how_to_resume


@dataclass(frozen=True, slots=True)
class RandomStates:
    """The global random generators of Python, numpy and torch (CPU) at one moment.

    transformers saves them with a checkpoint at the end of a step. The data loader draws from torch's generator when
    an epoch begins, so a checkpoint saved later, after a rollout failed, must restore them from the end of the step.
    Nothing draws on a GPU in between, so its generator can be saved as it is.
    """

    python: Any
    numpy: Any
    torch: Tensor

    @classmethod
    def now(cls) -> RandomStates:
        """Read the generators."""
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state())

    def restore(self) -> None:
        """Set the generators back."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)


class LastStepCheckpoint:
    """Saves what a run can resume from when its rewards or its engine fail, in all processes together.

    A failed rollout leaves nothing in the weights, the optimiser or the meter, and the generators are set back to
    the end of the last step. So a run resumed from here equals the run that would have gone on.

    Args:
        args: transformers' arguments.
        accelerator: The run's.
        save: Saves a checkpoint of the present step, logs first.
    """

    def __init__(self, args: TrainingArguments, accelerator: Accelerator, save: Callable[[], None]) -> None:
        self._args, self._accelerator, self._save = args, accelerator, save
        self._after_step: RandomStates | None = None

    def remember_generators(self) -> None:
        """Call at the end of each step."""
        self._after_step = RandomStates.now()

    def stop_together(self, failed: RewardError | EngineError | None, step: int) -> None:
        """Save a checkpoint and raise in every process if a rollout failed in any; every process must call it.

        Args:
            failed: The error of this process, or None.
            step: Steps made so far.
        """
        anywhere = self._accelerator.reduce(torch.tensor(int(failed is not None), device=self._args.device), "sum")
        if not bool(anywhere):
            return
        error = failed or RewardError("The rollout failed in another process; see its error.")
        self._save_once(step)
        self._accelerator.wait_for_everyone()  # the checkpoint is sealed
        add_remark(error, how_to_resume(str(self._args.output_dir)))
        raise error

    def _save_once(self, step: int) -> None:
        """Save unless this step has a checkpoint, or none are wanted."""
        good = latest_good_checkpoint(Path(str(self._args.output_dir))).step
        self._accelerator.wait_for_everyone()  # all have looked before one of them writes
        if self._args.save_strategy == "no" or self._after_step is None or good == step:
            return
        self._after_step.restore()
        self._save()
