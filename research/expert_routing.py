"""Routing in a mixture of experts: entropy of the router and load of the experts, on the same texts for all models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from grao.data import EncodedExample
from grao.policy import LoadedPolicy


@torch.no_grad()
def expert_metrics(policy: LoadedPolicy, rows: Sequence[EncodedExample]) -> dict[str, float]:
    """Routing of the prompts with their reference answers, averaged over layers; nothing for a dense model.

        router_entropy     mean over tokens of −Σ_e p_e log p_e, in nats, p the router's softmax over all E experts
        expert_load_max    E · the largest share of the (token, place) pairs that one expert has: 1 is balance, E/k or
                           less where each token takes k of E
        expert_load_entropy    −Σ_e f_e log f_e / log E over those shares f: 1 is balance

    The texts are the same for every model, so what differs is the routing.
    """
    config = policy.model.config.get_text_config()
    if getattr(config, "num_experts_per_tok", None) is None:
        return {}
    policy.model.eval()
    texts = [[*row.prompt_ids, *(row.reference_ids or ())] for row in rows]
    by_row = [_router_logits(policy.model, ids) for ids in texts]
    layers = [torch.cat(tokens) for tokens in zip(*by_row, strict=True)]
    found = [routing(logits_NE, int(config.num_experts_per_tok)) for logits_NE in layers]
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]}


def routing(logits_NE: Tensor, k: int) -> dict[str, float]:
    """Return the three numbers of one layer: N tokens, E experts, k of them per token."""
    experts = logits_NE.shape[-1]
    logprobs_NE = logits_NE.double().log_softmax(-1)
    entropy = float(-(logprobs_NE.exp() * logprobs_NE).sum(-1).mean())
    chosen = logits_NE.topk(k).indices.flatten()
    share_E = torch.bincount(chosen, minlength=experts).double() / len(chosen)
    load_entropy = float(-torch.special.xlogy(share_E, share_E).sum()) / math.log(experts)
    return {
        "router_entropy": entropy,
        "expert_load_max": experts * float(share_E.max()),
        "expert_load_entropy": load_entropy,
    }


def _router_logits(model: Any, ids: Sequence[int]) -> tuple[Tensor, ...]:
    """[tokens, experts] of each layer."""
    logits: tuple[Tensor, ...] = model(
        input_ids=torch.tensor([list(ids)]), use_cache=False, output_router_logits=True
    ).router_logits
    return logits
