"""Modes and hooks of modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from grao.compat.torch_modules import evaluating, has_hooks


def test_evaluation_mode_is_temporary_and_per_module() -> None:
    """Oracle: dropout's own definition: off inside, on outside; a part frozen in evaluation mode stays so."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5)).train()
    model[1].eval()
    resting = nn.Dropout(0.5).eval()
    ones = torch.ones(64)
    with evaluating(model, resting):
        assert torch.equal(model(ones), ones)
    assert not torch.equal(model(ones), ones)
    assert (model.training, model[0].training, model[1].training, resting.training) == (True, True, False, False)


def test_modes_are_restored_after_an_error() -> None:
    """Oracle: the mode before."""
    model = nn.Dropout(0.5).train()
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert model.training


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_every_kind_of_hook_is_seen(kind: str) -> None:
    """Oracle: torch's own registration, and removal."""
    layer = nn.Linear(2, 2)
    assert not has_hooks(layer)
    hook = getattr(layer, f"register_{kind}_hook")(lambda *_: None)
    assert has_hooks(layer)
    hook.remove()
    assert not has_hooks(layer)
