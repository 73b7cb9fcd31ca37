"""GRPO and its family against the clipped surrogate written as loops, and the identities at ratio 1."""

from __future__ import annotations

import math
import random
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from tests.objectives.policy_outputs import loss_of

from grao.groups import collate
from grao.objectives import GRPO
from grao.objectives.ratio import k3

BASELINES = ("standardised", "centred", "leave_one_out")
AGGREGATIONS = ("sequence_mean", "token_mean", "constant")


@pytest.mark.parametrize(("baseline", "aggregation", "kl"), [*product(BASELINES, AGGREGATIONS, (0.0, 0.04))])
@pytest.mark.parametrize("ddof", [0, 1])
def test_matches_the_clipped_surrogate(
    plain: SimpleNamespace, baseline: str, aggregation: str, kl: float, ddof: int
) -> None:
    """Oracle: min(rA, clip(r)A) − kl·k3 in float64 loops, value and gradient, ratios on both sides of both clips."""
    objective = GRPO(
        clip_low=0.1,
        clip_high=0.25,
        kl=kl,
        baseline=baseline,  # type: ignore[arg-type]
        ddof=ddof,
        aggregation=aggregation,  # type: ignore[arg-type]
        length=7 if aggregation == "constant" else None,
    )
    for seed in range(4):
        scored = plain.random_scored(
            seed, behaviour=seed != 2, frozen=True, rejected=seed == 1, truncated=seed > 1, mask_truncated=seed == 3
        )
        assert plain.largest_difference(objective, plain.grpo_oracle(objective), scored) <= 1e-12


@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_gradcheck(plain: SimpleNamespace, kl: float) -> None:
    """Oracle: finite differences, with ratios away from the kinks at 0.8 and 1.2."""
    objective = GRPO(kl=kl)
    scored = plain.random_scored(3, P=2, G=3, unscored=0.0, behaviour=True, frozen=True, drift=0.5)
    batch = scored.batch.with_(advantages_PM=objective.advantages(scored.batch))
    ratio = (scored.logprobs_PMT - batch.behaviour_logprobs_PMT).exp()
    assert min((ratio - 0.8).abs().min().item(), (ratio - 1.2).abs().min().item()) > 1e-4
    denominator = objective.denominator(batch)
    assert torch.autograd.gradcheck(lambda x: loss_of(objective, batch, x, denominator).loss, scored.logprobs_PMT)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.0, 1.0, 1.0, 1.0),
        (1.5, 1.0, 1.2, 0.0),  # a good token is pushed up to 1.2 and no further
        (0.5, 1.0, 0.5, 0.5),  # one that fell is pulled back
        (0.5, -1.0, -0.8, 0.0),  # a bad token is pushed down to 0.8 and no further
        (1.5, -1.0, -1.5, 1.5),  # one that rose is pushed down, unclipped
    ],
)
def test_the_five_cases_of_clipping(
    plain: SimpleNamespace, ratio: float, advantage: float, value: float, slope: float
) -> None:
    """Oracle: min(rA, clip(r, 0.8, 1.2)A) by hand; d/dlog π = rA where unclipped, 0 where clipped."""
    group = plain.random_group(random.Random(0), 0, [advantage, -advantage], longest=1)
    batch = collate([group], pad_token_id=0)
    logprobs = torch.full((1, 2, 1), -1.0, dtype=torch.float64)
    behaviour = logprobs - torch.tensor([math.log(ratio), 0.0], dtype=torch.float64)[None, :, None]
    scored = plain.Scored(batch.with_(behaviour_logprobs_PMT=behaviour), logprobs)
    loss, gradient = plain.our_loss(GRPO(), scored)
    # The other sample has ratio 1: it adds −advantage to the sum and −advantage to its own slope.
    assert -loss * 2 == pytest.approx(value - advantage, abs=1e-12)
    assert -gradient[0, 0, 0].item() * 2 == pytest.approx(slope * advantage, abs=1e-12)


@pytest.mark.parametrize("baseline", BASELINES)
def test_at_ratio_one_the_gradient_is_reinforce(plain: SimpleNamespace, baseline: str) -> None:
    """Oracle: ∇ = −(1/N) Σ_i (A_i/|o_i|) Σ_t ∇ log π(o_it), the score-function estimator, from loop advantages."""
    objective = GRPO(baseline=baseline)  # type: ignore[arg-type]
    scored = plain.random_scored(7, unscored=0.0)
    batch = scored.batch
    expected = torch.zeros_like(scored.logprobs_PMT)
    for p, rewards in enumerate(batch.rewards_PM[:, :4].tolist()):
        A = {
            "standardised": plain.standardise_loop(rewards, rewards),
            "centred": plain.centre_loop(rewards),
            "leave_one_out": plain.leave_one_out_loop(rewards),
        }[baseline]
        for i, a in enumerate(A):
            length = int(batch.mask_PMT[p, i].sum())
            expected[p, i, :length] = -a / length / (len(batch) * 4)
    for change in ({}, {"behaviour_logprobs_PMT": scored.logprobs_PMT.detach()}):
        same = plain.Scored(batch.with_(**change), scored.logprobs_PMT)
        assert (plain.our_loss(objective, same)[1] - expected).abs().max().item() <= 1e-15


