from __future__ import annotations

import pytest
import torch
from torch import nn

from grao.compat.torch_modules import evaluating


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
