"""Two published objectives, written outside the package: what a user's own file looks like."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from grao import GRPO, SFT, LossOutput, Needs, Objective, PolicyOutput, Schedule, Sum
from grao.objectives import centre
from grao.objectives.ratio import likelihood_ratio


@dataclass(frozen=True)
class Luffy(Objective):
    """LUFFY's shaped reference (arXiv 2504.14945): −(1/Z) [Σ_t A_y p_t/(p_t + γ) + Σ_i,t A_i r_it], A = R − mean R."""

    needs = Needs(samples=True, reference=True, behaviour="reused")
    gamma: float = 0.1
    length: int = 8192

    def advantages(self, batch):
        return centre(batch.rewards_PM)

    def loss(self, batch, output, denominator, progress):
        p_PMT, y = output.logprobs_PMT.exp(), batch.reference_index
        ratio_PMT = likelihood_ratio(output.logprobs_PMT, batch.behaviour_logprobs_PMT, batch.mask_PMT)
        shaped_PT = p_PMT[:, y] / (p_PMT[:, y] + self.gamma)
        gain_PMT = torch.cat([ratio_PMT[:, :y], shaped_PT[:, None]], 1) * batch.advantages_PM[..., None]
        return LossOutput({"policy": -(gain_PMT * batch.mask_PMT).sum() / self.length})


@dataclass(frozen=True)
class TokenWeightedSFT(SFT):
    """CHORD-φ's demonstrations (arXiv 2508.11408): −(1/Σ|y|) Σ sg[p(1 − p)] log p."""

    def loss(self, batch, output, denominator, progress):
        p_PMT = output.logprobs_PMT.detach().exp()
        weighted = PolicyOutput(p_PMT * (1 - p_PMT) * output.logprobs_PMT, output.entropy_PMT)
        return super().loss(batch, weighted, denominator, progress)


def chord(peak: float = 0.9, valley: float = 0.05, decay: int = 200) -> Sum:
    """CHORD: (1 − μ) L_GRPO + μ L_SFT-φ, with μ falling from `peak` to `valley` as a cosine over `decay` steps."""
    grpo = GRPO(ddof=1, aggregation="token_mean")
    mu = Schedule("cosine", peak, valley, over=decay)
    return Sum(((grpo, Schedule("cosine", 1 - peak, 1 - valley, over=decay)), (TokenWeightedSFT(), mu)))
