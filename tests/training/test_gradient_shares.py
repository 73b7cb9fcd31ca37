from __future__ import annotations

import pytest
import torch

from grao.training.gradient_shares import GradientShares


def test_by_hand() -> None:
    """Oracle: ∇a = (3, 4), ∇b = (0, −4) in two parameters: norms 5 and 4, sum (3, 0), cosines 9/15 and 0."""
    x, y = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    shares = GradientShares([x, y])
    shares.add({"a": (3 * x + 4 * y).sum(), "b": (-4 * y).sum()})
    assert shares.metrics() == pytest.approx(
        {
            "grad/share/a": 5 / 9,
            "grad/share/b": 4 / 9,
            "grad/cosine/a": 9 / (5 * 3),
            "grad/cosine/b": 0.0,
        }
    )
    assert x.grad is None, "measuring leaves no gradient behind"
    assert y.grad is None


def test_micro_batches_add_up_before_norms_are_taken() -> None:
    """Oracle: the gradients of the whole: 1 − 1 = 0 for a, 2 + 2 for b. Norms of the parts would say 1/3 for a."""
    x = torch.zeros(1, requires_grad=True)
    shares = GradientShares([x])
    for sign in (1.0, -1.0):
        shares.add({"a": (sign * x).sum(), "b": (2 * x).sum()})
    assert shares.metrics() == {"grad/share/a": 0.0, "grad/share/b": 1.0, "grad/cosine/a": 0.0, "grad/cosine/b": 1.0}


def test_terms_that_cancel_or_vanish() -> None:
    """Oracle: opposite terms have half each and no common direction; without any gradient nothing is divided by 0."""
    x = torch.zeros(1, requires_grad=True)
    shares = GradientShares([x])
    shares.add({"a": x.sum(), "b": -x.sum()})
    assert shares.metrics() == {"grad/share/a": 0.5, "grad/share/b": 0.5, "grad/cosine/a": 0.0, "grad/cosine/b": 0.0}
    still = GradientShares([x])
    still.add({"a": (0 * x).sum()})
    assert still.metrics() == {"grad/share/a": 0.0, "grad/cosine/a": 0.0}
