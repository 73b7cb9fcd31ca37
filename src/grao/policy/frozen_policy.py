"""The frozen policy (TRL: reference model): the policy as it was before training, the anchor of every KL."""

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
from grao.policy.scorer import group_logprobs


class FrozenPolicy:
    """Log-probs under the weights that training started from.

    With adapters it is the live model with its adapters off, which takes no memory. Otherwise it is a copy, made at
    construction, without gradients.

    Args:
        model: The policy as it is now.
        adapted: The adapters have been trained already and belong to what is frozen: make a copy with them.
    """

    def __init__(self, model: Any, *, adapted: bool = False) -> None:
        self._shared = model if has_adapters(model) and not adapted else None
        self.own_model: Any = None
        """The copy; None where the live model is used."""
        if self._shared is None:
            self.own_model = copy.deepcopy(model).requires_grad_(False).eval()

    def to(self, device: torch.device | str) -> FrozenPolicy:
        """Move the copy, if there is one, to the policy's device."""
        if self.own_model is not None:
            self.own_model.to(device)
        return self

    def save(self, file: Path) -> None:
        """Write the copy's weights as safetensors."""
        assert self.own_model is not None, "a frozen policy that shares the live model has no weights of its own"
        save_model(self.own_model, str(file))

    def load(self, file: Path) -> None:
        """Load the weights that `save` wrote, in place."""
        assert self.own_model is not None, "a frozen policy that shares the live model has no weights of its own"
        load_model(self.own_model, str(file))

    @torch.no_grad()
    def logprobs(
        self, batch: GroupBatch, *, temperature: float = 1.0, autocast: AbstractContextManager | None = None
    ) -> Tensor:
        """Return log π_frozen of every unmasked member token, in nats, constant: [P, M, T]."""
        with autocast or nullcontext():
            if self.own_model is not None:
                return group_logprobs(self.own_model, batch, temperature=temperature).logprobs_PMT
            assert self._shared is not None
            with evaluating(self._shared), adapters_off(self._shared):
                return group_logprobs(self._shared, batch, temperature=temperature).logprobs_PMT
