"""Samples of an engine that is not exact: truncated importance weights. And ratios at the extremes: always finite."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tests.objectives.policy_outputs import loss_of

from grao.groups import GroupBatch
from grao.objectives import GRAO, GRPO, PPO, Objective, k3
from grao.objectives.ratio import LOG_RATIO_BOUND, likelihood_ratio

OBJECTIVES = [GRPO(), GRPO.dapo(kl=0.1), GRAO(), GRAO.recommended(aggregation="token_mean"), PPO()]
every_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)


def inexact(plain: SimpleNamespace, seed: int, *, behaviour: bool = True) -> SimpleNamespace:
    """A batch whose engine reported log-probs around the policy's, with values for PPO."""
    scored = plain.random_scored(seed, behaviour=True, frozen=True)
    generator = torch.Generator().manual_seed(seed)
    noise, values = (torch.randn(scored.logprobs_PMT.shape, generator=generator).double() for _ in range(2))
    batch = scored.batch.with_(
        sampling_logprobs_PMT=(scored.batch.behaviour_logprobs_PMT + noise) * scored.batch.mask_PMT,
        values_PMT=values * scored.batch.mask_PMT,
        sampling_is_exact=False,
    )
    if not behaviour:
        batch = batch.with_(behaviour_logprobs_PMT=None)
    return SimpleNamespace(batch=batch, logprobs=scored.logprobs_PMT.detach(), values=values)


def gradient_of(objective: Objective, batch: GroupBatch, given: SimpleNamespace) -> tuple[float, torch.Tensor]:
    logprobs = given.logprobs.clone().requires_grad_()
    batch = objective.with_advantages(batch)
    out = loss_of(objective, batch, logprobs, objective.denominator(batch), values_PMT=given.values)
    return out.loss.item(), torch.autograd.grad(out.loss, logprobs)[0]


@every_objective
def test_an_exact_engine_changes_no_bit(plain: SimpleNamespace, objective: Objective) -> None:
    """Oracle: the loss without the engine's log-probs, bit for bit; so too without a cap, and where π_engine is π."""
    given = inexact(plain, 0)
    without = given.batch.with_(sampling_logprobs_PMT=None)
    value, gradient = gradient_of(objective, without, given)
    exact = gradient_of(objective, given.batch.with_(sampling_is_exact=True), given)
    uncapped = gradient_of(replace(objective, sampling_cap=None), given.batch, given)
    behaviour_PMT = given.batch.behaviour_logprobs_PMT
    of_the_policy = given.batch.with_(
        sampling_logprobs_PMT=given.logprobs if isinstance(objective, GRAO) else behaviour_PMT
    )
    if isinstance(objective, GRAO):
        of_the_policy = of_the_policy.with_(behaviour_logprobs_PMT=None)
    for found in (exact, uncapped, gradient_of(objective, of_the_policy, given)):
        assert found[0] == value
        assert torch.equal(found[1], gradient)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("behaviour", [True, False])
@every_objective
def test_every_token_is_weighed_by_the_definition(
    plain: SimpleNamespace, objective: Objective, behaviour: bool, seed: int
) -> None:
    """Oracle: a double loop: the gradient of each sample token is that without correction times min(π_b/π_e, 2).

    The KL of GRPO and the reference of GRAO are left alone; PPO's KL in the reward is constant.
    """
    if isinstance(objective, PPO) and not behaviour:
        objective = replace(objective, kl=0.0)
    given = inexact(plain, seed, behaviour=behaviour)
    batch = given.batch
    _, gradient = gradient_of(objective, batch, given)
    _, plain_gradient = gradient_of(replace(objective, sampling_cap=None), batch, given)
    if isinstance(objective, GRPO) and objective.kl:
        _, without_kl = gradient_of(replace(objective, sampling_cap=None, kl=0.0), batch, given)
    else:
        without_kl = plain_gradient
    source_PMT = given.logprobs if batch.behaviour_logprobs_PMT is None else batch.behaviour_logprobs_PMT
    expected = plain_gradient.clone()
    cut = 0
    for p in range(len(batch)):
        for i in range(batch.num_samples):
            for t in batch.mask_PMT[p, i].nonzero().flatten().tolist():
                ratio = math.exp(source_PMT[p, i, t].item() - batch.sampling_logprobs_PMT[p, i, t].item())
                cut += ratio > 2
                expected[p, i, t] += (min(ratio, 2.0) - 1) * without_kl[p, i, t]
    assert cut > 0
    assert (gradient - expected).abs().max().item() <= 1e-12


