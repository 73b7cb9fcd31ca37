"""One decoding step of the Llama family in fewer operations, on packed weights, for CPUs.

With a few dozen rows, the time of a step is reading weights, reading keys, and some sixty small operations per layer.
Here they are 43 (dispatched, views aside): query, key and value are one product, norms and rotation take fewer calls,
and oneDNN applies the activation, the gate and the residual sum while it writes a product.

Relies on what transformers computes in the layers of `FAMILIES`, and on the names of their parts: re-implemented here
from `LlamaDecoderLayer`, `LlamaAttention`, `LlamaMLP`, `LlamaRMSNorm`, `apply_rotary_pos_emb` and their twins. The
local engine compares a model's steps with its plain forward before it uses them.

Suffixes: N rows, H heads, J key-value heads, D dimensions of a head, R = H / J, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm
from transformers import PreTrainedModel

from grao.compat.torch_packed_linear import Packed, can_pack

FAMILIES = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
"""Classes of transformers whose layers compute what `LlamaLayer` does."""

Attend = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
"""(attention layer, scaled queries [N, J, R, D], new keys [N, J, D], new values [N, J, D]) to outputs [N, J, R, D]."""


def can_fuse(model: PreTrainedModel) -> bool:
    """Return whether the model is of `FAMILIES`, unchanged: no adapters, shards, windows, or layers replaced.

    A step does not call hooks on layers. Steps are not fused under autocast.
    """
    if type(model).__name__ not in FAMILIES or not type(model).__module__.startswith("transformers."):
        return False
    config: Any = model.config
    backbone: Any = model.model
    if config.hidden_act != "silu" or getattr(config, "sliding_window", None) is not None:
        return False
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    replaced = any("forward" in vars(m) for m in backbone.modules())
    return not replaced and all(can_pack(m) for m in linears) and not torch.is_autocast_enabled("cpu")


class LlamaStep:
    """A model's step, with its weights packed at construction; they must not change while it is used."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._backbone: Any = model.model
        self._layers = [LlamaLayer.of(layer) for layer in self._backbone.layers]
        self._head = Packed([model.get_output_embeddings()])

    def logits(self, ids_N: Tensor, positions_N1: Tensor, attend: Attend) -> Tensor:
        """Run one token of each row; returns [N, V] logits of the next one.

        Args:
            ids_N: The tokens.
            positions_N1: Their positions in their sequences.
            attend: Keeps the new keys and values, and attends to all that are kept.
        """
        h = self._backbone.embed_tokens(ids_N)
        cos, sin = self._backbone.rotary_emb(h[:, None], positions_N1)
        half = sin.shape[-1] // 2
        # rotate_half(x) sin = (−x₂, x₁) sin = (x₂, x₁) (−sin₁, sin₂)
        signed_sin = torch.cat([-sin[..., :half], sin[..., half:]], -1)
        for layer in self._layers:
            h = layer.step(h, cos, signed_sin, attend)
        logits: Tensor = self._head(self._backbone.norm(h))
        return logits


@dataclass(eq=False, slots=True)
class LlamaLayer:
    """h ← h + W_o attention(norm(h));  h ← h + W_down (silu(W_gate norm(h)) ⊙ W_up norm(h))"""

    attention: nn.Module
    """The layer's own attention, passed to `Attend`: keys and values are kept under it, as the prefill does."""
    shape: tuple[int, int, int]
    """H, J, D."""
    scaling: float
    eps: float
    attention_norm: Tensor
    mlp_norm: Tensor
    head_norm: Tensor | None
    """[H + J, D], of every query and key head; None for families without such norms."""
    qkv: Packed
    o: Packed
    gate: Packed
    up: Packed
    down: Packed

    @classmethod
    def of(cls, layer: Any) -> LlamaLayer:
        """Take a decoder layer of transformers apart and pack its weights."""
        a, mlp = layer.self_attn, layer.mlp
        D = a.head_dim
        H, J = a.q_proj.out_features // D, a.k_proj.out_features // D
        head_norm = None
        if hasattr(a, "q_norm"):
            head_norm = torch.cat([a.q_norm.weight.expand(H, D), a.k_norm.weight.expand(J, D)])
        return cls(
            attention=a,
            shape=(H, J, D),
            scaling=a.scaling,
            eps=layer.input_layernorm.variance_epsilon,
            attention_norm=layer.input_layernorm.weight,
            mlp_norm=layer.post_attention_layernorm.weight,
            head_norm=head_norm,
            qkv=Packed([a.q_proj, a.k_proj, a.v_proj]),
            o=Packed([a.o_proj]),
            gate=Packed([mlp.gate_proj]),
            up=Packed([mlp.up_proj]),
            down=Packed([mlp.down_proj]),
        )

    def step(self, h: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """Return the next hidden states [N, …]; `sin` holds −sin in its first half."""
        (H, J, D), N = self.shape, len(h)
        x = rms_norm(h, h.shape[1:], self.attention_norm, self.eps)
        heads = self.qkv(x).view(N, H + 2 * J, D)
        rotated, value_NJD = heads[:, : H + J], heads[:, H + J :]
        if self.head_norm is not None:
            rotated = rms_norm(rotated, (D,), None, self.eps) * self.head_norm
        rotated = torch.addcmul(rotated * cos, rotated.roll(D // 2, -1), sin)
        q_NJRD = (rotated[:, :H] * self.scaling).view(N, J, H // J, D)
        out = attend(self.attention, q_NJRD, rotated[:, H:], value_NJD)
        h = self.o(out.reshape(N, H * D), add=h)
        x = rms_norm(h, h.shape[1:], self.mlp_norm, self.eps)
        return self.down(self.up(x, multiply=self.gate(x, silu=True)), add=h)
