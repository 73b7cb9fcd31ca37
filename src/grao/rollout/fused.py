"""A decoding step of the Llama family in fewer operations, on packed weights, for CPUs.

With a few dozen rows, a step's time is reading weights, reading keys, and some sixty small operations a layer. Here
they are 43 (dispatched, views aside): query, key and value are one product, norms and rotation take fewer calls, and
oneDNN applies the activation, the gate and the residual sum while it writes a product's result. The mathematics is
transformers' own, which the check of `grao.rollout.agreement` compares it with before it is used. Everything but a
step goes through the model as it is.

Suffixes: N rows, H heads, J key-value heads, D dimensions of a head, R = H / J.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm
from transformers import PreTrainedModel

from grao.rollout.decoder import GroupDecoder
from grao.rollout.group_attention import attend_to_groups
from grao.rollout.group_cache import GroupCache, Visibility
from grao.rollout.weights import Packed, can_pack

FAMILIES = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
"""Whose layers are, in transformers, what `_Layer` computes."""


def can_fuse(model: PreTrainedModel) -> bool:
    """Whether this is such a model as it comes from transformers: no adapters, shards, windows, or layers replaced.

    Hooks on its layers are not called in a step, as layers are not. Under autocast it is not done.
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


class FusedDecoder(GroupDecoder):
    """A `GroupDecoder` whose steps are fused. The weights are packed when it is made, and must not change then."""

    def __init__(self, model: PreTrainedModel):
        super().__init__(model)
        self._backbone: Any = model.model
        self._layers = [_Layer.of(layer) for layer in self._backbone.layers]
        self._head = Packed([model.get_output_embeddings()])

    def step(self, ids_N: Tensor) -> Tensor:
        """Append one token to every row; returns [N, V] logits of the next one."""
        h = self._backbone.embed_tokens(ids_N)
        cos, sin = self._backbone.rotary_emb(h[:, None], self._positions())
        half = sin.shape[-1] // 2
        # rotate_half(x) sin = (−x₂, x₁) sin = (x₂, x₁) (−sin₁, sin₂)
        signed_sin = torch.cat([-sin[..., :half], sin[..., half:]], -1)
        visibility = Visibility(None)
        for layer in self._layers:
            h = layer.step(h, cos, signed_sin, self._cache, visibility)
        self._cache.advance()
        logits: Tensor = self._head(self._backbone.norm(h))
        return logits


@dataclass(eq=False, slots=True)
class _Layer:
    """h ← h + W_o attention(norm(h));  h ← h + W_down (silu(W_gate norm(h)) ⊙ W_up norm(h))"""

    attention: nn.Module
    """Under this name the layer's keys and values are kept, as they are by the prefill."""
    shape: tuple[int, int, int]
    """H, J, D."""
    scaling: float
    eps: float
    attention_norm: Tensor
    mlp_norm: Tensor
    head_norm: Tensor | None
    """[H + J, D], of every query and key head; None where they have no norm."""
    qkv: Packed
    o: Packed
    gate: Packed
    up: Packed
    down: Packed

    @classmethod
    def of(cls, layer: Any) -> _Layer:
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

    def step(self, h: Tensor, cos: Tensor, sin: Tensor, cache: GroupCache, visibility: Visibility) -> Tensor:
        (H, J, D), N = self.shape, len(h)
        x = rms_norm(h, h.shape[1:], self.attention_norm, self.eps)
        heads = self.qkv(x).view(N, H + 2 * J, D)
        rotated, value_NJD = heads[:, : H + J], heads[:, H + J :]
        if self.head_norm is not None:
            rotated = rms_norm(rotated, (D,), None, self.eps) * self.head_norm
        rotated = torch.addcmul(rotated * cos, rotated.roll(D // 2, -1), sin)
        q_NJRD = (rotated[:, :H] * self.scaling).view(N, J, H // J, D)
        out = attend_to_groups(self.attention, q_NJRD, rotated[:, H:], value_NJD, cache, visibility)
        h = self.o(out.reshape(N, H * D), add=h)
        x = rms_norm(h, h.shape[1:], self.mlp_norm, self.eps)
        return self.down(self.up(x, multiply=self.gate(x, silu=True)), add=h)