def test_the_metrics_by_hand(plain: SimpleNamespace) -> None:
    """Oracle: counted over tokens of samples with an advantage: ratios ½ count as ½, ratios 4 are cut to 2."""
    given = inexact(plain, 1, behaviour=False)
    objective = GRPO()
    batch = objective.with_advantages(given.batch)
    engine = given.logprobs + math.log(2)
    engine[..., 0] -= math.log(8)  # the first token: ratio 4, the others: ratio ½
    batch = batch.with_(sampling_logprobs_PMT=engine)
    metrics = loss_of(objective, batch, given.logprobs, objective.denominator(batch)).metrics
    counted_PG = batch.samples(batch.advantages_PM) != 0
    tokens = (batch.samples(batch.lengths_PM) * counted_PG).sum().item()
    samples = (counted_PG & (batch.samples(batch.lengths_PM) > 0)).sum().item()
    assert metrics["sampling/cap_ratio"].total.item() == samples
    assert metrics["sampling/cap_ratio"].count.item() == tokens
    assert metrics["sampling/weight"].total.item() == pytest.approx(2 * samples + 0.5 * (tokens - samples))


def test_a_cap_below_one_is_refused() -> None:
    """Oracle: the sentence; a cap below 1 would weaken exact samples."""
    for cls in (GRPO, PPO, GRAO):
        with pytest.raises(ValueError, match=r"sampling_cap is 0\.5; give a number of 1 or more, or null"):
            cls(sampling_cap=0.5)


# --- extremes --------------------------------------------------------------------------------------------------------


@every_objective
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("nats", [-1e4, -500.0, 500.0, 1e4])
def test_no_ratio_is_infinite(plain: SimpleNamespace, objective: Objective, nats: float, dtype: torch.dtype) -> None:
    """Oracle: finiteness of loss and gradient with behaviour, frozen and engine log-probs `nats` away."""
    given = inexact(plain, 2)
    names = ("behaviour_logprobs_PMT", "frozen_logprobs_PMT", "sampling_logprobs_PMT")
    far = {name: ((given.logprobs + nats) * given.batch.mask_PMT).to(dtype) for name in names}
    moved = SimpleNamespace(logprobs=given.logprobs.to(dtype), values=given.values.to(dtype))
    value, gradient = gradient_of(objective, given.batch.with_(**far), moved)
    assert math.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_inside_the_bound_nothing_changes() -> None:
    """Oracle: exp itself and k3's definition, bit for bit with their gradients, at ± 20 nats and between."""
    x = torch.linspace(-LOG_RATIO_BOUND, LOG_RATIO_BOUND, 4001, dtype=torch.float64, requires_grad=True)
    mask, zero = torch.ones_like(x, dtype=torch.bool), torch.zeros_like(x)
    for ours, theirs in (
        (likelihood_ratio(x, zero, mask), x.exp()),
        (k3(-x, zero), x.exp() - x - 1),
    ):
        assert torch.equal(ours, theirs)
        assert torch.equal(*(torch.autograd.grad(y.sum(), x)[0] for y in (ours, theirs)))


def test_beyond_the_bound_k3_still_pulls() -> None:
    """Oracle: the tangent at 20 nats: value e²⁰(1 + 10) − 31 and slope −(e²⁰ − 1) in log π at 30 nats."""
    logprobs = torch.tensor([-30.0], dtype=torch.float64, requires_grad=True)
    value = k3(logprobs, torch.zeros(1, dtype=torch.float64))
    assert value.item() == pytest.approx(math.exp(20) * 11 - 31, rel=1e-14)
    assert torch.autograd.grad(value.sum(), logprobs)[0].item() == pytest.approx(1 - math.exp(20), rel=1e-14)
