"""Round a model's weights to another dtype while it samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def weights_in(model: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Within, the model's floating-point weights are rounded to `dtype`; afterwards they are what they were before.

    Other parameters stand in their places, tied where those are tied. The model's own are not touched: to give one
    another dtype, even for a while, makes autograd forget the hooks by which DDP shares its gradient. Buffers keep
    their dtype: a rotary embedding's frequencies lose too much in half precision. None = leave all as they are.

    Raises:
        ValueError: the weights are shards, which whoever sharded them (FSDP) puts together in his own dtype.
    """
    found = [
        (module, name, p)
        for module in model.modules()
        for name, p in module.named_parameters(recurse=False, remove_duplicate=False)
        if dtype is not None and p.is_floating_point() and p.dtype != dtype
    ]
    if any(hasattr(p, "device_mesh") for _, _, p in found):
        raise ValueError(
            f"the weights are sharded over processes, so they cannot sample in {dtype}. Leave the rollout's dtype as "
            "the model's, and give FSDP a mixed-precision policy."
        )
    own = dict.fromkeys(p for _, _, p in found)
    rounded = {p: nn.Parameter(p.detach().to(dtype), requires_grad=p.requires_grad) for p in own}
    try:
        for module, name, p in found:
            setattr(module, name, rounded[p])
        yield
    finally:
        for module, name, p in found:
            setattr(module, name, p)
