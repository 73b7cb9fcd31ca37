"""Sums of objectives, and the schedules of their weights."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.objectives.policy_outputs import START, loss_of

from grao.groups import GroupBatch
from grao.objectives import DPO, GRAO, GRPO, SFT, Needs, Objective, Progress, Schedule, Sum

SWIFT_MU = Path(__file__).resolve().parents[2].parent / "shared/oracles/ratios/chord_mu_schedule.json"


def hand_written(batch: GroupBatch, logprobs_PMT: torch.Tensor, weight: float) -> torch.Tensor:
    """GRPO's loss at ratio 1 plus `weight` × SFT's, from the definitions, sample by sample and token by token.

    L = −(1/N) Σ_i (1/|o_i|) Σ_t r_it Â_i − weight (1/Σ|y|) Σ_t log π(y_t), with Â = (R − μ)/σ over the samples.
    """
    total, N, tokens = torch.zeros((), dtype=torch.float64), 0, 0
    nll = torch.zeros((), dtype=torch.float64)
    y = batch.reference_index
    for p in range(len(batch)):
        rewards = [r for r in batch.rewards_PM[p, :y].tolist() if not math.isnan(r)]
        mu = sum(rewards) / max(len(rewards), 1)
        sigma = math.sqrt(sum((r - mu) ** 2 for r in rewards) / max(len(rewards), 1))
        for i in range(y):
            reward = batch.rewards_PM[p, i].item()
            if math.isnan(reward) or len(rewards) < 2:
                continue
            N += 1
            places = batch.mask_PMT[p, i].nonzero().flatten().tolist()
            for t in places:
                ratio = torch.exp(logprobs_PMT[p, i, t] - logprobs_PMT[p, i, t].detach())
                total = total - ratio * ((reward - mu) / sigma if sigma > 1e-6 else 0.0) / len(places)
        for t in batch.mask_PMT[p, y].nonzero().flatten().tolist():
            tokens += 1
            nll = nll - logprobs_PMT[p, y, t]
    return total / max(N, 1) + weight * nll / max(tokens, 1)


@pytest.mark.parametrize("seed", range(12))
def test_grpo_and_sft_over_any_cut_are_the_hand_written_loss(plain: SimpleNamespace, seed: int) -> None:
    """Oracle: the loss above in float64, value and gradient within 1e-12, over random cuts into micro-batches."""
    rng = random.Random(seed)
    scored = plain.random_scored(seed, P=rng.randint(2, 7), G=rng.randint(2, 5))
    weight = rng.choice([0.1, 1.0, 2.5])
    objective = Sum(((GRPO(), 1.0), (SFT(), weight)))
    batch = objective.with_advantages(scored.batch)
    places = list(range(len(batch)))
    rng.shuffle(places)
    borders = sorted(rng.sample(range(1, len(places)), rng.randint(0, len(places) - 1)))
    cuts = [places[a:b] for a, b in zip([0, *borders], [*borders, len(places)], strict=True)]

    logprobs = scored.logprobs_PMT.detach().clone().requires_grad_()
    denominator = torch.stack([objective.denominator(batch.select(cut)) for cut in cuts]).sum(0)
    loss = torch.zeros((), dtype=torch.float64)
    for cut in cuts:
        micro = batch.select(cut)
        loss = loss + loss_of(objective, micro, logprobs[cut][:, :, : micro.mask_PMT.shape[2]], denominator).loss
    expected_leaf = scored.logprobs_PMT.detach().clone().requires_grad_()
    expected = hand_written(scored.batch, expected_leaf, weight)
    (gradient,), (expected_gradient,) = (
        torch.autograd.grad(loss, logprobs),
        torch.autograd.grad(expected, expected_leaf),
    )
    assert abs(loss.item() - expected.item()) <= 1e-12
    assert (gradient - expected_gradient).abs().max().item() <= 1e-12


def test_each_part_sees_its_own_advantages(plain: SimpleNamespace) -> None:
    """Oracle: the parts called alone, bit for bit; metrics show the first part that draws samples."""
    scored = plain.random_scored(3, frozen=True, rejected=True)
    parts = (DPO(), GRAO(beta=0.2), GRPO(baseline="centred"))
    objective = Sum(tuple((part, weight) for part, weight in zip(parts, (1.0, 0.5, 2.0), strict=True)))
    batch = objective.with_advantages(scored.batch)
    for part, advantages_PM in zip(parts, batch.part_advantages_PM, strict=True):
        assert torch.equal(advantages_PM, part.advantages(scored.batch))
    assert torch.equal(batch.advantages_PM, parts[1].advantages(scored.batch))
    half = batch.select([2, 0])
    assert torch.equal(half.part_advantages_PM[2], batch.part_advantages_PM[2][[2, 0]])
    out = loss_of(objective, batch, scored.logprobs_PMT, objective.denominator(batch))
    for part, weight, name in zip(parts, (1.0, 0.5, 2.0), ("dpo", "grao", "grpo"), strict=True):
        alone = loss_of(part, part.with_advantages(scored.batch), scored.logprobs_PMT, part.denominator(scored.batch))
        for term, value in alone.terms.items():
            assert torch.equal(out.terms[f"{name}/{term}"], weight * value)
        assert out.metrics[f"weight/{name}"].total.item() == weight
    assert objective.title == "DPO + GRAO + GRPO"


def test_names_are_unique_and_inner_sums_are_flat(plain: SimpleNamespace) -> None:
    """Oracle: the names by hand; an inner weight of 2 inside an outer one of 3 is a weight of 6."""
    scored = plain.random_scored(1)
    inner = Sum(((GRPO(), 2.0), (SFT(), 1.0)))
    objective = Sum(((GRPO(), 1.0), (inner, 3.0)))
    batch = objective.with_advantages(scored.batch)
    out = loss_of(objective, batch, scored.logprobs_PMT, objective.denominator(batch))
    assert list(out.terms) == ["grpo/policy", "grpo_2/policy", "sft/imitation"]
    assert [out.metrics[f"weight/{n}"].total.item() for n in ("grpo", "grpo_2", "sft")] == [1.0, 6.0, 3.0]
    assert {"grpo/clip_ratio/low_mean", "grpo_2/clip_ratio/low_mean"} <= set(out.metrics)
    assert torch.equal(out.terms["grpo_2/policy"], 6 * out.terms["grpo/policy"])


def test_a_part_without_weight_reads_nothing(plain: SimpleNamespace) -> None:
    """Oracle: by definition: no member contributes, its terms are 0, the rest is as if it were absent."""
    scored = plain.random_scored(2)
    objective = Sum(((GRPO(), 1.0), (SFT(), Schedule("step", start=0.0, end=1.0, from_step=3))))
    batch = objective.with_advantages(scored.batch)
    before, after = Progress(2, 10), Progress(3, 10)
    y = batch.reference_index
    assert not objective.contributing(batch, before)[:, y].any()
    assert torch.equal(objective.contributing(batch, after)[:, y], batch.mask_PMT[:, y].any(-1))
    out = loss_of(objective, batch, scored.logprobs_PMT, objective.denominator(batch), progress=before)
    assert out.terms["sft/imitation"].item() == 0.0
    alone = GRPO().with_advantages(scored.batch)
    expected = loss_of(GRPO(), alone, scored.logprobs_PMT, GRPO().denominator(alone)).loss
    assert out.loss.item() == expected.item()
    nothing = Sum(((SFT(), 0.0),))
    batch = nothing.with_advantages(scored.batch)
    loss = loss_of(nothing, batch, scored.logprobs_PMT, nothing.denominator(batch)).loss
    assert loss.item() == 0
    assert loss.requires_grad  # so that a backward pass goes through


def test_needs_are_the_union() -> None:
    """Oracle: written out."""
    objective: Objective = Sum(((GRPO(kl=0.1), 1.0), (DPO(), 0.5)))
    assert objective.needs == Needs(
        samples=True, reference=True, rejected=True, frozen_policy=True, behaviour="reused", entropy=False
    )


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule("linear", 1.0, 0.0), {0: 1.0, 50: 0.5, 99: 0.01}),
        (Schedule("linear", 1.0, 0.2, from_step=10, over=40), {0: 1.0, 10: 1.0, 30: 0.6, 50: 0.2, 99: 0.2}),
        (Schedule("cosine", 0.9, 0.1, over=40), {0: 0.9, 10: 0.5 + 0.4 * math.sqrt(0.5), 20: 0.5, 40: 0.1}),
        (Schedule("step", 0.0, 1.0, from_step=20), {0: 0.0, 19: 0.0, 20: 1.0, 99: 1.0}),
    ],
)
def test_schedules_by_hand(schedule: Schedule, expected: dict[int, float]) -> None:
    """Oracle: numbers worked by hand from the equations, in a stage of 100 steps."""
    for step, weight in expected.items():
        assert schedule.at(Progress(step, 100)) == pytest.approx(weight, abs=1e-15)


def test_the_cosine_is_chords() -> None:
    """Oracle: μ of Trinity-RFT and ms-swift for CHORD, without warm-up, at every step given."""
    if not SWIFT_MU.is_file():
        pytest.skip("needs ../shared/oracles, beside the repository")
    compared = 0
    for case in json.loads(SWIFT_MU.read_text())["cases"]:
        given = case["inputs"]
        if given["mu_warmup_steps"] == 0 and given["mu_decay_steps"] > 0:
            schedule = Schedule("cosine", given["mu_peak"], given["mu_valley"], over=given["mu_decay_steps"])
            assert schedule.at(Progress(given["step"], 1000)) == pytest.approx(case["outputs"]["mu"], abs=1e-11)
            compared += 1
    assert compared > 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sum(()), "a sum has no parts"),
        (lambda: Sum((GRPO(), SFT())), "part 0 of a sum is GRPO("),
        (lambda: Sum(SFT()), "length=None); give an objective with its weight: (GRPO(), 1.0)"),
        (lambda: Sum(((SFT(), 1.0, 2.0),)), "part 0 of a sum is (SFT("),
        (lambda: Sum(((SFT, 1.0),)), "part 0 of a sum is a type; give an objective such as GRPO()"),
        (lambda: Sum(((SFT(), -1.0),)), "the weight of part 0 of a sum is -1.0; give a finite number, 0 or more"),
        (lambda: Schedule("linear", 1.0, float("nan")), "end is nan; give a finite number, 0 or more"),
        (lambda: Schedule("line", 1.0, 0.0), "schedule is 'line'; choose one of linear, cosine, step"),
        (lambda: Schedule("step", 1.0, 0.0, over=5), "over is 5; give 1 step or more, and leave it out for"),
        (lambda: Schedule("linear", 1.0, 0.0, from_step=-1), "from_step is -1; give a step of the stage, 0 or more"),
    ],
)
def test_bad_sums(make: object, message: str) -> None:
    """Oracle: the sentence: what was found, what to give."""
    with pytest.raises(ValueError, match=re.escape(message)):
        make()  # type: ignore[operator]


def test_a_sum_is_a_value() -> None:
    """Oracle: equality and hash of a frozen dataclass; START is a progress like any other."""
    made = Sum([(GRPO(), 1.0)])  # type: ignore[arg-type]  # lists are taken as tuples
    assert made == Sum(((GRPO(), 1.0),))
    assert hash(made) == hash(Sum(((GRPO(), 1.0),)))
    assert Schedule("linear", 1.0, 0.0).at(START) == 1.0
