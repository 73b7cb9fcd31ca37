"""The frozen policy: what the policy was before training, the anchor of every KL."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor

from grao.compat.torch_modules import evaluating
from grao.groups import GroupBatch
from grao.policy.lora import adapters_off, has_adapters
from grao.policy.scoring import group_logprobs


class FrozenPolicy:
    """Log-probs under the weights that training started from.

    With adapters it is the live model with them off and takes no memory; otherwise it is a copy, made at construction,
    without gradients or optimiser state.

    Args:
        model: the policy as it is now.
        adapted: it has been trained already: adapters belong to what is frozen, and a copy is made with them.
    """

    def __init__(self, model: Any, *, adapted: bool = False) -> None:
        self._shared = model if has_adapters(model) and not adapted else None
        self._copy = None
        if self._shared is None:
            self._copy = copy.deepcopy(model).requires_grad_(False).eval()

    def to(self, device: torch.device | str) -> FrozenPolicy:
        """Move the copy, if there is one, to the policy's device."""
        if self._copy is not None:
            self._copy.to(device)
        return self

    def save(self, file: Path) -> None:
        """Write the copy's weights as safetensors."""
        assert self._copy is not None, "what shares the live model's weights has none of its own"
        save_model(self._copy, str(file))

    def load(self, file: Path) -> None:
        """Take the weights that `save` wrote, in place."""
        assert self._copy is not None, "what shares the live model's weights has none of its own"
        load_model(self._copy, str(file))

    @torch.no_grad()
    def logprobs(
        self, batch: GroupBatch, *, temperature: float = 1.0, autocast: AbstractContextManager | None = None
    ) -> Tensor:
        """log π_frozen of every unmasked member token, in nats, constant: [P, M, T]."""
        with autocast or nullcontext():
            if self._copy is not None:
                return group_logprobs(self._copy, batch, temperature=temperature).logprobs_PMT
            assert self._shared is not None
            with evaluating(self._shared), adapters_off(self._shared):
                return group_logprobs(self._shared, batch, temperature=temperature).logprobs_PMT
