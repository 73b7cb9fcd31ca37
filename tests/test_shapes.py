"""The live check of shape suffixes finds planted violations, and is on where objectives and batches are tested."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tests import shapes

from grao.objectives import gae, likelihood, standardise

MASK = torch.ones(2, 5, 4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: standardise(torch.zeros(3)), r"rewards_PN has the shape \[3\], which is not \[PN\]"),
        (
            lambda: likelihood.aggregate(
                torch.zeros(2, 1, 4), torch.ones(2, 5, 4).bool(), torch.ones(2), "token_mean", None
            ),
            r"N is 5 in mask_PNT, but 1 in values_PNT",
        ),
        (
            lambda: gae.gae(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(1, 3).bool(), 1.0, 1.0),
            r"N is 1 in mask_NT, but 2 in rewards_NT",
        ),
    ],
)
def test_a_planted_violation_fails(call: object, message: str) -> None:
    """Oracle: the name, its shape and what the suffix says; without the check torch broadcasts and nothing fails."""
    with pytest.raises(shapes.ShapeError, match=message), shapes.checked():
        call()  # type: ignore[operator]
    if "rewards_PN" not in message:
        call()  # type: ignore[operator]


def test_a_wrong_return_and_a_wrong_local_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a function written for this, in a room that is checked: its local, then what it returns."""
    (tmp_path / "planted.py").write_text(
        "def local(x_PM):\n    sum_P = x_PM.sum()\n    return sum_P\n\n\ndef total_P(x_PM):\n    return x_PM\n"
    )
    monkeypatch.setattr(shapes, "ROOMS", (str(tmp_path),))
    monkeypatch.syspath_prepend(str(tmp_path))
    import planted

    for function, message in ((planted.local, r"sum_P has the shape \[\]"), (planted.total_P, r"total_P .*not \[P\]")):
        with pytest.raises(shapes.ShapeError, match=message), shapes.checked():
            function(torch.ones(2, 3))


def test_it_is_off_elsewhere() -> None:
    """Oracle: the interpreter's own answer."""
    assert sys.getprofile() is None
