"""The language-model head on scored tokens only: [tokens × vocabulary] never exists for the whole batch.

A plain linear head is computed in tiles (`grao.policy.tiled_head`). Any other (an adapter, hooks, a bias, capped
logits) is called as a module, on chunks of tokens that are computed again in the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig

from grao.compat.torch_modules import has_hooks
from grao.policy.tiled_head import tiled_head

CHUNK_LOGITS = 2**22
"""Logits held at a time (16 MiB in float32). From 32 MiB on, glibc takes memory from the system for each allocation
and gives it back: every pass over such a chunk would begin with page faults (docs/decisions.md)."""
CHUNK_TOKENS = 64
"""Tokens per chunk at least, for any vocabulary: each chunk reads all the weights of the head, and makes a gradient of
their size."""


@dataclass(frozen=True, slots=True)
class LogitTransform:
    """The function between a model's head and its softmax: logits = cap(scale · head(h))."""

    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, config: PretrainedConfig) -> LogitTransform:
        """Read the transform from a model's config: Cohere scales, Granite divides, Gemma 2 caps."""
        text = config.get_text_config()
        scale = getattr(text, "logit_scale", None)
        divisor = getattr(text, "logits_scaling", None)
        if scale is None:
            scale = 1.0 if divisor is None else 1.0 / divisor
        return cls(float(scale), getattr(text, "final_logit_softcapping", None))

    def __call__(self, logits: Tensor) -> Tensor:
        """Turn head output [K, V] into the logits of the softmax, in float32 at least."""
        logits = logits.float() if logits.dtype != torch.float64 else logits
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


def score_tokens(
    hidden_KD: Tensor,
    ids_K: Tensor,
    head: nn.Module,
    transform: LogitTransform,
    temperature: float = 1.0,
    *,
    entropy_grad: bool = False,
) -> tuple[Tensor, Tensor]:
    """log π(id | hidden) = logit_id − logsumexp(logits), with logits / temperature, and H = −Σ π log π.

    Args:
        hidden_KD: Last hidden states at the K places that predict a scored token.
        ids_K: The tokens that followed.
        head: The model's output embedding, of any kind.
        transform: The function between head and softmax.
        temperature: Of the softmax.
        entropy_grad: Make the entropy differentiable.

    Returns:
        log-probs [K], differentiable; entropy [K], constant by default; in nats, float32 (float64 for float64 models).
    """
    if isinstance(head, nn.Linear) and _is_plain(head, transform):
        return _score_by_tiles(hidden_KD, ids_K, head.weight, transform.scale / temperature, entropy_grad)
    chunk = max(CHUNK_TOKENS, CHUNK_LOGITS // _vocabulary(head))
    parts = []
    for hidden, ids in zip(hidden_KD.split(chunk), ids_K.split(chunk), strict=True):
        arguments = (hidden, ids, head, transform, temperature, entropy_grad)
        if torch.is_grad_enabled():  # recomputed in the backward pass, up to the last tensor that it needs
            parts.append(checkpoint(_score_chunk, *arguments, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(_score_chunk(*arguments))
    logprobs, entropies = zip(*parts, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def _is_plain(head: nn.Linear, transform: LogitTransform) -> bool:
    """Return whether the head is a matrix and nothing else, and no hook waits for it to be called."""
    return (
        type(head) is nn.Linear
        and head.bias is None
        and type(head.weight) in (nn.Parameter, Tensor)
        and transform.softcap is None
        and not has_hooks(head)
    )


def _score_by_tiles(
    hidden_KD: Tensor, ids_K: Tensor, weight_VD: Tensor, slope: float, entropy_grad: bool
) -> tuple[Tensor, Tensor]:
    kind = hidden_KD.device.type
    if torch.is_autocast_enabled(kind):  # as it does to a linear layer
        dtype = torch.get_autocast_dtype(kind)
        hidden_KD, weight_VD = hidden_KD.to(dtype), weight_VD.to(dtype)
    return tiled_head(hidden_KD, weight_VD, ids_K, slope, CHUNK_LOGITS, entropy_grad)


def _score_chunk(
    hidden: Tensor, ids: Tensor, head: nn.Module, transform: LogitTransform, temperature: float, entropy_grad: bool
) -> tuple[Tensor, Tensor]:
    logits = transform(head(hidden))
    if temperature != 1.0:
        logits = logits / temperature
    normaliser = logits.logsumexp(-1)
    logprobs = logits.gather(-1, ids[:, None])[:, 0] - normaliser
    with torch.set_grad_enabled(entropy_grad and torch.is_grad_enabled()):
        entropy = normaliser - (logits * (logits - normaliser[:, None]).exp()).sum(-1)
    return logprobs, entropy


def _vocabulary(head: nn.Module) -> int:
    weight = getattr(head, "weight", None)
    if weight is None:  # a head wrapped by an adapter
        weight = next(p for name, p in head.named_parameters() if name.endswith("weight"))
    return int(weight.shape[0])
