"""What the re-implemented layers of the Llama family were written from, and one layer against transformers' own."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from grao.compat.torch_packed_linear import can_pack
from grao.compat.transformers_llama_step import FAMILIES, LlamaStep

TRIED: dict[str, dict[str, set[str]]] = {
    # transformers 5.17 to 5.23; 5.24, where the cache's argument has another name
    "{}Attention.forward": {
        "Llama": {"edb09e4c", "ed000259"},
        "Mistral": {"ea92a984", "4d8eb924"},
        "Qwen2": {"992c57d9", "3373ebbf"},
        "Qwen3": {"457e3a53", "bee15b3a"},
    },
    "{}DecoderLayer.forward": {"": {"b139d1b6", "180591cb"}},
    "{}MLP.forward": {"": {"5b8abf7a"}},
    "{}RMSNorm.forward": {"": {"50b8139e"}},
    "apply_rotary_pos_emb": {"": {"25762071"}},
    "rotate_half": {"": {"b92c1a98"}},
}
"""Digests of the bodies, as `digest` makes them; under "" what all families share."""


def digest(function: Any) -> str:
    """Of a function's statements, without decorators, docstring and comments."""
    [node] = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body
    assert isinstance(node, ast.FunctionDef)
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return hashlib.sha256("\n".join(map(ast.unparse, body)).encode()).hexdigest()[:8]


@pytest.mark.parametrize("part", TRIED)
@pytest.mark.parametrize("family", sorted(name.removesuffix("ForCausalLM") for name in FAMILIES))
def test_the_source_is_one_that_was_tried(family: str, part: str) -> None:
    """Oracle: transformers' own source. Where it changed: compare `LlamaLayer` with it, then add the new digest."""
    found: Any = import_module(f"transformers.models.{family.lower()}.modeling_{family.lower()}")
    for name in part.format(family).split("."):
        found = getattr(found, name)
    assert digest(found) in TRIED[part].get(family, TRIED[part].get("", set()))


@pytest.mark.skipif(not can_pack(nn.Linear(4, 4)), reason="this CPU, or this torch, packs no weights")
@pytest.mark.parametrize("family", ["llama", "qwen3"])
@torch.no_grad()
def test_a_step_is_the_models_own_forward(family: str) -> None:
    """Oracle: the model's logits of one token, which attends to itself alone, to float32's rounding."""
    sizes: dict[str, Any] = {
        "vocab_size": 40,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
    }
    torch.manual_seed(0)
    model: Any
    if family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    else:
        model = Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=8)).eval()
    for weight in model.parameters():
        if weight.dim() == 1:  # norms: with ones, one that is forgotten would not be noticed
            weight.normal_(1.0, 0.3)

    def attend(layer: nn.Module, q_NJRD: Tensor, key_NJD: Tensor, value_NJD: Tensor) -> Tensor:
        return value_NJD[:, :, None].expand_as(q_NJRD)

    ids, positions = torch.tensor([3, 17, 5]), torch.zeros(3, 1, dtype=torch.long)
    found = LlamaStep(model).logits(ids, positions, attend)
    expected = model(input_ids=ids[:, None], use_cache=False).logits[:, 0]
    assert (found - expected).norm() <= 2e-6 * expected.norm()
