"""Modes of torch modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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
