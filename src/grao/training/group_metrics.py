"""Metrics of a step's groups, under TRL's names where TRL has one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from grao.groups import Group, GroupBatch
from grao.objectives import Mean, k3
from grao.objectives.advantages import TOLERANCE
from grao.training.meter import Meter


def member_advantages(batch: GroupBatch) -> Tensor:
    """Return the objective's advantages as [P, M]; per-token advantages are averaged over each member's tokens."""
    assert batch.advantages_PM is not None
    if batch.advantages_PM.dim() == 2:
        return batch.advantages_PM
    return (batch.advantages_PM * batch.mask_PMT).sum(-1) / batch.lengths_PM.clamp(min=1)


def _mean(values: Tensor, where: Tensor) -> Mean:
    return Mean(values.where(where, torch.zeros_like(values)).sum(), where.sum())


def group_metrics(batch: GroupBatch) -> dict[str, Mean]:
    """Return rewards, advantages and kinds of groups of a batch whose advantages are set.

    `groups/all_win` and `all_lose` compare every sample with the reference; `groups/zero_variance` is the share of
    groups with equal rewards (GRPO learns nothing from them), `groups/skipped` of those with fewer than two scored
    members, and `groups/unscored` the share of samples without reward.
    """
    assert batch.advantages_PM is not None
    scored_PM = batch.scored_PM
    metrics: dict[str, Mean] = {}
    if batch.num_samples:
        metrics |= _sample_metrics(batch)
    if batch.has_reference and batch.num_samples:
        A_P = batch.reference(member_advantages(batch))
        # Objectives that do not learn from the reference have it masked, and give it no advantage.
        learnt_P = batch.reference(batch.mask_PMT).any(-1)
        active_P = learnt_P & batch.reference(scored_PM) & (scored_PM.sum(1) >= 2)
        metrics["advantage/reference_mean"] = _mean(A_P, active_P)
        metrics["advantage/reference_negative"] = _mean((A_P < 0).double(), active_P)
        metrics["reward/reference"] = _mean(batch.reference(batch.rewards_PM), batch.reference(scored_PM))
    return metrics


def _sample_metrics(batch: GroupBatch) -> dict[str, Mean]:
    assert batch.advantages_PM is not None
    rewards_PG, scored_PG = batch.samples(batch.rewards_PM), batch.samples(batch.scored_PM)
    n_P = scored_PG.sum(1)
    zeros_PG = torch.zeros_like(rewards_PG)
    mean_P = rewards_PG.where(scored_PG, zeros_PG).sum(1) / n_P.clamp(min=1)
    deviation_PG = (rewards_PG - mean_P[:, None]).where(scored_PG, zeros_PG)
    std_P = (deviation_PG.square().sum(1) / n_P.clamp(min=1)).sqrt()
    everyone = torch.ones_like(n_P, dtype=torch.bool)
    truncated_PG = batch.samples(batch.truncated_PM)
    alike = _mean((std_P <= TOLERANCE).double(), n_P >= 2)
    metrics = {
        "reward": _mean(rewards_PG, scored_PG),
        "reward_std": _mean(std_P, n_P >= 2),
        "frac_reward_zero_std": alike,  # TRL's name for it
        "groups/zero_variance": alike,
        "groups/skipped": _mean((batch.scored_PM.sum(1) < 2).double(), everyone),
        "groups/unscored": _mean((~scored_PG).double(), torch.ones_like(scored_PG)),
        "completions/clipped_ratio": _mean(truncated_PG.double(), torch.ones_like(truncated_PG)),
        "advantage/abs_mean": _mean(batch.advantages_PM.abs(), _earning(batch)),
    }
    if batch.has_reference:
        reference_P1 = batch.reference(batch.rewards_PM)[:, None]
        comparable_P = (n_P == batch.num_samples) & batch.reference(batch.scored_PM)
        metrics["groups/all_win"] = _mean((rewards_PG > reference_P1).all(1).double(), comparable_P)
        metrics["groups/all_lose"] = _mean((rewards_PG < reference_P1).all(1).double(), comparable_P)
    return metrics


def _earning(batch: GroupBatch) -> Tensor:
    """Mask of the advantages that count, in their shape: scored members with tokens, or their tokens."""
    assert batch.advantages_PM is not None
    if batch.advantages_PM.dim() == 2:
        return batch.scored_PM & batch.mask_PMT.any(-1)
    return batch.scored_PM[..., None] & batch.mask_PMT


def scoring_metrics(batch: GroupBatch, to_score: GroupBatch) -> dict[str, Mean]:
    """Return the shares of groups and members that have tokens but no weight, and were not scored for the loss.

    `likelihood_metrics` covers the other members alone.
    """
    had_PM, scored_PM = batch.mask_PMT.any(-1), to_score.mask_PMT.any(-1)
    return {
        "groups/not_run": _mean((~scored_PM.any(1)).double(), had_PM.any(1)),
        "members/not_run": _mean((~scored_PM).double(), had_PM),
    }


def likelihood_metrics(batch: GroupBatch, logprobs_PMT: Tensor, entropy_PMT: Tensor) -> dict[str, Mean]:
    """Return mean token log-probs (nats) of samples and reference, entropy, and KL where frozen log-probs are set.

    Over the members that were scored: pass the batch with all others masked. Where the engine reported log-probs,
    `sampling/logprob_difference` is their mean absolute difference to these.
    """
    mask_PMT = batch.mask_PMT
    J_PM = (logprobs_PMT * mask_PMT).sum(-1) / mask_PMT.sum(-1).clamp(min=1)
    has_tokens_PM = mask_PMT.any(-1)
    metrics = {}
    if batch.has_reference:
        metrics["logprobs/reference"] = _mean(batch.reference(J_PM), batch.reference(has_tokens_PM))
    drawn = slice(0, batch.num_samples) if batch.num_samples else slice(None)
    tokens = mask_PMT[:, drawn].sum()
    metrics["entropy"] = Mean((entropy_PMT * mask_PMT)[:, drawn].sum(), tokens)
    if batch.num_samples:
        metrics["logprobs/samples"] = _mean(batch.samples(J_PM), batch.samples(has_tokens_PM))
        if batch.frozen_logprobs_PMT is not None:
            log_ratio = ((batch.frozen_logprobs_PMT - logprobs_PMT) * mask_PMT)[:, drawn]
            metrics["kl"] = Mean(k3(torch.zeros_like(log_ratio), log_ratio).sum(), tokens)
        if batch.sampling_logprobs_PMT is not None:
            drift = (batch.sampling_logprobs_PMT - logprobs_PMT).abs() * mask_PMT
            metrics["sampling/logprob_difference"] = Mean(drift[:, drawn].sum(), tokens)
    return metrics


def add_sample_metrics(meter: Meter, groups: Sequence[Group], batch: GroupBatch) -> None:
    """Add the lengths of samples in tokens, under TRL's names, and the extremes of their advantages."""
    samples = [sample for group in groups for sample in group.samples]
    if not samples:
        return
    assert batch.advantages_PM is not None
    meter.add_extreme("advantage/abs_max", float(batch.advantages_PM.abs().max()), max)
    if batch.advantages_PM.dim() == 2:
        meter.add_extreme("advantage/bound", advantage_bound(batch.rewards_PM.shape[1]), max)
    lengths = [sample.length for sample in samples]
    meter.add({"completions/mean_length": Mean(torch.tensor(sum(lengths)), torch.tensor(len(lengths)))})
    meter.add_extreme("completions/min_length", min(lengths), min)
    meter.add_extreme("completions/max_length", max(lengths), max)
    ended = [sample.length for sample in samples if sample.finish == "stop"]
    if ended:
        ended_mean = Mean(torch.tensor(sum(ended)), torch.tensor(len(ended)))
        meter.add({"completions/mean_terminated_length": ended_mean})


def advantage_bound(members: int) -> float:
    """Return √(n − 1), the largest standardised advantage among n members (docs/methods.md)."""
    return math.sqrt(max(members - 1, 0))