def test_rloo_is_unbiased() -> None:
    """Oracle: E[(1/G) Σ A_i ∇log p(o_i)] = ∇E[R], by enumerating all 4³ draws of a softmax bandit (methods.md 1d)."""
    logits = torch.tensor([0.3, -0.2, 0.9, 0.0], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([1.0, 0.2, -0.5, 0.7], dtype=torch.float64)
    (truth,) = torch.autograd.grad((logits.softmax(0) * reward).sum(), logits)
    p = logits.detach().softmax(0)
    score = torch.eye(4, dtype=torch.float64) - p  # row a: ∇ log p(a)
    for baseline, factor in (("leave_one_out", 1.0), ("centred", 2 / 3)):
        draws = torch.tensor([*product(range(4), repeat=3)])
        A = GRPO._baselines[baseline](reward[draws])
        estimate = (p[draws].prod(1)[:, None] * (A[..., None] * score[draws]).mean(1)).sum(0)
        assert torch.allclose(estimate, truth * factor, atol=1e-15)


def test_k3_by_hand() -> None:
    """Oracle: π = 1/2, π_f = 1/4: q − log q − 1 = ½ + log 2 − 1; over π's own samples its mean is KL(π ‖ π_f)."""
    half, quarter = torch.tensor([0.5, 0.25], dtype=torch.float64).log()
    assert k3(half, quarter).item() == pytest.approx(0.5 + math.log(2) - 1, abs=1e-15)
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    f = torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64)
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Categorical(p), torch.distributions.Categorical(f)
    )
    assert (p * k3(p.log(), f.log())).sum().item() == pytest.approx(divergence.item(), abs=1e-15)


def test_clip_metrics_count_tokens(plain: SimpleNamespace) -> None:
    """Oracle: counted by hand: of 4 tokens one good token rose over 1.2 and one bad token fell under 0.8."""
    group = plain.random_group(random.Random(0), 0, [1.0, 1.0, -1.0, -1.0], longest=1)
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5], dtype=torch.float64)
    logprobs = torch.full((1, 4, 1), -1.0, dtype=torch.float64)
    batch = collate([group], pad_token_id=0).with_(behaviour_logprobs_PMT=logprobs - ratio.log()[None, :, None])
    batch = batch.with_(advantages_PM=GRPO().advantages(batch))
    metrics = loss_of(GRPO(), batch, logprobs, GRPO().denominator(batch)).metrics
    shown = {name: (m.total.item(), m.count.item()) for name, m in metrics.items()}
    assert shown == {
        "clip_ratio/low_mean": (1, 4),
        "clip_ratio/high_mean": (1, 4),
        "clip_ratio/region_mean": (2, 4),
    }


def test_terms_and_needs(plain: SimpleNamespace) -> None:
    """Oracle: by definition a KL weight of 0 needs no frozen policy and adds no term."""
    scored = plain.random_scored(0, frozen=True)
    batch = scored.batch.with_(advantages_PM=GRPO().advantages(scored.batch))
    for kl, names in ((0.0, {"policy"}), (0.1, {"policy", "kl"})):
        objective = GRPO(kl=kl)
        assert objective.needs.frozen_policy == (kl > 0)
        assert objective.needs.samples
        assert not objective.needs.reference
        assert set(loss_of(objective, batch, scored.logprobs_PMT, objective.denominator(batch)).terms) == names


def test_presets() -> None:
    """Oracle: the papers' settings (methods.md 2.2); a change on top is kept."""
    assert GRPO() == GRPO(0.2, 0.2, 0.0, "standardised", 0, "sequence_mean", None)
    assert GRPO.dr_grpo(256) == GRPO(baseline="centred", aggregation="constant", length=256)
    assert GRPO.dapo() == GRPO(clip_high=0.28, aggregation="token_mean")
    assert GRPO.rloo(kl=0.05) == GRPO(baseline="leave_one_out", kl=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"baseline": "none"}, "baseline is 'none'; it must be one of standardised, centred, leave_one_out"),
        ({"ddof": 2}, "ddof is 2; it must be 0 (population) or 1 (sample)"),
        (
            {"clip_low": 1.5},
            "clip_low is 1.5 and clip_high 0.2; they are distances from a ratio of 1, so 0 ≤ clip_low ≤ 1 and "
            "clip_high ≥ 0",
        ),
        (
            {"clip_high": -0.1},
            "clip_low is 0.2 and clip_high -0.1; they are distances from a ratio of 1, so 0 ≤ clip_low ≤ 1 and "
            "clip_high ≥ 0",
        ),
        (
            {"kl": -0.1},
            "kl is -0.1; give a finite number, 0 or more (a negative weight would reward drifting away)",
        ),
        (
            {"kl": float("nan")},
            "kl is nan; give a finite number, 0 or more (a negative weight would reward drifting away)",
        ),
        (
            {"aggregation": "mean"},
            "aggregation is 'mean'; it must be one of sequence_mean, token_mean, constant",
        ),
        (
            {"aggregation": "constant", "length": 0},
            "aggregation='constant' divides by a fixed length, but length is 0; give a positive number of tokens, "
            "usually the rollout's max_new_tokens",
        ),
    ],
)
def test_bad_settings_say_what_to_do(settings: dict, message: str) -> None:
    """Oracle: the whole message, read by a person."""
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole message is compared below
        GRPO(**settings)
    assert str(raised.value) == message
