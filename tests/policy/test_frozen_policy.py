"""The frozen policy stays what the policy was, as a copy or as the base under adapters."""

from __future__ import annotations

import copy
import gc
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from grao.policy import FrozenPolicy, LoRA, group_logprobs
from grao.policy.lora import add_adapters


def train(model: Any, batch: Any, steps: int = 3) -> None:
    """A few large steps, so that the policy is somewhere else."""
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(steps):
        optimiser.zero_grad()
        (-group_logprobs(model, batch).logprobs_PMT.mean()).backward()
        optimiser.step()


def parameters_in_memory() -> int:
    gc.collect()
    return sum(o.numel() for o in gc.get_objects() if isinstance(o, torch.nn.Parameter))


def with_adapters(tiny: SimpleNamespace, **settings: Any) -> Any:
    model = add_adapters(tiny.tiny_model(), LoRA(r=4, **settings))
    return model.double()


def test_a_copy_is_unmoved_by_training(tiny: SimpleNamespace) -> None:
    """Oracle: the log-probs before training, bit for bit; the policy itself has moved."""
    model, batch = tiny.tiny_model(), tiny.random_batch()
    before = group_logprobs(model, batch).logprobs_PMT.detach()
    frozen = FrozenPolicy(model)
    train(model, batch)
    assert torch.equal(frozen.logprobs(batch), before)
    assert (group_logprobs(model, batch).logprobs_PMT - before).abs().max() > 0.1


def test_a_copy_holds_no_gradients_and_no_dropout(tiny: SimpleNamespace) -> None:
    """Oracle: by definition: nothing to train, evaluation mode, for any state of the policy when it was made."""
    model, batch = tiny.tiny_model().train(), tiny.random_batch()
    group_logprobs(model, batch).logprobs_PMT.sum().backward()
    frozen = FrozenPolicy(model)
    inner = frozen.own_model
    assert inner is not None
    assert not inner.training
    assert all(not p.requires_grad and p.grad is None for p in inner.parameters())
    assert not frozen.logprobs(batch).requires_grad
    assert model.training
    assert all(p.requires_grad and p.grad is not None for p in model.parameters())


def test_a_deep_copy_scores_with_its_own_weights(tiny: SimpleNamespace) -> None:
    """Oracle: a fresh model of the same weights: changing the copy moves the copy's scores only, and the reverse."""
    model, batch = tiny.tiny_model(), tiny.random_batch()
    before = group_logprobs(model, batch).logprobs_PMT
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, fresh in zip(other.parameters(), tiny.tiny_model(seed=1).parameters(), strict=True):
            parameter.copy_(fresh)
    assert torch.equal(group_logprobs(model, batch).logprobs_PMT, before)
    expected = group_logprobs(tiny.tiny_model(seed=1), batch).logprobs_PMT
    assert torch.equal(group_logprobs(other, batch).logprobs_PMT, expected)
    assert torch.equal(other(batch.prompt_ids_PS).logits, tiny.tiny_model(seed=1)(batch.prompt_ids_PS).logits)


def test_temperature_reaches_the_frozen_policy(tiny: SimpleNamespace) -> None:
    """Oracle: the policy's own log-probs at that temperature."""
    model, batch = tiny.tiny_model(), tiny.random_batch()
    expected = group_logprobs(model, batch, temperature=0.6).logprobs_PMT
    assert torch.equal(FrozenPolicy(model).logprobs(batch, temperature=0.6), expected)


def test_under_adapters_it_is_the_base(tiny: SimpleNamespace) -> None:
    """Oracle: the base model without adapters, after they were trained; the policy itself has moved."""
    model, batch = with_adapters(tiny), tiny.random_batch()
    frozen = FrozenPolicy(model)
    train(model, batch, steps=20)
    base = group_logprobs(tiny.tiny_model(), batch).logprobs_PMT
    policy = group_logprobs(model, batch).logprobs_PMT
    assert (frozen.logprobs(batch) - base).abs().max().item() <= 1e-14
    assert (policy - base).abs().max() > 0.1
    assert torch.equal(group_logprobs(model, batch).logprobs_PMT, policy)  # the adapters are on again


def test_under_adapters_it_takes_no_memory(tiny: SimpleNamespace) -> None:
    """Oracle: parameters alive in the process: none more with adapters; a whole model more without (the control)."""
    model, batch = with_adapters(tiny), tiny.random_batch()
    before = parameters_in_memory()
    frozen = FrozenPolicy(model)
    frozen.logprobs(batch)
    assert parameters_in_memory() == before
    plain = tiny.tiny_model()
    before = parameters_in_memory()
    copied = FrozenPolicy(plain)
    assert parameters_in_memory() - before == sum(p.numel() for p in plain.parameters())
    assert copied.to("cpu") is copied
    assert frozen.to("cpu") is frozen


def test_under_adapters_training_mode_comes_back_and_dropout_is_off(tiny: SimpleNamespace) -> None:
    """Oracle: with dropout 0.5 in the base and the adapters it is the base without; training mode stays."""
    model, batch = with_adapters(tiny, dropout=0.5).train(), tiny.random_batch()
    for layer in model.modules():
        if hasattr(layer, "attention_dropout"):
            layer.attention_dropout = 0.5
    frozen = FrozenPolicy(model)
    base = group_logprobs(tiny.tiny_model(), batch).logprobs_PMT
    assert (group_logprobs(model, batch).logprobs_PMT - base).abs().max() > 0.1
    assert torch.equal(frozen.logprobs(batch), base)
    assert model.training
    broken = batch.with_(ids_PMT=batch.ids_PMT + 1000)  # no such tokens
    with pytest.raises((IndexError, RuntimeError)):
        frozen.logprobs(broken)
    assert model.training
    train(model, batch, steps=1)
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
