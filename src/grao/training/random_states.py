"""The global generators as they were at the end of a step."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RandomStates:
    """Of Python, numpy and torch on the CPU.

    transformers saves them with a checkpoint at the end of a step. The data loader draws from torch's when an epoch
    begins, so a checkpoint that is made later, when the next step could not be collected, must have them from before.
    Nothing draws on a GPU in between, so its generator can be saved as it is.
    """

    python: Any
    numpy: Any
    torch: Tensor

    @classmethod
    def now(cls) -> RandomStates:
        """The states at this moment."""
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state())

    def restore(self) -> None:
        """Make them the present ones."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
