"""Modes and hooks of torch modules.

Relies on the dictionaries in which `nn.Module` keeps its hooks: `_forward_hooks`, `_forward_pre_hooks`,
`_backward_hooks` and `_backward_pre_hooks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def evaluating(*models: Any) -> Iterator[None]:
    """Switch models to evaluation mode (no dropout); afterwards restore each module's own mode.

    Restored one by one, because some modules may have been frozen in evaluation mode.
    """
    training = [module for model in models for module in model.modules() if module.training]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def has_hooks(module: nn.Module) -> bool:
    """Return whether a hook waits for the module to be called."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks)
