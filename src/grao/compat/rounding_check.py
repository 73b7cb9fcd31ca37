"""Check, once per model, that a faster way to compute something differs from the plain way by rounding alone."""

from __future__ import annotations

import torch
from torch import Tensor

from grao.compat.transformers_attention import AttentionRefusedError

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest relative difference, by the dtype of most products. Rounding reaches a tenth of it. A token that sees what
it must not changes log-probs and gradients by at least 3 %, and by 30 % in most models."""

FAILURES = (TypeError, AttributeError, KeyError, IndexError, ValueError, RuntimeError, NotImplementedError)
"""What a model's own code may raise when it meets a mask that is not a tensor, or an unknown argument."""


def check_difference(name: str, found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Check that ‖found − expected‖ ≤ tolerance · ‖expected‖.

    Raises:
        AttentionRefusedError: The difference is larger, or not a number.
    """
    found, expected = found.double(), expected.double()
    difference = float((found - expected).norm() / expected.norm())
    if not difference <= TOLERANCE[dtype]:
        raise AttentionRefusedError(
            f"a check on a few tokens found {name} that differ from those of padded rows by {difference:.1g} of their "
            f"size (at most {TOLERANCE[dtype]:g} is rounding)"
        )
