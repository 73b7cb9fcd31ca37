"""DPO: the reference against the rejected answer, both measured from the frozen policy (arXiv 2305.18290)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from grao.groups import GroupBatch, PolicyOutput
from grao.objectives.likelihood import zero_masked
from grao.objectives.objective import LossOutput, Mean, Needs, Objective, Progress

Form = Literal["sigmoid", "ipo"]


@dataclass(frozen=True)
class DPO(Objective):
    """Direct Preference Optimization (arXiv 2305.18290, Eq. 7).

        L = −(1/P) Σ_q log σ(β Δ_q)

        Δ_q  = ρ(y) − ρ(y⁻)        y the reference, y⁻ the rejected answer
        ρ(x) = Σ_t log π_θ(x_t | q, x_<t) − log π_frozen(x_t | q, x_<t)

    Every token of a pair has the same weight in the gradient: β σ(−β Δ_q)/P for y, the negative for y⁻. A pair
    without tokens on either side adds nothing and does not count in P.
    """

    beta: float = 0.1
    """DPO's own β: how strongly the frozen policy anchors, so that a *smaller* one lets the policy go further. It is
    not GRAO's β, the weight of imitation. Under `ipo` it is τ, per token, and wants another size."""
    form: Form = "sigmoid"
    """`sigmoid`: −log σ(β Δ), as above.
    `ipo`: (Δ̄ − 1/(2β))² with ρ̄(x) = ρ(x)/|x| in Δ̄ (arXiv 2310.12036, Eq. 17). The paper prints sums; its authors
    say that its results are per-token means, which is what TRL computes too.
    """
    label_smoothing: float = 0.0
    """ε, the share of pairs assumed to be labelled the wrong way round: −(1−ε) log σ(β Δ) − ε log σ(−β Δ)
    (conservative DPO, E. Mitchell 2023). It pulls Δ to logit(1−ε)/β instead of infinity. Only for `sigmoid`."""
    nll: float = 0.0
    """Weight of −(1/Σ|y|) Σ_q Σ_t log π_θ(y_t), the mean over the step's reference tokens: it keeps the reference
    likely, which a difference alone does not. α of iterative RPO (arXiv 2404.19733, where it is 1), except that the
    paper takes the mean of each sequence first."""

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise ValueError(f"form is {self.form!r}; it must be one of {', '.join(get_args(Form))}")
        if not 0 < self.beta < math.inf:  # also refuses NaN
            raise ValueError(f"beta is {self.beta}; give a finite number above 0 (at 0 the loss is constant)")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(
                f"label_smoothing is {self.label_smoothing}; it is the share of pairs labelled the wrong way round, "
                "so 0 ≤ label_smoothing < 0.5 (at one half the labels say nothing)"
            )
        if self.form == "ipo" and self.label_smoothing > 0:
            raise ValueError(
                f"label_smoothing is {self.label_smoothing}, but form='ipo' has none: its target 1/(2·beta) already "
                "bounds the margin; set label_smoothing to 0, or form to sigmoid"
            )
        if not 0 <= self.nll < math.inf:
            raise ValueError(f"nll is {self.nll}; a weight must be a finite number, 0 or more")

    @property
    def needs(self) -> Needs:
        """Pairs, and the frozen policy that both sides are measured from."""
        return Needs(reference=True, rejected=True, frozen_policy=True)

    def advantages(self, batch: GroupBatch) -> Tensor:
        """Return +1 for the reference and −1 for the rejected answer of a pair: [P, M].

        These signs are for the records. The loss does not read them: its weight β σ(−β Δ) depends on the policy.
        """
        signs_PM = torch.zeros_like(batch.rewards_PM)
        signs_PM[:, batch.reference_index] = _pairs(batch).to(signs_PM.dtype)
        signs_PM[:, batch.rejected_index] = -_pairs(batch).to(signs_PM.dtype)
        return signs_PM

    def denominator(self, batch: GroupBatch) -> Tensor:
        """[pairs, reference tokens of pairs]."""
        pair_P = _pairs(batch)
        return torch.stack([pair_P.sum(), (batch.reference(batch.lengths_PM) * pair_P).sum()]).double()

    def loss(self, batch: GroupBatch, output: PolicyOutput, denominator: Tensor, progress: Progress) -> LossOutput:
        """Return the equation above; terms `preference` and, with `nll` > 0, `nll`.

        The metrics are TRL's, averaged over pairs: `rewards/chosen` and `/rejected` are β ρ (of sums, in either
        form), `rewards/margins` their difference, `rewards/accuracies` the share of pairs whose margin is above 0
        (a tie, as at the start of training, is not), `logps/…` are Σ_t log π_θ in nats.
        """
        assert batch.frozen_logprobs_PMT is not None
        pairs, tokens = denominator.to(output.logprobs_PMT.dtype).clamp(min=1)
        pair_P = _pairs(batch)
        mask_PMT = batch.mask_PMT & pair_P[:, None, None]
        logprobs_PMT = zero_masked(output.logprobs_PMT, mask_PMT)
        # Token by token before the sum: two long sums would round off what little they differ by.
        ratio_PM = (logprobs_PMT - zero_masked(batch.frozen_logprobs_PMT, mask_PMT)).sum(-1)
        terms = {"preference": zero_masked(self._preference(batch, ratio_PM), pair_P).sum() / pairs}
        if self.nll > 0:
            terms["nll"] = -self.nll * batch.reference(logprobs_PMT).sum() / tokens
        return LossOutput(terms, self._metrics(batch, logprobs_PMT.detach().sum(-1), ratio_PM.detach()))

    def _preference(self, batch: GroupBatch, ratio_PM: Tensor) -> Tensor:
        """Return the loss of every pair: [P]."""
        if self.form == "ipo":
            ratio_PM = ratio_PM / batch.lengths_PM.clamp(min=1)
        margin_P = batch.reference(ratio_PM) - batch.rejected(ratio_PM)
        if self.form == "ipo":
            return (margin_P - 1 / (2 * self.beta)).square()
        right_P, wrong_P = logsigmoid(self.beta * margin_P), logsigmoid(-self.beta * margin_P)
        return -(1 - self.label_smoothing) * right_P - self.label_smoothing * wrong_P

    def _metrics(self, batch: GroupBatch, logps_PM: Tensor, ratio_PM: Tensor) -> dict[str, Mean]:
        """Return sums over pairs; a masked pair has log-ratios of 0 and does not count."""
        chosen_P, rejected_P = self.beta * batch.reference(ratio_PM), self.beta * batch.rejected(ratio_PM)
        values = {
            "rewards/chosen": chosen_P,
            "rewards/rejected": rejected_P,
            "rewards/margins": chosen_P - rejected_P,
            "rewards/accuracies": chosen_P > rejected_P,
            "logps/chosen": batch.reference(logps_PM),
            "logps/rejected": batch.rejected(logps_PM),
        }
        count = _pairs(batch).sum()
        return {name: Mean(value_P.sum(), count) for name, value_P in values.items()}


def _pairs(batch: GroupBatch) -> Tensor:
    """bool [P]: groups whose reference and rejected answer both have tokens that count."""
    has_tokens_PM = batch.mask_PMT.any(-1)
    return batch.reference(has_tokens_PM) & batch.rejected(has_tokens_PM)
