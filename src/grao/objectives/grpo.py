"""GRPO and the members of its family that differ by a setting: Dr.GRPO, DAPO's loss, RLOO's advantages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from grao.groups import GroupBatch, PolicyOutput
from grao.objectives.advantages import centre, leave_one_out, standardise
from grao.objectives.likelihood import Aggregation, aggregate, check_aggregation, zero_masked
from grao.objectives.objective import LossOutput, Needs, Objective, Progress, pad_members
from grao.objectives.ratio import (
    check_clip,
    check_sampling_cap,
    clipped_gain,
    k3,
    likelihood_ratio,
    sampling_weight,
)

Baseline = Literal["standardised", "centred", "leave_one_out"]


@dataclass(frozen=True)
class GRPO(Objective):
    """Group Relative Policy Optimization (arXiv 2402.03300).

        L = −(1/G) Σ_i (1/|o_i|) Σ_t [ min(r_it Â_i, clip(r_it, 1−ε_low, 1+ε_high) Â_i) − kl · k3_it ]

        r_it  = π_θ(o_it) / π_behaviour(o_it)
        k3_it = π_frozen/π_θ − log(π_frozen/π_θ) − 1   ≥ 0, an unbiased estimate of KL(π_θ ‖ π_frozen)

    averaged over the step's groups. With one update per rollout r = 1, and the gradient is REINFORCE's. The
    population's σ is the default; TRL and verl use `ddof=1` and add an epsilon to σ; we never add one.
    """

    clip_low: float = 0.2
    """ε_low: a token with Â < 0 has no gradient below the ratio 1 − ε_low."""
    clip_high: float = 0.2
    """ε_high: a token with Â > 0 has no gradient above the ratio 1 + ε_high."""
    kl: float = 0.0
    """Weight of the KL penalty to the frozen policy (TRL calls it `beta`)."""
    baseline: Baseline = "standardised"
    """`standardised` (R−μ)/σ; `centred` R−μ (Dr.GRPO); `leave_one_out` R minus the others' mean (RLOO)."""
    ddof: int = 0
    """0: σ of the population; 1: σ of a sample, as in TRL."""
    aggregation: Aggregation = "sequence_mean"
    length: int | None = None
    """The constant of `aggregation="constant"`, in tokens."""
    sampling_cap: float | None = 2.0
    """Largest importance weight of a sample token where the engine is not exact (see `sampling_weight`); null = no
    correction. The weight multiplies the policy term, not the KL."""

    def __post_init__(self) -> None:
        check_aggregation(self.aggregation, self.length)
        if self.baseline not in get_args(Baseline):
            raise ValueError(f"baseline is {self.baseline!r}; it must be one of {', '.join(get_args(Baseline))}")
        if self.ddof not in (0, 1):
            raise ValueError(f"ddof is {self.ddof!r}; it must be 0 (population) or 1 (sample)")
        check_clip(self.clip_low, self.clip_high)
        check_sampling_cap(self.sampling_cap)
        if not 0 <= self.kl < math.inf:  # also refuses NaN
            raise ValueError(
                f"kl is {self.kl}; give a finite number, 0 or more (a negative weight would reward drifting away)"
            )

    @classmethod
    def dr_grpo(cls, length: int, **changes: object) -> GRPO:
        """Dr.GRPO (arXiv 2503.20783): no σ, a constant normaliser; both biases of GRPO removed."""
        return cls(**{"baseline": "centred", "aggregation": "constant", "length": length, **changes})  # type: ignore[arg-type]

    @classmethod
    def dapo(cls, **changes: object) -> GRPO:
        """DAPO's loss (arXiv 2503.14476): token mean, clip-higher 0.28, no KL. Not its dynamic sampling."""
        return cls(**{"clip_high": 0.28, "aggregation": "token_mean", **changes})  # type: ignore[arg-type]

    @classmethod
    def rloo(cls, **changes: object) -> GRPO:
        """RLOO's advantages (arXiv 2402.14740) with the token ratio of GRPO."""
        return cls(**{"baseline": "leave_one_out", **changes})  # type: ignore[arg-type]

    @property
    def needs(self) -> Needs:
        """Samples; the frozen policy only for a KL penalty."""
        return Needs(samples=True, frozen_policy=self.kl > 0, behaviour="reused")

    _baselines: ClassVar = {"centred": centre, "leave_one_out": leave_one_out}

    def advantages(self, batch: GroupBatch) -> Tensor:
        """Return Â over the samples; 0 for the reference: [P, M]."""
        rewards_PG = batch.samples(batch.rewards_PM)
        if self.baseline == "standardised":
            return pad_members(standardise(rewards_PG, ddof=self.ddof), batch)
        return pad_members(self._baselines[self.baseline](rewards_PG), batch)

    def contributing(self, batch: GroupBatch, progress: Progress) -> Tensor:
        """Return samples with an advantage; with a KL penalty, all counted samples: bool [P, M]."""
        assert batch.advantages_PM is not None
        contributing_PM = super().contributing(batch, progress)
        if self.kl == 0:
            contributing_PM = contributing_PM & (batch.advantages_PM != 0)
        return contributing_PM & (pad_members(_counted_samples(batch), batch) > 0)

    def denominator(self, batch: GroupBatch) -> Tensor:
        """Return [samples, sample tokens] of the groups with at least two scored samples."""
        counted_PG = _counted_samples(batch)
        tokens_PG = batch.samples(batch.lengths_PM) * counted_PG
        return torch.stack([counted_PG.sum(), tokens_PG.sum()]).double()

    def loss(self, batch: GroupBatch, output: PolicyOutput, denominator: Tensor, progress: Progress) -> LossOutput:
        """Return the equation above; terms `policy` and, with `kl` > 0, `kl`."""
        assert batch.advantages_PM is not None
        mask_PGT = batch.samples(batch.mask_PMT) & _counted_samples(batch)[..., None]
        logprobs_PGT = zero_masked(batch.samples(output.logprobs_PMT), mask_PGT)
        A_PG1 = batch.samples(batch.advantages_PM).to(logprobs_PGT.dtype)[..., None]

        behaviour_PMT = batch.behaviour_logprobs_PMT
        behaviour_PGT = None if behaviour_PMT is None else batch.samples(behaviour_PMT)
        # 1 for samples that do not contribute: their log π may be missing.
        contributing_PGT = mask_PGT & batch.samples(self.contributing(batch, progress))[..., None]
        ratio_PGT = likelihood_ratio(logprobs_PGT, behaviour_PGT, contributing_PGT)
        gain_PGT, metrics = clipped_gain(ratio_PGT, A_PG1, mask_PGT, self.clip_low, self.clip_high)
        weight_PGT, weight_metrics = sampling_weight(batch, output.logprobs_PMT, contributing_PGT, self.sampling_cap)
        if weight_PGT is not None:
            gain_PGT = gain_PGT * weight_PGT

        def total(values_PGT: Tensor) -> Tensor:
            return aggregate(values_PGT, mask_PGT, denominator, self.aggregation, self.length)

        terms = {"policy": -total(gain_PGT)}
        if self.kl > 0:
            assert batch.frozen_logprobs_PMT is not None
            frozen_PGT = zero_masked(batch.samples(batch.frozen_logprobs_PMT), mask_PGT)
            terms["kl"] = self.kl * total(k3(logprobs_PGT, frozen_PGT))
        return LossOutput(terms, metrics | weight_metrics)


def _counted_samples(batch: GroupBatch) -> Tensor:
    """bool [P, G]: scored samples of groups that have at least two of them."""
    scored_PG = batch.samples(batch.scored_PM)
    return scored_PG & (scored_PG.sum(1, keepdim=True) >= 2)
