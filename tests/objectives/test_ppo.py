"""PPO against its equations in loops, value clipping by hand, and what must not matter."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace
from itertools import pairwise, product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.objectives.policy_outputs import loss_of
from torch import Tensor

from grao.groups import GroupBatch, collate
from grao.objectives import GRPO, PPO, make_objective

CONSTANTS = ("behaviour_logprobs_PMT", "frozen_logprobs_PMT", "values_PMT")


class Step(SimpleNamespace):
    """A batch, and what policy and critic say about it now: float64 leaves, 0 where masked."""

    batch: GroupBatch
    logprobs_PMT: Tensor
    values_PMT: Tensor


def random_step(plain: SimpleNamespace, seed: int, *, drift: float = 0.3, **settings: Any) -> Step:
    """Random groups with log-probs and values; the critic at collection lies around the live one."""
    scored = plain.random_scored(seed, behaviour=True, frozen=True, drift=drift, **settings)
    generator = torch.Generator().manual_seed(seed + 1000)
    mask = scored.batch.mask_PMT
    old, moved = (torch.randn(mask.shape, generator=generator, dtype=torch.float64) for _ in range(2))
    batch = scored.batch.with_(values_PMT=old * mask)
    return Step(batch=batch, logprobs_PMT=scored.logprobs_PMT.detach(), values_PMT=(old + drift * moved) * mask)


def loss_and_gradients(
    objective: PPO, step: Step, advantages: Tensor | None = None, denominator: Tensor | None = None
) -> tuple[float, Tensor, Tensor]:
    """Value, and gradients with respect to log-probs and to values."""
    logprobs, values = (x.detach().clone().requires_grad_() for x in (step.logprobs_PMT, step.values_PMT))
    batch = step.batch.with_(
        advantages_PM=objective.advantages(step.batch) if advantages is None else advantages,
    )
    denominator = objective.denominator(batch) if denominator is None else denominator
    loss = loss_of(objective, batch, logprobs, denominator, values_PMT=values).loss
    gradients = torch.autograd.grad(loss, (logprobs, values))
    return loss.item(), *gradients


def metrics_of(objective: PPO, step: Step) -> dict[str, float]:
    """What the log shows: quotients, without metrics that nothing counted for."""
    batch = step.batch.with_(advantages_PM=objective.advantages(step.batch))
    output = loss_of(objective, batch, step.logprobs_PMT, objective.denominator(batch), values_PMT=step.values_PMT)
    return {name: m.total.item() / m.count.item() for name, m in output.metrics.items() if m.count > 0}


# --- the equations, in loops -----------------------------------------------------------------------------------------


def token_loop(objective: PPO, batch: GroupBatch) -> dict[tuple[int, int, int], tuple[float, float]]:
    """(p, i, t) → (A, ret) of every token of every scored sample, by the sum that defines GAE."""
    out = {}
    for p, i in product(range(len(batch)), range(batch.num_samples)):
        reward = batch.rewards_PM[p, i].item()
        places = [t for t in range(batch.mask_PMT.shape[2]) if batch.mask_PMT[p, i, t]]
        if math.isnan(reward) or not places:
            continue
        V = [batch.values_PMT[p, i, t].item() for t in places] + [0.0]
        rewards = []
        for t in places:
            k1 = 0.0
            if objective.kl:
                k1 = (batch.behaviour_logprobs_PMT[p, i, t] - batch.frozen_logprobs_PMT[p, i, t]).item()
            rewards.append(-objective.kl * k1 + (reward if t == places[-1] else 0.0))
        deltas = [r + objective.gamma * V[n + 1] - V[n] for n, r in enumerate(rewards)]
        for n, t in enumerate(places):
            decay = objective.gamma * objective.gae_lambda
            A = sum(decay**k * delta for k, delta in enumerate(deltas[n:]))
            out[p, i, t] = (A, A + V[n])
    return out


def ppo_oracle(objective: PPO, step: Step, logprobs: Tensor, values: Tensor) -> Tensor:
    """The docstring's two sums, token by token."""
    batch, tokens = step.batch, token_loop(objective, step.batch)
    if not tokens:
        return (logprobs.sum() + values.sum()) * 0
    A = {place: advantage for place, (advantage, _) in tokens.items()}
    if objective.whiten:
        mean, sigma = statistics.fmean(A.values()), statistics.pstdev(A.values())
        A = {place: (a - mean) / sigma if sigma > 1e-6 else 0.0 for place, a in A.items()}
    total = torch.zeros((), dtype=torch.float64)
    for place, (_, ret) in tokens.items():
        old = batch.behaviour_logprobs_PMT
        ratio = torch.exp(logprobs[place] - (logprobs[place].detach() if old is None else old[place]))
        if ratio > 1 + objective.clip_high and A[place] > 0:
            gain = torch.tensor((1 + objective.clip_high) * A[place], dtype=torch.float64)
        elif ratio < 1 - objective.clip_low and A[place] < 0:
            gain = torch.tensor((1 - objective.clip_low) * A[place], dtype=torch.float64)
        else:
            gain = ratio * A[place]
        V_old = batch.values_PMT[place].item()
        error = (values[place] - ret) ** 2
        if objective.value_clip and abs(values[place].item() - V_old) > objective.value_clip:
            edge = V_old + math.copysign(objective.value_clip, values[place].item() - V_old)
            if (edge - ret) ** 2 > error.item():
                error = torch.tensor((edge - ret) ** 2, dtype=torch.float64)
        total = total - gain + objective.value_weight * 0.5 * error
    return total / len(tokens)


