"""What a step's groups say: metrics under TRL's names, with GRAO's own beside them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from grao.groups import GroupBatch
from grao.objectives import Mean
from grao.objectives.advantages import TOLERANCE

Summary = dict[str, tuple[float, float]]


class Meter:
    """Adds up metrics between two logs: means as (total, count), extremes as they are."""

    def __init__(self) -> None:
        self._means: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._extremes: dict[str, tuple[Callable[..., float], float]] = {}

    def add(self, metrics: dict[str, Mean]) -> None:
        """Add totals and counts. A NaN total is a bug upstream, and stays visible."""
        for name, mean in metrics.items():
            self._means[name][0] += mean.total.item()
            self._means[name][1] += mean.count.item()

    def add_share(self, name: str, value: float, steps: float) -> None:
        """Add a part of a step's sum; `steps` is 1 for the last part of a step and 0 for the others."""
        self._means[name][0] += value
        self._means[name][1] += steps

    def add_value(self, name: str, value: float) -> None:
        """Add one value of a metric that is averaged over steps."""
        self._means[name][0] += value
        self._means[name][1] += 1

    def add_extreme(self, name: str, value: float, better: Callable[..., float]) -> None:
        """Keep the `min` or `max` of a metric."""
        known = self._extremes.get(name)
        self._extremes[name] = (better, value if known is None else better(known[1], value))

    def state(self) -> tuple[Summary, dict[str, tuple[str, float]]]:
        """Plain numbers, to be gathered over processes."""
        extremes = {name: (better.__name__, value) for name, (better, value) in self._extremes.items()}
        return {name: (total, count) for name, (total, count) in self._means.items()}, extremes

    def clear(self) -> None:
        """Start over."""
        self._means.clear()
        self._extremes.clear()


def merge(states: list[tuple[Summary, dict[str, tuple[str, float]]]]) -> dict[str, float]:
    """One number a metric from the states of all processes; a metric that nothing counted for is left out."""
    means: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    extremes: dict[str, float] = {}
    for summary, bounds in states:
        for name, (total, count) in summary.items():
            means[name][0] += total
            means[name][1] += count
        for name, (kind, value) in bounds.items():
            better = max if kind == "max" else min
            extremes[name] = better(extremes.get(name, value), value)
    merged = {name: total / count for name, (total, count) in means.items() if count > 0}
    return dict(sorted({**merged, **extremes}.items()))


def member_advantages(batch: GroupBatch) -> Tensor:
    """[P, M]: the objective's advantages, those of tokens averaged over each member's tokens that count."""
    assert batch.advantages_PM is not None
    if batch.advantages_PM.dim() == 2:
        return batch.advantages_PM
    return (batch.advantages_PM * batch.mask_PMT).sum(-1) / batch.lengths_PM.clamp(min=1)


def _mean(values: Tensor, where: Tensor) -> Mean:
    return Mean(values.where(where, torch.zeros_like(values)).sum(), where.sum())


def group_metrics(batch: GroupBatch) -> dict[str, Mean]:
    """Rewards, advantages, lengths and group kinds of a batch whose advantages are set.

    `groups/all_win` and `all_lose` compare every sample with the reference; `groups/zero_variance` counts groups
    whose samples are rewarded alike (GRPO learns nothing from them); `groups/skipped` those with fewer than two
    scored members; `groups/unscored` is the share of members without reward.
    """
    assert batch.advantages_PM is not None
    scored_PM = batch.scored_PM
    metrics: dict[str, Mean] = {}
    if batch.num_samples:
        metrics |= _sample_metrics(batch)
    if batch.has_reference and batch.num_samples:
        A_P = batch.reference(member_advantages(batch))
        # An objective that does not learn from the reference has it masked, and gives it no advantage to report.
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
    """What an advantage counts for, in the shape of the advantages: scored members with tokens, or their tokens."""
    assert batch.advantages_PM is not None
    if batch.advantages_PM.dim() == 2:
        return batch.scored_PM & batch.mask_PMT.any(-1)
    return batch.scored_PM[..., None] & batch.mask_PMT


def running_metrics(batch: GroupBatch, running: GroupBatch) -> dict[str, Mean]:
    """The shares of groups and members that have tokens and no weight, and did not run for the loss.

    What `likelihood_metrics` says is about the others alone.
    """
    had_PM, ran_PM = batch.mask_PMT.any(-1), running.mask_PMT.any(-1)
    return {
        "groups/not_run": _mean((~ran_PM.any(1)).double(), had_PM.any(1)),
        "members/not_run": _mean((~ran_PM).double(), had_PM),
    }


def likelihood_metrics(batch: GroupBatch, logprobs_PMT: Tensor, entropy_PMT: Tensor) -> dict[str, Mean]:
    """Mean token log-probs (nats) of samples and reference, entropy, and KL where the frozen policy was asked.

    Over members that ran: give the batch with all others masked.
    And how far the log-probs that the engine reported are from these, where the batch has them.
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
            metrics["kl"] = Mean((log_ratio.exp() - log_ratio - 1).sum(), tokens)
        if batch.sampling_logprobs_PMT is not None:
            drift = (batch.sampling_logprobs_PMT - logprobs_PMT).abs() * mask_PMT
            metrics["sampling/logprob_difference"] = Mean(drift[:, drawn].sum(), tokens)
    return metrics


def add_lengths(meter: Meter, lengths: list[int], finished: list[bool]) -> None:
    """Completion lengths in tokens, under TRL's names."""
    if not lengths:
        return
    meter.add({"completions/mean_length": Mean(torch.tensor(sum(lengths)), torch.tensor(len(lengths)))})
    meter.add_extreme("completions/min_length", min(lengths), min)
    meter.add_extreme("completions/max_length", max(lengths), max)
    ended = [n for n, done in zip(lengths, finished, strict=True) if done]
    if ended:
        ended_mean = Mean(torch.tensor(sum(ended)), torch.tensor(len(ended)))
        meter.add({"completions/mean_terminated_length": ended_mean})


def advantage_bound(members: int) -> float:
    """√(n − 1): no standardised advantage among n members can be larger (docs/methods.md)."""
    return math.sqrt(max(members - 1, 0))
