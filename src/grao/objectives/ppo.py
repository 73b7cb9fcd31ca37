"""PPO: a clipped surrogate on per-token advantages over a critic, and the critic's own loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from grao.groups import GroupBatch, PolicyOutput
from grao.objectives.advantages import TOLERANCE, standardise
from grao.objectives.gae import gae
from grao.objectives.likelihood import zero_masked
from grao.objectives.objective import LossOutput, Mean, Needs, Objective, Progress
from grao.objectives.ratio import check_clip, check_sampling_cap, clipped_gain, likelihood_ratio, sampling_weight


@dataclass(frozen=True)
class PPO(Objective):
    """Proximal Policy Optimization of language models (arXiv 1707.06347; from human feedback, arXiv 2203.02155).

        L = −(1/N) Σ_it min(r_it Â_it, clip(r_it, 1−ε_low, 1+ε_high) Â_it)                            policy
            + c (1/N) Σ_it ½ max((V_φ,it − ret_it)², (clip(V_φ,it, V_it ± ε_v) − ret_it)²)           value

        r_it   = π_θ(o_it) / π_behaviour(o_it)
        R_it   = −kl (log π_behaviour(o_it) − log π_frozen(o_it)) + 1[t last] R_i                     token reward
        A_it   = GAE(R_it, V_it; γ, λ)          Â_it = (A_it − mean A) / std A          ret_it = A_it + V_it

    over the N tokens of the step's scored samples. V is the critic at rollout, constant; V_φ the one that is trained.
    The samples of a group are not compared with each other, so one scored sample of a group is enough.

    The defaults are those of TRL's PPO. Where we depart from it:

    - R_i arrives on the last token, after which V = 0. TRL puts it one place later, and fits V there too.
    - Â has the *population's* σ, and is 0 where σ is under a tolerance; TRL takes n − 1 and adds 1e-8 to the variance.
    - means are over the step's tokens, for any cut; TRL averages the means of micro-batches.
    - an unscored sample is left out of every sum and count.
    """

    kl: float = 0.05
    """Weight of the KL to the frozen policy, charged to each token's reward as k1 = log π_behaviour − log π_frozen."""
    gamma: float = 1.0
    """γ, discount of the reward per token."""
    gae_lambda: float = 0.95
    """λ of generalised advantage estimation: 0 trusts the critic, 1 the rewards."""
    clip_low: float = 0.2
    """ε_low: a token with Â < 0 has no gradient below the ratio 1 − ε_low."""
    clip_high: float = 0.2
    """ε_high: a token with Â > 0 has no gradient above the ratio 1 + ε_high."""
    value_clip: float | None = 0.2
    """ε_v: how far values may move from those at rollout, in units of reward; 0 or null = no limit."""
    value_weight: float = 0.1
    """c, TRL's. Adam cancels it for a separate critic; for a shared one it sets the share of the value loss."""
    whiten: bool = True
    """Give the advantages of the step's tokens mean 0 and standard deviation 1."""
    sampling_cap: float | None = 2.0
    """Largest importance weight of a sample token where the engine is not exact (see `sampling_weight`); null = no
    correction. The weight multiplies the policy term."""

    def __post_init__(self) -> None:
        check_clip(self.clip_low, self.clip_high)
        check_sampling_cap(self.sampling_cap)
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        for name in ("kl", "value_weight"):
            if not 0 <= getattr(self, name) < math.inf:  # also refuses NaN
                raise ValueError(f"{name} is {getattr(self, name)}; a weight must be a finite number, 0 or more")
        if self.value_clip is not None and not 0 <= self.value_clip < math.inf:
            raise ValueError(
                f"value_clip is {self.value_clip}; it is a distance in units of reward: give a positive number, "
                "or 0 for no limit"
            )

    @property
    def needs(self) -> Needs:
        """Samples and a critic; with a KL the frozen policy, and the behaviour's log-probs in any case."""
        charged = self.kl > 0
        return Needs(samples=True, frozen_policy=charged, behaviour="always" if charged else "reused", critic=True)

    def advantages(self, batch: GroupBatch) -> Tensor:
        """Return Â of every token of the scored samples: [P, M, T], 0 elsewhere.

        Whitened over the given batch, which is a process's share of the rollout. Reads the batch's values and,
        with `kl` > 0, its behaviour and frozen log-probs.
        """
        A_PGT, mask_PGT = self._estimate(batch), _counted_tokens(batch)
        if self.whiten:  # the tokens are one group, its unscored members are the masked places
            everyone_1N = A_PGT.masked_fill(~mask_PGT, torch.nan).reshape(1, -1)
            A_PGT = standardise(everyone_1N).view_as(A_PGT)
        given = batch.mask_PMT.shape[1] - batch.num_samples
        return torch.nn.functional.pad(A_PGT, (0, 0, 0, given))

    def denominator(self, batch: GroupBatch) -> Tensor:
        """[tokens, Σ ret, Σ (ret − V)] of the scored samples; the sums centre `value/explained_variance`."""
        A_PGT, mask_PGT = self._estimate(batch), _counted_tokens(batch)
        returns_PGT = A_PGT + _old_values(batch, mask_PGT)
        return torch.stack([mask_PGT.sum(), returns_PGT.sum(), A_PGT.sum()]).double()

    def loss(self, batch: GroupBatch, output: PolicyOutput, denominator: Tensor, progress: Progress) -> LossOutput:
        """Return the equation above; terms `policy` and `value`.

        `value/clip_ratio` is the share of tokens whose value is clipped, hence without gradient.
        `value/explained_variance` is 1 − Var(ret − V)/Var(ret) over the step's tokens: 1 for a perfect critic, 0 for
        a constant one. It is exact for any cut of the step, because its totals are sums of squares around the
        *step's* means. Over several steps, each counts in proportion to its Σ (ret − mean)².
        """
        assert batch.advantages_PM is not None
        assert output.values_PMT is not None
        mask_PGT = _counted_tokens(batch)
        tokens = denominator[0].to(output.logprobs_PMT.dtype).clamp(min=1)

        behaviour_PMT = batch.behaviour_logprobs_PMT
        behaviour_PGT = None if behaviour_PMT is None else batch.samples(behaviour_PMT)
        ratio_PGT = likelihood_ratio(batch.samples(output.logprobs_PMT), behaviour_PGT, mask_PGT)
        A_PGT = batch.samples(batch.advantages_PM).to(ratio_PGT.dtype)
        gain_PGT, metrics = clipped_gain(ratio_PGT, A_PGT, mask_PGT, self.clip_low, self.clip_high)
        weight_PGT, weight_metrics = sampling_weight(batch, output.logprobs_PMT, mask_PGT, self.sampling_cap)
        if weight_PGT is not None:
            gain_PGT = gain_PGT * weight_PGT

        value_error_PGT, value_clipped_PGT = self._value_error(batch, batch.samples(output.values_PMT), mask_PGT)
        metrics["value/clip_ratio"] = Mean(value_clipped_PGT.sum(), mask_PGT.sum())
        metrics["value/explained_variance"] = self._explained_variance(batch, mask_PGT, denominator)
        metrics["ratio/mean"] = Mean(zero_masked(ratio_PGT.detach(), mask_PGT).sum(), mask_PGT.sum())
        if self.kl > 0:
            metrics["kl/behaviour"] = Mean(_k1(batch, mask_PGT).sum(), mask_PGT.sum())
        terms = {
            "policy": -zero_masked(gain_PGT, mask_PGT).sum() / tokens,
            "value": self.value_weight * value_error_PGT.sum() / tokens,
        }
        return LossOutput(terms, metrics | weight_metrics)

    def _value_error(self, batch: GroupBatch, values_PGT: Tensor, mask_PGT: Tensor) -> tuple[Tensor, Tensor]:
        """½ max((V_φ − ret)², (clip(V_φ, V ± ε_v) − ret)²) of every token, 0 where masked, and which are clipped."""
        old_PGT = _old_values(batch, mask_PGT)
        returns_PGT = (self._estimate(batch) + old_PGT).to(values_PGT.dtype)
        old_PGT, values_PGT = old_PGT.to(values_PGT.dtype), zero_masked(values_PGT, mask_PGT)
        error_PGT = (values_PGT - returns_PGT).square()
        if not self.value_clip:
            return 0.5 * error_PGT, torch.zeros_like(mask_PGT)
        moved_PGT = values_PGT - old_PGT
        held_PGT = old_PGT + moved_PGT.clamp(-self.value_clip, self.value_clip)
        held_error_PGT = (held_PGT - returns_PGT).square()
        # Within ±ε_v the two errors differ by round-off only: that is no clipping.
        clipped_PGT = (moved_PGT.abs() > self.value_clip) & (held_error_PGT > error_PGT)
        return 0.5 * held_error_PGT.where(clipped_PGT, error_PGT), clipped_PGT

    def _explained_variance(self, batch: GroupBatch, mask_PGT: Tensor, denominator: Tensor) -> Mean:
        """1 − Σ (A − mean A)² / Σ (ret − mean ret)²; A = ret − V is what the critic left unexplained."""
        A_PGT = self._estimate(batch)
        tokens, total_return, total_unexplained = denominator.to(A_PGT.dtype)
        returns_PGT = A_PGT + _old_values(batch, mask_PGT)
        deviation_PGT = zero_masked(returns_PGT - total_return / tokens.clamp(min=1), mask_PGT)
        unexplained_PGT = zero_masked(A_PGT - total_unexplained / tokens.clamp(min=1), mask_PGT)
        spread = deviation_PGT.square().sum()
        spread = spread.where(
            spread > TOLERANCE**2 * mask_PGT.sum(), torch.zeros_like(spread)
        )  # round-off is not variance
        return Mean(spread - unexplained_PGT.square().sum(), spread)

    def _estimate(self, batch: GroupBatch) -> Tensor:
        """A of every token of the scored samples, before whitening: [P, G, T], constant, 0 elsewhere."""
        mask_PGT = _counted_tokens(batch)
        last_PGT = mask_PGT & ~torch.nn.functional.pad(mask_PGT[..., 1:], (0, 1))
        rewards_PG1 = batch.samples(batch.rewards_PM)[..., None]
        rewards_PGT = rewards_PG1.where(last_PGT, torch.zeros_like(rewards_PG1))
        if self.kl > 0:
            rewards_PGT = rewards_PGT - self.kl * _k1(batch, mask_PGT)
        values_PGT = _old_values(batch, mask_PGT)
        A_NT = gae(
            rewards_PGT.flatten(0, 1), values_PGT.flatten(0, 1), mask_PGT.flatten(0, 1), self.gamma, self.gae_lambda
        )
        return A_NT.view_as(mask_PGT)


def _counted_tokens(batch: GroupBatch) -> Tensor:
    """bool [P, G, T]: tokens of scored samples."""
    return batch.samples(batch.mask_PMT) & batch.samples(batch.scored_PM)[..., None]


def _old_values(batch: GroupBatch, mask_PGT: Tensor) -> Tensor:
    """V of the state before each counted token, at rollout: [P, G, T], in the rewards' precision."""
    assert batch.values_PMT is not None, "a critic's values at rollout must be set"
    return zero_masked(batch.samples(batch.values_PMT).to(batch.rewards_PM.dtype), mask_PGT)


def _k1(batch: GroupBatch, mask_PGT: Tensor) -> Tensor:
    """k1 = log π_behaviour − log π_frozen of each counted token, in nats: [P, G, T]; its mean is KL(π_b ‖ π_f)."""
    assert batch.behaviour_logprobs_PMT is not None, "the KL in the reward is that of the behaviour policy"
    assert batch.frozen_logprobs_PMT is not None, "the KL in the reward is to the frozen policy"
    k1_PMT = batch.behaviour_logprobs_PMT - batch.frozen_logprobs_PMT
    return zero_masked(batch.samples(k1_PMT).to(batch.rewards_PM.dtype), mask_PGT)