VARIANTS = [
    PPO(),
    PPO(whiten=False),
    PPO(kl=0.0, gamma=0.9, gae_lambda=1.0),
    PPO(kl=0.3, gae_lambda=0.0, value_clip=None),
    PPO(clip_low=0.05, clip_high=0.4, value_clip=0.05, value_weight=0.7),
    PPO(gamma=0.5, value_clip=0.0, value_weight=0.0, whiten=False),
]
every_variant = pytest.mark.parametrize("objective", VARIANTS, ids=repr)


@every_variant
def test_matches_the_equations(plain: SimpleNamespace, objective: PPO) -> None:
    """Oracle: both sums in float64 loops: value, and gradients for the policy and for the critic."""
    for seed in range(4):
        settings = {"rejected": seed == 1, "truncated": seed > 1, "mask_truncated": seed == 3}
        step = random_step(plain, seed, **settings)
        if seed == 2 and not objective.kl:
            step.batch = step.batch.with_(behaviour_logprobs_PMT=None)
        logprobs, values = (x.clone().requires_grad_() for x in (step.logprobs_PMT, step.values_PMT))
        expected = ppo_oracle(objective, step, logprobs, values)
        for_logprobs, for_values = torch.autograd.grad(expected, (logprobs, values))
        loss, gradient, value_gradient = loss_and_gradients(objective, step)
        assert loss == pytest.approx(expected.item(), abs=1e-12)
        assert (gradient - for_logprobs).abs().max().item() <= 1e-12
        assert (value_gradient - for_values).abs().max().item() <= 1e-12
        assert gradient.abs().max() > 0
        assert (value_gradient.abs().max() > 0) == (objective.value_weight > 0)


def test_the_cases_are_met(plain: SimpleNamespace) -> None:
    """Oracle: the metrics: the batches above clip ratios on both sides and values, and unscored samples occur."""
    step = random_step(plain, 0)
    seen = metrics_of(VARIANTS[4], step)
    for name in ("clip_ratio/low_mean", "clip_ratio/high_mean", "value/clip_ratio"):
        assert 0 < seen[name] < 1
    assert step.batch.samples(step.batch.rewards_PM).isnan().any()


# --- by hand ---------------------------------------------------------------------------------------------------------


