"""Tensors of a rollout that are computed once, without gradient: behaviour, values, frozen policy."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from grao.compat.torch_modules import evaluating
from grao.groups import GroupBatch
from grao.policy import group_logprobs
from grao.training.micro_batches import map_micro_batches, samples_only
from grao.training.step_state import StepState


def add_constants(state: StepState, batch: GroupBatch, cut: list[list[int]]) -> GroupBatch:
    """Add what the objective needs beside live log-probs, without gradient: behaviour, values, frozen policy.

    They are computed before the advantages, which may read them (PPO's token rewards hold a KL and its advantages the
    critic's values), in the cut of the micro-batches.
    """
    needs, compute = state.objective.needs, partial(map_micro_batches, cut=cut, device=state.device)
    reused = state.stages.updates_per_rollout(state.stage) > 1
    if needs.behaviour == "always" or (needs.behaviour == "reused" and reused):
        batch = batch.with_(behaviour_logprobs_PMT=compute(samples_only(batch), compute=partial(live_logprobs, state)))
    if needs.critic:
        batch = batch.with_(values_PMT=compute(samples_only(batch), compute=partial(live_values, state)))
    if state.anchor.table is not None:
        return batch.with_(frozen_logprobs_PMT=state.anchor.table.logprobs(batch))
    if needs.frozen_policy or (needs.samples and state.kl_is_due):
        batch = batch.with_(frozen_logprobs_PMT=compute(batch, compute=partial(frozen_logprobs, state)))
    return batch


@torch.no_grad()
def live_logprobs(state: StepState, batch: GroupBatch) -> Tensor:
    """Return log π_θ of the current weights, without dropout: [P, M, T]."""
    with evaluating(state.model), state.autocast():
        return group_logprobs(state.model, batch, temperature=state.rollout.loss_temperature).logprobs_PMT


@torch.no_grad()
def live_values(state: StepState, batch: GroupBatch) -> Tensor:
    """Return V_φ of the current critic for the samples, without dropout: [P, M, T]."""
    assert state.critic is not None, "needs.critic makes one"
    with evaluating(state.model), evaluating(state.critic.critic):
        return state.critic.values(state.model, batch)


def frozen_logprobs(state: StepState, batch: GroupBatch) -> Tensor:
    """Return log π_frozen: [P, M, T]."""
    return state.anchor.logprobs(batch, state.rollout.loss_temperature, state.autocast())
