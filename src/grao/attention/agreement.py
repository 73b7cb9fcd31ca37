"""When do two ways of computing the same agree? Of those who check a model once before they trust the faster way."""

from __future__ import annotations

import torch
from torch import Tensor

from grao.attention.interface import AttentionRefusedError

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Relative difference, by the dtype of most products. Rounding makes a tenth of it at most; a token that sees what it
must not changes log-probs and gradients by 3 % at least, and by 30 % in most models."""

FAILURES = (TypeError, AttributeError, KeyError, IndexError, ValueError, RuntimeError, NotImplementedError)
"""What a model's own code may raise when it meets a mask that is no tensor, or an argument that it does not know."""


def check_difference(name: str, found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """‖found − expected‖ ≤ tolerance · ‖expected‖.

    Raises:
        AttentionRefusedError: it is more, or not a number.
    """
    found, expected = found.double(), expected.double()
    difference = float((found - expected).norm() / expected.norm())
    if not difference <= TOLERANCE[dtype]:
        raise AttentionRefusedError(
            f"a check on a few tokens found {name} that differ from those of padded rows by {difference:.1g} of their "
            f"size (at most {TOLERANCE[dtype]:g} is rounding)"
        )
