"""GRAO: exploration, imitation and alignment by group-relative advantages (arXiv 2508.07750)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from grao.groups import GroupBatch, PolicyOutput
from grao.objectives.advantages import TOLERANCE, standardise, standardise_against
from grao.objectives.likelihood import Aggregation, check_aggregation, mean_logprob, zero_masked
from grao.objectives.objective import LossOutput, Mean, Needs, Objective, Progress, pad_members
from grao.objectives.ratio import check_sampling_cap, sampling_weight

Normalisation = Literal["joint", "samples", "split"]
NegativeReference = Literal["keep", "clamp", "gate", "taper"]


@dataclass(frozen=True)
class GRAO(Objective):
    """Group Relative Alignment Optimization. The defaults are the paper's.

        maximise  (1/G) Σ_i Â_i J(o_i)                    exploration
                + β Â_y J(y)                              imitation
                + λ (1/G) Σ_i Â_i (J(o_i) − J(y))         regulariser

    (Eq. 3, averaged over the step's groups), with J(x) = (1/|x|) Σ_t log π_θ(x_t | q, x_<t) and Â the standardised
    rewards of the group. Because everything is linear in J, it collapses to one weight per member (docs/methods.md):

        c_i = (1+λ) Â_i / G        c_y = β Â_y − λ mean_i Â_i

    G counts the scored samples. There is no ratio, no clipping and no KL term.
    """

    beta: float = 0.5
    """β, weight of imitation. (Not TRL's `beta`, which is a KL weight: ours is called `kl`.)"""
    lam: float = 0.6
    """λ, weight of the regulariser."""
    exploration: float = 1.0
    """Weight of exploration: 1 in the paper, 0 for its ablation."""
    advantages_over: Normalisation = "joint"
    """Whose mean and population σ standardise the rewards.

    `joint`: the samples and the reference, for both (the paper's text).
    `samples`: the samples, for both (the paper's Eq. 4 as printed; all samples equal gives Â_y = 0).
    `split`: the samples for Â_i, samples and reference for Â_y (recommended).
    """
    negative_reference: NegativeReference = "keep"
    """Treatment of a negative total weight c_y on the reference, which means that samples beat it.

    `keep`: un-learn the reference, without bound (the paper).
    `clamp`: c_y = max(c_y, 0) (recommended).
    `gate`: multiply each token by sg[π_θ(y_t)], so that the push fades as the token gets unlikely.
    `taper`: multiply the sequence by sg[min(1, π_θ(y)/π_frozen(y))] (TOPR, arXiv 2503.14286).
    """
    aggregation: Aggregation = "sequence_mean"
    """Normaliser of J: |x|, or one length for all: the step's mean length (`token_mean`) or `length` (`constant`)."""
    length: int | None = None
    """The constant of `aggregation="constant"`, in tokens."""
    sampling_cap: float | None = 2.0
    """Largest importance weight w of a sample token where the engine is not exact (see `sampling_weight`); null = no
    correction. J(o_i) is then (1/|o_i|) Σ_t w_t log π_θ(o_it), in exploration and regulariser, so that the identities
    above hold. Several updates per rollout: w is the ratio of the current policy to the engine."""

    def __post_init__(self) -> None:
        check_aggregation(self.aggregation, self.length)
        check_sampling_cap(self.sampling_cap)
        for name, choices in (("advantages_over", Normalisation), ("negative_reference", NegativeReference)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(get_args(choices))}"
                )
        for name in ("beta", "lam", "exploration"):
            if not 0 <= getattr(self, name) < math.inf:  # also refuses NaN
                raise ValueError(f"{name} is {getattr(self, name)}; a weight must be a finite number, 0 or more")

    @classmethod
    def recommended(cls, **changes: object) -> GRAO:
        """Return our variant, which departs from the paper in two choices (docs/decisions.md).

        The samples' advantages are taken over the samples, and the total weight on the reference is clamped at 0:
        a reference that samples beat is left alone instead of un-learned.
        """
        return cls(**{"advantages_over": "split", "negative_reference": "clamp", **changes})  # type: ignore[arg-type]

    @property
    def needs(self) -> Needs:
        """Samples and a reference; the frozen policy only for `taper`."""
        return Needs(samples=True, reference=True, frozen_policy=self.negative_reference == "taper")

    def advantages(self, batch: GroupBatch) -> Tensor:
        """Return Â_i and Â_y as `advantages_over` says; 0 for a rejected answer: [P, M]."""
        samples_PG = batch.samples(batch.rewards_PM)
        reference_P1 = batch.reference(batch.rewards_PM)[:, None]
        joint_PN = torch.cat([samples_PG, reference_P1], 1)
        if self.advantages_over == "joint":
            A_PN = standardise(joint_PN)
        elif self.advantages_over == "samples":
            A_PN = standardise_against(joint_PN, samples_PG)
        else:
            A_PN = torch.cat([standardise(samples_PG), standardise(joint_PN)[:, -1:]], 1)
        A_PM = pad_members(A_PN[:, :-1], batch)
        A_PM[:, batch.reference_index] = A_PN[:, -1]
        return A_PM

    def contributing(self, batch: GroupBatch, progress: Progress) -> Tensor:
        """Return samples with an advantage, and references whose weight c_y can differ from 0: bool [P, M].

        A reference whose weight is clamped still contributes, because `imitation` and `regulariser` report it.
        """
        assert batch.advantages_PM is not None
        A_PG, A_P = batch.samples(batch.advantages_PM), batch.reference(batch.advantages_PM)
        contributing_PM = torch.zeros_like(batch.scored_PM)
        if self.exploration + self.lam > 0:
            contributing_PM[:, : batch.num_samples] = A_PG != 0
        contributing_PM[:, batch.reference_index] = (self.beta * A_P != 0) | (self.lam * A_PG.sum(1) != 0)
        return contributing_PM & super().contributing(batch, progress)

    def denominator(self, batch: GroupBatch) -> Tensor:
        """Return [groups, members, tokens], counting groups with at least two scored members."""
        counted_PM = batch.scored_PM.clone()
        counted_PM[:, batch.num_samples + 1 :] = False
        counted_P = counted_PM.sum(1) >= 2
        counted_PM = counted_PM & counted_P[:, None]
        tokens_PM = batch.lengths_PM * counted_PM
        return torch.stack([counted_P.sum(), counted_PM.sum(), tokens_PM.sum()]).double()

    def loss(self, batch: GroupBatch, output: PolicyOutput, denominator: Tensor, progress: Progress) -> LossOutput:
        """Return the equation above, negated. Terms `exploration`, `imitation`, `regulariser`, and `correction`.

        `correction` is the effect of `negative_reference`: the first three terms are the paper's for every choice.
        """
        assert batch.advantages_PM is not None
        groups, members, tokens = denominator.to(output.logprobs_PMT.dtype).clamp(min=1)
        length = {"sequence_mean": None, "token_mean": tokens / members, "constant": self.length}[self.aggregation]
        logprobs_PMT = zero_masked(output.logprobs_PMT, batch.mask_PMT)
        J_PM = mean_logprob(logprobs_PMT, batch.mask_PMT, length)
        J_PG, J_P = batch.samples(J_PM), batch.reference(J_PM)
        sampled_PGT = batch.samples(batch.mask_PMT & self.contributing(batch, progress)[..., None])
        weight_PGT, weight_metrics = sampling_weight(batch, logprobs_PMT, sampled_PGT, self.sampling_cap)
        if weight_PGT is not None:
            J_PG = mean_logprob(weight_PGT * batch.samples(logprobs_PMT), batch.samples(batch.mask_PMT), length)
        A_PM = batch.advantages_PM.to(J_PM.dtype)
        A_PG, A_P = batch.samples(A_PM), batch.reference(A_PM)
        G_P = batch.samples(batch.scored_PM).sum(1).clamp(min=1)

        explored_P = (A_PG * J_PG).sum(1) / G_P
        pull_P = A_PG.sum(1) / G_P  # mean_i Â_i: 0 over the samples, −Â_y/G in the joint group
        c_P = self.beta * A_P - self.lam * pull_P
        terms_P = {
            "exploration": self.exploration * explored_P,
            "imitation": self.beta * A_P * J_P,
            "regulariser": self.lam * (explored_P - pull_P * J_P),
        }
        if self.negative_reference != "keep":
            kept_P = self._kept_likelihood(batch, logprobs_PMT, length)
            terms_P["correction"] = c_P.clamp(max=0) * (kept_P - J_P)

        total_P = A_PG.abs().sum(1) * (self.exploration + self.lam) / G_P + c_P.abs()
        active = (total_P > 0).sum()
        metrics = {
            "weight/reference": Mean(c_P.sum(), active),
            "weight/reference_share": Mean((c_P.abs() / total_P.clamp(min=1e-12)).sum(), active),
            # Σ_i Â_i = 0 holds up to rounding: a weight of −1e-9 is no push against the reference.
            "weight/reference_negative": Mean((c_P < -TOLERANCE).sum(), active),
        }
        return LossOutput({name: -term_P.sum() / groups for name, term_P in terms_P.items()}, metrics | weight_metrics)

    def _kept_likelihood(self, batch: GroupBatch, logprobs_PMT: Tensor, length: Tensor | float | None) -> Tensor:
        """Return the J(y) that a negative weight applies to: [P], differentiable."""
        logprobs_PT, mask_PT = batch.reference(logprobs_PMT), batch.reference(batch.mask_PMT)
        if self.negative_reference == "clamp":
            return torch.zeros_like(logprobs_PT[:, 0])
        if self.negative_reference == "gate":
            return mean_logprob(logprobs_PT.detach().exp() * logprobs_PT, mask_PT, length)
        assert batch.frozen_logprobs_PMT is not None
        drift_PT = zero_masked(logprobs_PT.detach() - batch.reference(batch.frozen_logprobs_PMT), mask_PT)
        return drift_PT.sum(-1).clamp(max=0).exp() * mean_logprob(logprobs_PT, mask_PT, length)