def one_sample(
    plain: SimpleNamespace, reward: float | None, old: list[float], behaviour: list[float] | None = None, **frozen: Any
) -> Step:
    """A group of one sample with as many tokens as `old` has values; log π_θ = −1 everywhere."""
    group = plain.random_group(random.Random(0), 0, [reward])
    sample = replace(group.samples[0], ids=tuple(range(2, 2 + len(old))))
    batch = collate([replace(group, samples=(sample,))], pad_token_id=plain.PAD)

    def tensor(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)[None, None]

    logprobs = tensor([-1.0] * len(old))
    batch = batch.with_(
        values_PMT=tensor(old),
        behaviour_logprobs_PMT=logprobs.clone() if behaviour is None else tensor(behaviour),
        frozen_logprobs_PMT=logprobs.clone() if not frozen else tensor(frozen["frozen"]),
    )
    return Step(batch=batch, logprobs_PMT=logprobs, values_PMT=tensor(old))


def test_advantages_by_hand(plain: SimpleNamespace) -> None:
    """Oracle: R = 1, V = (½, ¼), γ = 1, λ = ½, kl = 2, k1 = (0.1, −0.2): rewards (−0.2, 1.4).

    δ = (−0.2 + 0.25 − 0.5, 1.4 − 0.25) = (−0.45, 1.15); A = (−0.45 + 0.575, 1.15) = (0.125, 1.15).
    """
    step = one_sample(plain, 1.0, [0.5, 0.25], behaviour=[-1.0, -1.0], frozen=[-1.1, -0.8])
    objective = PPO(kl=2.0, gae_lambda=0.5, whiten=False)
    assert objective.advantages(step.batch)[0, 0].tolist() == pytest.approx([0.125, 1.15], abs=1e-15)
    whitened = replace(objective, whiten=True).advantages(step.batch)[0, 0]
    assert whitened.tolist() == pytest.approx([-1.0, 1.0], abs=1e-14)  # two tokens lie one σ off, whatever they are
    # Returns are (0.625, 1.4): tokens, their sum, and the sum of A.
    assert objective.denominator(step.batch).tolist() == pytest.approx([2, 2.025, 1.275], abs=1e-15)


@pytest.mark.parametrize(
    ("old", "new", "reward", "error", "slope"),
    [
        # ε_v = 0.2 and one token: the return is the reward. error = ½ max(…), slope = d error / dV.
        (0.0, 0.1, 1.0, 0.405, -0.9),  # within the range
        (0.0, 0.5, 1.0, 0.32, 0.0),  # far, towards the return: held at 0.2, no gradient
        (0.0, 1.9, 1.0, 0.405, 0.9),  # far, and beyond the return by more than 0.2 is short of it: unclipped
        (0.0, -0.5, 1.0, 1.125, -1.5),  # far, away from the return: −0.2 would flatter it, so unclipped
        (0.0, 0.5, 0.1, 0.08, 0.4),  # the return lies within the range: unclipped pulls back
    ],
)
def test_value_clipping_by_hand(
    plain: SimpleNamespace, old: float, new: float, reward: float, error: float, slope: float
) -> None:
    """Oracle: ½ max((V − ret)², (clip(V, V_old ± 0.2) − ret)²), worked by hand.

    The third case: 1.9 misses the return by 0.9, 0.2 by 0.8.
    """
    step = one_sample(plain, reward, [old])
    step.values_PMT = torch.full_like(step.values_PMT, new)
    objective = PPO(value_weight=1.0)  # one token: whitened away, so the policy's term is 0
    loss, gradient, value_gradient = loss_and_gradients(objective, step)
    assert loss == pytest.approx(error, abs=1e-12)
    assert value_gradient.item() == pytest.approx(slope, abs=1e-12)
    assert gradient.item() == 0.0
    assert metrics_of(objective, step)["value/clip_ratio"] == float(slope == 0.0)
    unclipped = loss_and_gradients(replace(objective, value_clip=None), step)
    assert unclipped[0] == pytest.approx(0.5 * (new - reward) ** 2, abs=1e-12)


def test_a_truncated_sample_ends_where_it_was_cut(plain: SimpleNamespace) -> None:
    """Oracle: the reward on the last token and V = 0 after it, as for a sample that ended: A = R − V for λ = 1."""
    group = plain.random_group(random.Random(1), 0, [2.0], truncated=[0])
    batch = collate([group], pad_token_id=plain.PAD)
    values = torch.full(batch.mask_PMT.shape, 0.5, dtype=torch.float64)
    A = PPO(kl=0.0, gae_lambda=1.0, whiten=False).advantages(batch.with_(values_PMT=values))
    assert A[batch.mask_PMT].unique().tolist() == [1.5]


