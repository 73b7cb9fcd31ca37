"""The KL to the base, estimated on one answer per prompt drawn at temperature 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from grao.compat.torch_modules import evaluating
from grao.groups import Group, GroupBatch, collate
from grao.policy import LoadedPolicy, group_logprobs
from grao.rollout import Engine, SamplingParams, sample_groups

Logprobs = Callable[[GroupBatch], Tensor]
"""Log-probs of a batch of groups, in nats: [P, M, T]."""


def kl_to(
    base: Logprobs, policy: LoadedPolicy, engine: Engine, groups: Sequence[Group], params: SamplingParams, seed: int
) -> list[float]:
    """Return Σ_t k3(π, base) in nats for one answer per prompt drawn from π.

        k3 = r − 1 − log r   with   r = base(x_t | …) / π(x_t | …)

    Each term is at least 0, and its mean is the KL of that token's distribution (J. Schulman, 2020). The mean over
    prompts estimates KL(π ‖ base) per answer.

    Args:
        base: log-probs under the base.
        policy: π.
        engine: samples from π.
        groups: the prompts; their samples and references are ignored.
        params: only the length limit and stop conditions are used; answers are drawn at temperature 1, untruncated.
        seed: of the draws, which differ from those of the scored answers.
    """
    prompts = [replace(group, reference=None, rejected=None) for group in groups]
    plain = SamplingParams(params.max_new_tokens, stop=params.stop, stop_token_ids=params.stop_token_ids)
    answered = sample_groups(engine, prompts, plain, seed=seed, step=1, num_samples=1)
    batch = collate(answered, pad_token_id=int(policy.tokenizer.pad_token_id or 0))
    batch = batch.to(next(policy.model.parameters()).device)
    log_ratio_PMT = (base(batch) - model_logprobs(policy, batch)) * batch.mask_PMT
    k3_P: Tensor = (log_ratio_PMT.exp() - log_ratio_PMT - 1).sum((1, 2))
    return [float(value) for value in k3_P.tolist()]


@torch.no_grad()
def model_logprobs(policy: LoadedPolicy, batch: GroupBatch) -> Tensor:
    """Score a batch under this model, without gradients and without dropout."""
    with evaluating(policy.model):
        return group_logprobs(policy.model, batch).logprobs_PMT
