"""Round a model's weights to another dtype while it samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def rounded_weights(model: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Round the model's floating-point weights to `dtype` within the context, and restore them after it.

    Rounded parameters replace the model's own, tied where those are tied. The originals are not changed: another
    dtype, even for a while, would make autograd drop the hooks by which DDP shares gradients. Buffers keep their
    dtype: a rotary embedding's frequencies lose too much in half precision. None = no change.

    Raises:
        ValueError: The weights are sharded (FSDP), which gathers them in its own dtype.
    """
    found = [
        (module, name, p)
        for module in model.modules()
        for name, p in module.named_parameters(recurse=False, remove_duplicate=False)
        if dtype is not None and p.is_floating_point() and p.dtype != dtype
    ]
    if any(hasattr(p, "device_mesh") for _, _, p in found):
        raise ValueError(
            f"The weights are sharded over processes, so they cannot sample in {dtype}. Set engine.dtype to 'model', "
            "and give FSDP a mixed-precision policy."
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