# --- identities ------------------------------------------------------------------------------------------------------


def test_whitened_advantages_have_mean_zero_and_deviation_one(plain: SimpleNamespace) -> None:
    """Oracle: Python's statistics over the tokens of scored samples; 0 everywhere else, given members included."""
    step = random_step(plain, 5, P=6, rejected=True)
    A = PPO().advantages(step.batch)
    counted = step.batch.mask_PMT & step.batch.scored_PM[..., None]
    counted[:, step.batch.num_samples :] = False
    assert A.shape == step.batch.mask_PMT.shape
    assert statistics.fmean(A[counted].tolist()) == pytest.approx(0, abs=1e-14)
    assert statistics.pstdev(A[counted].tolist()) == pytest.approx(1, abs=1e-14)
    assert A[~counted].abs().max().item() == 0
    assert (~counted & step.batch.mask_PMT).any()


def test_advantages_without_spread_are_zero_not_noise(plain: SimpleNamespace) -> None:
    """Oracle: a constant minus its mean, never divided by an epsilon: γ = λ = 1, equal rewards, V = 0."""
    groups = [plain.random_group(random.Random(row), row, [0.3, 0.1 + 0.2]) for row in range(3)]
    batch = collate(groups, pad_token_id=plain.PAD)
    batch = batch.with_(values_PMT=torch.zeros(batch.mask_PMT.shape, dtype=torch.float64))
    A = PPO(kl=0.0, gae_lambda=1.0).advantages(batch)
    assert A.abs().max().item() == 0


def test_at_ratio_one_the_gradient_is_reinforce(plain: SimpleNamespace) -> None:
    """Oracle: −Σ Â log π / N by autograd, with behaviour log-probs equal to the policy's, or none."""
    step = random_step(plain, 6)
    objective = PPO(kl=0.0)
    A = objective.advantages(step.batch)
    tokens = objective.denominator(step.batch)[0]
    for behaviour in (step.logprobs_PMT, None):
        step.batch = step.batch.with_(behaviour_logprobs_PMT=behaviour)
        _, gradient, _ = loss_and_gradients(objective, step)
        assert (gradient + A / tokens).abs().max().item() <= 1e-16
        shown = metrics_of(objective, step)
        assert shown["ratio/mean"] == 1.0
        assert shown["clip_ratio/region_mean"] == 0.0


def test_without_critic_and_kl_it_is_a_token_mean_grpo_with_other_advantages(plain: SimpleNamespace) -> None:
    """Oracle: GRPO's policy loss on advantages that are alike for every token of a sample: V = 0, γ = λ = 1."""
    step = random_step(plain, 7, unscored=0.0)
    step.batch = step.batch.with_(values_PMT=torch.zeros_like(step.values_PMT))
    ppo, grpo = PPO(kl=0.0, gae_lambda=1.0, whiten=False), GRPO(aggregation="token_mean")
    given = step.batch.rewards_PM.shape[1] - step.batch.num_samples
    rewards = torch.nn.functional.pad(step.batch.samples(step.batch.rewards_PM), (0, given))
    theirs = loss_of(grpo, step.batch.with_(advantages_PM=rewards), step.logprobs_PMT, grpo.denominator(step.batch))
    ours = loss_of(
        ppo,
        step.batch.with_(advantages_PM=ppo.advantages(step.batch)),
        step.logprobs_PMT,
        ppo.denominator(step.batch),
        values_PMT=step.values_PMT,
    )
    assert ours.terms["policy"].item() == pytest.approx(theirs.terms["policy"].item(), abs=1e-14)
    for name, mean in theirs.metrics.items():
        assert (ours.metrics[name].total.item(), ours.metrics[name].count.item()) == (
            mean.total.item(),
            mean.count.item(),
        )


