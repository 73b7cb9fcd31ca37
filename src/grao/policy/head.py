"""The language-model head on scored tokens only, in chunks: [tokens × vocabulary] never exists for the whole batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig

CHUNK_LOGITS = 2**24
"""Logits held at a time (64 MiB in float32), whatever the vocabulary: 2048 tokens of 8k words, 110 of 152k."""


@dataclass(frozen=True, slots=True)
class LogitTransform:
    """What a model does to its head's output before the softmax: logits = cap(scale · head(h))."""

    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, config: PretrainedConfig) -> LogitTransform:
        """Read off a model's config: Cohere scales, Granite divides, Gemma 2 caps."""
        text = config.get_text_config()
        scale = getattr(text, "logit_scale", None)
        divisor = getattr(text, "logits_scaling", None)
        if scale is None:
            scale = 1.0 if divisor is None else 1.0 / divisor
        return cls(float(scale), getattr(text, "final_logit_softcapping", None))

    def __call__(self, logits: Tensor) -> Tensor:
        """Head output [K, V] as the logits of the softmax, in float32 at least."""
        logits = logits.float() if logits.dtype != torch.float64 else logits
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


def score_tokens(
    hidden_KD: Tensor, ids_K: Tensor, head: nn.Module, transform: LogitTransform, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """log π(id | hidden) = logit_id − logsumexp(logits), with logits / temperature, and the entropy.

    Args:
        hidden_KD: last hidden states at the K places that predict a scored token.
        ids_K: the tokens that followed.
        head: the model's output embedding, of whatever kind.
        transform: what the model does to its logits.
        temperature: of the softmax.

    Returns:
        log-probs [K], differentiable; entropy [K], constant; both in nats, float32 (float64 for float64 models).
    """
    chunk = max(1, CHUNK_LOGITS // _vocabulary(head))
    parts = []
    for hidden, ids in zip(hidden_KD.split(chunk), ids_K.split(chunk), strict=True):
        if torch.is_grad_enabled():
            # Recomputed in the backward pass, which stops before the entropy: nothing after it needs a gradient.
            part = checkpoint(
                _score_chunk, hidden, ids, head, transform, temperature, use_reentrant=False, preserve_rng_state=False
            )
        else:
            part = _score_chunk(hidden, ids, head, transform, temperature)
        parts.append(part)
    logprobs, entropies = zip(*parts, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def _score_chunk(
    hidden: Tensor, ids: Tensor, head: nn.Module, transform: LogitTransform, temperature: float
) -> tuple[Tensor, Tensor]:
    logits = transform(head(hidden))
    if temperature != 1.0:
        logits = logits / temperature
    normaliser = logits.logsumexp(-1)
    logprobs = logits.gather(-1, ids[:, None])[:, 0] - normaliser
    with torch.no_grad():
        entropy = normaliser - (logits * (logits - normaliser[:, None]).exp()).sum(-1)
    return logprobs, entropy


def _vocabulary(head: nn.Module) -> int:
    weight = getattr(head, "weight", None)
    if weight is None:  # a head wrapped by an adapter
        weight = next(p for name, p in head.named_parameters() if name.endswith("weight"))
    return int(weight.shape[0])
