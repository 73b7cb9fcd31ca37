"""The hooks of transformers' Trainer: their parameters, and when they are called."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from grao.compat.transformers_trainer import ATTRIBUTES, CALLED, OVERRIDDEN


@pytest.mark.parametrize("name", [*OVERRIDDEN, *CALLED])
def test_parameters(name: str) -> None:
    """Oracle: the signature of transformers' own method."""
    _, *parameters = inspect.signature(getattr(Trainer, name)).parameters
    assert tuple(parameters) == {**OVERRIDDEN, **CALLED}[name]


def test_every_override_is_listed() -> None:
    """Oracle: the methods of our trainer that transformers' has too; a new one needs its line in the table."""
    from grao.training.trainer import GroupTrainer

    overridden = {name for name in vars(GroupTrainer) if hasattr(Trainer, name) and not name.endswith("__")}
    methods = {name for name in overridden if inspect.isfunction(getattr(GroupTrainer, name))}
    assert methods <= set(OVERRIDDEN)


class Model(nn.Module):
    """A linear regression that returns its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.linear(x).square().mean()}


def recording(events: list[str]) -> type[Trainer]:
    """A Trainer that notes when its hooks are called, and when the optimiser updates the weights."""

    def noted(name: str) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            events.append(name)
            result = getattr(Trainer, name)(self, *args, **kwargs)
            if name == "create_optimizer" and not hasattr(result, "optimizer"):  # not yet wrapped by accelerate
                result.register_step_post_hook(lambda *_: events.append("update"))
            return result

        return method

    return type("Recording", (Trainer,), {name: noted(name) for name in OVERRIDDEN})


def test_the_order_of_the_hooks(tmp_path: Path) -> None:
    """Oracle: two steps of two micro-batches, written out; a checkpoint after the second."""
    events: list[str] = []
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        logging_steps=1,
        save_steps=2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = recording(events)(Model(), arguments, train_dataset=[{"x": torch.ones(2)}] * 4)
    assert all(hasattr(trainer, name) for name in set(ATTRIBUTES) - {"_tr_loss"})
    trainer.train()
    assert hasattr(trainer, "_tr_loss")
    first = events.index("get_batch_samples")
    assert {"create_optimizer", "create_scheduler", "_get_train_sampler"} <= set(events[:first])
    step = ["get_batch_samples", "compute_loss", "compute_loss", "_clip_grad_norm", "_get_grad_norm", "update", "log"]
    expected = [*step, *step, "_save_checkpoint", "save_model"]
    assert events[first : first + len(expected)] == expected
    events.clear()
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert "_load_from_checkpoint" in events
