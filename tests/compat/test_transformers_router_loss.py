"""The load-balancing loss: what a family says in its config, and transformers' function for it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MixtralConfig, Qwen2Config, Qwen3MoeConfig
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from grao.compat.transformers_router_loss import router_coefficient, router_loss

SIZES: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "router_aux_loss_coef": 0.02,
}
CONFIGS = {
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4),
    "qwen3_moe": Qwen3MoeConfig(**SIZES, num_experts=4, moe_intermediate_size=8, head_dim=4),
}


def test_the_functions_arguments() -> None:
    """Oracle: transformers' signature; ours are passed by position."""
    parameters = list(inspect.signature(load_balancing_loss_func).parameters)
    assert parameters == ["gate_logits", "num_experts", "top_k", "attention_mask"]


@pytest.mark.parametrize("family", CONFIGS)
def test_the_loss_of_real_tokens(family: str) -> None:
    """Oracle: E · Σ_e f_e P_e by a loop, over real tokens: f_e how often an expert is chosen, P_e its probability."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[family])
    real = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    logits = tuple(torch.randn(8, 4, dtype=torch.float64) for _ in range(2))
    chosen, probability, count = torch.zeros(4).double(), torch.zeros(4).double(), 0
    for layer in logits:
        for row, weight in zip(layer, real.flatten(), strict=True):
            if weight:
                chosen[row.topk(2).indices] += 1
                probability += row.softmax(0)
                count += 1
    expected = 4 * (chosen / count * probability / count).sum()
    assert router_loss(model, logits, real).item() == pytest.approx(expected.item(), rel=1e-6)
    assert router_coefficient(model) == 0.02


def test_a_dense_model_has_no_coefficient() -> None:
    """Oracle: by definition."""
    small = {name: value for name, value in SIZES.items() if not name.startswith(("num_experts", "router"))}
    assert router_coefficient(AutoModelForCausalLM.from_config(Qwen2Config(**small))) == 0.0
