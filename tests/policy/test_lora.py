"""Adapters: scoring through peft's wrapper equals the merged model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from grao.policy import LoRA, group_logprobs, install_scoring
from grao.policy.lora import add_adapters, has_adapters


def adapted(tiny: SimpleNamespace, family: str = "qwen2", **settings: Any) -> Any:
    return add_adapters(tiny.tiny_model(family), LoRA(r=4, alpha=8, **settings)).double().eval()


def randomise(model: Any) -> Any:
    """Random adapters: a fresh B is 0 and would hide everything."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model


def test_fresh_adapters_start_as_the_base(tiny: SimpleNamespace) -> None:
    """Oracle: the base model, bit for bit, for B = 0."""
    batch = tiny.random_batch()
    model = adapted(tiny)
    assert has_adapters(model)
    assert not has_adapters(tiny.tiny_model())
    base = group_logprobs(tiny.tiny_model(), batch).logprobs_PMT
    assert torch.equal(group_logprobs(model, batch).logprobs_PMT, base)


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj"), ("q_proj", "lm_head")])
def test_scoring_through_adapters_is_scoring_the_merged_model(tiny: SimpleNamespace, targets: Any) -> None:
    """Oracle: W + (α/r)·BA merged into the weights, one plain forward a sequence; an adapted head included."""
    model, batch = randomise(adapted(tiny, target_modules=targets)), tiny.random_batch()
    ours = group_logprobs(model, batch)
    merged = model.merge_and_unload()
    expected, entropy = tiny.plain_logprobs(merged, batch)
    assert (ours.logprobs_PMT - expected).abs().max().item() <= 1e-12
    assert (ours.entropy_PMT - entropy).abs().max().item() <= 1e-12
    base = group_logprobs(tiny.tiny_model(), batch).logprobs_PMT
    assert (expected - base).abs().max().item() > 0.1


@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_adapters_learn(tiny: SimpleNamespace, checkpointing: bool) -> None:
    """Oracle: every adapter has a gradient and nothing else has; recomputing activations changes none of them."""
    model, batch = randomise(adapted(tiny)).train(), tiny.random_batch()
    expected = tiny.gradients(model, group_logprobs(model, batch).logprobs_PMT)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    gradients = tiny.gradients(model, group_logprobs(model, batch).logprobs_PMT)
    assert gradients.keys() == {n for n, _ in model.named_parameters() if "lora_" in n}
    assert all(g.abs().max().item() > 0 for g in gradients.values())
    assert tiny.relative(gradients, expected) <= 1e-12


def test_all_linear_leaves_the_head_and_the_embeddings(tiny: SimpleNamespace) -> None:
    """Oracle: the docstring: every linear layer but the head."""
    names = {
        n.rsplit(".lora_A", 1)[0].rsplit(".", 1)[-1] for n, _ in adapted(tiny).named_parameters() if "lora_A" in n
    }
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_the_inner_model_keeps_its_scoring(tiny: SimpleNamespace) -> None:
    """Oracle: scoring is installed on the inner model once; asking again for it changes nothing."""
    model = adapted(tiny)
    inner = model.get_base_model()
    forward = inner.forward
    install_scoring(inner)
    assert inner.forward is forward