def test_gradcheck(plain: SimpleNamespace) -> None:
    """Oracle: finite differences for policy and critic, away from the kinks of both clips."""
    objective = PPO(value_weight=0.5)
    step = random_step(plain, 8, P=2, G=3, unscored=0.0)
    batch = step.batch.with_(advantages_PM=objective.advantages(step.batch))
    ratio = (step.logprobs_PMT - batch.behaviour_logprobs_PMT).exp()
    moved = (step.values_PMT - batch.values_PMT)[batch.mask_PMT].abs()
    assert min((ratio - edge).abs().min().item() for edge in (0.8, 1.2)) > 1e-4
    assert (moved - 0.2).abs().min().item() > 1e-4
    denominator = objective.denominator(batch)
    leaves = step.logprobs_PMT.requires_grad_(), step.values_PMT.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, v: loss_of(objective, batch, x, denominator, values_PMT=v).loss, leaves)


# --- what must not matter --------------------------------------------------------------------------------------------


@every_variant
def test_micro_batches_add_up_to_the_whole(plain: SimpleNamespace, objective: PPO) -> None:
    """Oracle: the full batch, whose advantages are whitened once: values, gradients and every metric add up."""
    rng = random.Random(0)
    for seed in range(3):
        step = random_step(plain, seed, P=7, unscored=0.4)
        batch = step.batch.with_(advantages_PM=objective.advantages(step.batch))
        value, *gradients = loss_and_gradients(objective, step)
        order = rng.sample(range(7), 7)
        parts = [order[a:b] for a, b in pairwise([0, *sorted(rng.sample(range(1, 7), 2)), 7])]
        cuts = [batch.select(part) for part in parts]
        denominator = torch.stack([objective.denominator(cut) for cut in cuts]).sum(0)
        assert torch.allclose(denominator, objective.denominator(batch), rtol=0, atol=1e-12)
        total, joined = 0.0, [torch.zeros_like(g) for g in gradients]
        sums: dict[str, list[float]] = {}
        for part, cut in zip(parts, cuts, strict=True):
            T = cut.mask_PMT.shape[2]
            micro = Step(
                batch=cut, logprobs_PMT=step.logprobs_PMT[part][..., :T], values_PMT=step.values_PMT[part][..., :T]
            )
            loss, *found = loss_and_gradients(objective, micro, cut.advantages_PM, denominator)
            total += loss
            for whole, gradient in zip(joined, found, strict=True):
                whole[part, :, :T] = gradient
            output = loss_of(objective, cut, micro.logprobs_PMT, denominator, values_PMT=micro.values_PMT)
            for name, mean in output.metrics.items():
                old = sums.setdefault(name, [0.0, 0.0])
                sums[name] = [old[0] + mean.total.item(), old[1] + mean.count.item()]
        assert total == pytest.approx(value, abs=1e-13)
        for whole, gradient in zip(joined, gradients, strict=True):
            assert (whole - gradient).abs().max().item() <= 1e-15
        added = {name: total / count for name, (total, count) in sums.items()}
        assert added == pytest.approx(metrics_of(objective, step), abs=1e-12)


def test_padding_and_masked_places_do_not_matter(plain: SimpleNamespace) -> None:
    """Oracle: the same batch with three more places and NaN at every masked one: value and gradients equal."""
    objective = PPO()
    step = random_step(plain, 2, P=6, truncated=True, mask_truncated=True)
    value, gradient, value_gradient = loss_and_gradients(objective, step)
    pad, mask = torch.nn.functional.pad, torch.nn.functional.pad(step.batch.mask_PMT, (0, 3))

    def dirty(x: Tensor) -> Tensor:
        return pad(x, (0, 3)).masked_fill(~mask, float("nan"))

    wide = step.batch.with_(
        **{name: dirty(getattr(step.batch, name)) for name in CONSTANTS},
        ids_PMT=pad(step.batch.ids_PMT, (0, 3)),
        mask_PMT=mask,
    )
    padded = Step(batch=wide, logprobs_PMT=dirty(step.logprobs_PMT), values_PMT=dirty(step.values_PMT))
    value_padded, gradient_padded, value_gradient_padded = loss_and_gradients(objective, padded)
    assert value_padded == pytest.approx(value, abs=1e-14)
    assert (gradient_padded - pad(gradient, (0, 3))).abs().max().item() <= 1e-15
    assert (value_gradient_padded - pad(value_gradient, (0, 3))).abs().max().item() <= 1e-15


def test_order_of_samples_and_groups_does_not_matter(plain: SimpleNamespace) -> None:
    """Oracle: permuted groups and samples permute the gradients and leave the value."""
    objective, step = PPO(), random_step(plain, 1, P=4)
    value, *gradients = loss_and_gradients(objective, step)
    members, order = [2, 0, 3, 1, 4], [3, 1, 0, 2]
    names = (*CONSTANTS, "ids_PMT", "mask_PMT", "rewards_PM", "truncated_PM")
    batch = step.batch.with_(**{n: getattr(step.batch, n)[:, members] for n in names}).select(order)
    shuffled = Step(
        batch=batch,
        logprobs_PMT=step.logprobs_PMT[:, members][order],
        values_PMT=step.values_PMT[:, members][order],
    )
    value_other, *others = loss_and_gradients(objective, shuffled)
    assert value_other == pytest.approx(value, abs=1e-14)
    for gradient, other in zip(gradients, others, strict=True):
        assert (other - gradient[:, members][order]).abs().max().item() <= 1e-15


def test_an_unscored_sample_leaves_everything(plain: SimpleNamespace) -> None:
    """Oracle: the same groups with that sample's tokens masked: value, gradients, denominators, metrics."""
    objective, step = PPO(), random_step(plain, 3, P=5, unscored=0.5)
    masked = step.batch.mask_PMT & step.batch.scored_PM[..., None]
    without = Step(
        batch=step.batch.with_(mask_PMT=masked, rewards_PM=step.batch.rewards_PM.nan_to_num(nan=5.0)),
        logprobs_PMT=step.logprobs_PMT,
        values_PMT=step.values_PMT,
    )
    assert not torch.equal(masked, step.batch.mask_PMT)
    assert torch.equal(objective.denominator(step.batch), objective.denominator(without.batch))
    for ours, theirs in zip(loss_and_gradients(objective, step), loss_and_gradients(objective, without), strict=True):
        assert torch.equal(torch.as_tensor(ours), torch.as_tensor(theirs))
    assert metrics_of(objective, step) == metrics_of(objective, without)


def test_one_scored_sample_of_a_group_counts(plain: SimpleNamespace) -> None:
    """Oracle: by hand: nothing is compared within a group, so its two tokens are N."""
    batch = one_sample(plain, 1.0, [0.0, 0.0]).batch
    assert PPO().denominator(batch)[0].item() == 2


def test_a_step_with_nothing_scored_is_zero(plain: SimpleNamespace) -> None:
    """Oracle: a denominator of zero is a step without a token to learn from; its loss is 0, not NaN."""
    step = one_sample(plain, None, [0.5, 0.25])
    loss, *gradients = loss_and_gradients(PPO(), step)
    assert loss == 0.0
    assert all(g.abs().max().item() == 0 for g in gradients)
    assert PPO().denominator(step.batch).tolist() == [0.0, 0.0, 0.0]


def test_float32_stays_close(plain: SimpleNamespace) -> None:
    """Oracle: the float64 loss; float32 log-probs and values give a float32 loss within its rounding."""
    step = random_step(plain, 4)
    objective = PPO()
    batch = step.batch.with_(**{n: getattr(step.batch, n).float() for n in CONSTANTS})
    batch = batch.with_(advantages_PM=objective.advantages(batch))
    loss = loss_of(
        objective, batch, step.logprobs_PMT.float(), objective.denominator(batch), values_PMT=step.values_PMT.float()
    ).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loss_and_gradients(objective, step)[0], abs=1e-5)


# --- metrics, needs, settings ----------------------------------------------------------------------------------------


def test_explained_variance(plain: SimpleNamespace) -> None:
    """Oracle: 1 − Var(ret − V)/Var(ret) by Python's statistics; 0 for a critic that says the same of every state."""
    step = random_step(plain, 9, P=5)
    for objective in VARIANTS:
        tokens = token_loop(objective, step.batch).values()
        expected = 1 - statistics.pvariance(A for A, _ in tokens) / statistics.pvariance(ret for _, ret in tokens)
        assert metrics_of(objective, step)["value/explained_variance"] == pytest.approx(expected, abs=1e-12)
    step.batch = step.batch.with_(values_PMT=torch.full_like(step.values_PMT, 0.7))
    constant = metrics_of(PPO(gae_lambda=1.0), step)["value/explained_variance"]
    assert constant == pytest.approx(0, abs=1e-12)
    step.batch = step.batch.with_(rewards_PM=torch.full_like(step.batch.rewards_PM, 0.3))
    alike = metrics_of(PPO(kl=0.0, gae_lambda=1.0), step)  # nothing to explain: left out, not −1e30
    assert "value/explained_variance" not in alike


def test_metrics_by_hand(plain: SimpleNamespace) -> None:
    """Oracle: ratios ½ and 3/2 (mean 1), k1 = 0.1 and 0.3 (mean 0.2)."""
    behaviour = [-1.0 - math.log(0.5), -1.0 - math.log(1.5)]
    step = one_sample(plain, 1.0, [0.5, 0.25], behaviour, frozen=[behaviour[0] - 0.1, behaviour[1] - 0.3])
    shown = metrics_of(PPO(), step)
    assert shown["ratio/mean"] == pytest.approx(1.0, abs=1e-12)
    assert shown["kl/behaviour"] == pytest.approx(0.2, abs=1e-12)
    assert "kl/behaviour" not in metrics_of(PPO(kl=0.0), step)


def test_terms_needs_and_name(plain: SimpleNamespace) -> None:
    """Oracle: by definition."""
    step = random_step(plain, 0)
    batch = step.batch.with_(advantages_PM=PPO().advantages(step.batch))
    terms = loss_of(PPO(), batch, step.logprobs_PMT, PPO().denominator(batch), values_PMT=step.values_PMT).terms
    assert set(terms) == {"policy", "value"}
    assert (PPO().needs.samples, PPO().needs.critic, PPO().needs.reference) == (True, True, False)
    assert (PPO().needs.frozen_policy, PPO(kl=0.0).needs.frozen_policy) == (True, False)
    assert not GRPO().needs.critic
    assert make_objective("ppo", {"kl": 0.1}) == PPO(kl=0.1)
    # TRL's defaults.
    assert PPO() == PPO(0.05, 1.0, 0.95, 0.2, 0.2, 0.2, 0.1, True)


@pytest.mark.parametrize("missing", CONSTANTS)
def test_what_was_not_set_is_our_bug(plain: SimpleNamespace, missing: str) -> None:
    """Oracle: the batch's fields, one left out: an assertion, never a silent 0."""
    batch = random_step(plain, 0).batch.with_(**{missing: None})
    with pytest.raises(AssertionError):
        PPO().advantages(batch)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": 1.1}, "gamma is 1.1; it must lie between 0 and 1"),
        ({"gae_lambda": float("nan")}, "gae_lambda is nan; it must lie between 0 and 1"),
        ({"kl": -0.1}, "kl is -0.1; a weight must be a finite number, 0 or more"),
        ({"value_weight": math.inf}, "value_weight is inf; a weight must be a finite number, 0 or more"),
        (
            {"value_clip": -0.2},
            "value_clip is -0.2; it is a distance in units of reward: give a positive number, or 0 for no limit",
        ),
        (
            {"clip_low": 1.5},
            "clip_low is 1.5 and clip_high 0.2; they are distances from a ratio of 1, so 0 ≤ clip_low ≤ 1 and "
            "clip_high ≥ 0",
        ),
    ],
)
def test_bad_settings_say_what_to_do(settings: dict, message: str) -> None:
    """Oracle: the whole message, read by a person."""
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole message is compared below
        PPO(**settings)
    assert str(raised.value) == message
