"""DPO against a double loop, numbers worked by hand, and what must not matter."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from tests.objectives.policy_outputs import loss_of
from torch import Tensor

from grao.groups import Group, GroupBatch, Member, collate
from grao.objectives import DPO, Needs, make_objective

EVERY = [
    DPO(),
    DPO(beta=1.7),
    DPO(beta=0.8, label_smoothing=0.3),
    DPO(form="ipo"),
    DPO(beta=0.4, nll=0.7),
    DPO(beta=2.0, form="ipo", nll=1.3),
]
every_setting = pytest.mark.parametrize("objective", EVERY, ids=repr)


def dpo_oracle(objective: DPO) -> Callable[[SimpleNamespace, Tensor], Tensor]:
    """Pair by pair and token by token; σ and log written out."""
    o = SimpleNamespace(**vars(objective))

    def loss(scored: SimpleNamespace, logprobs: Tensor) -> Tensor:
        batch = scored.batch
        preference, nll = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        pairs, tokens = 0, 0
        chosen, rejected = batch.num_samples, batch.num_samples + 1
        for p in range(len(batch)):
            places = {
                m: [t for t in range(batch.mask_PMT.shape[2]) if batch.mask_PMT[p, m, t]] for m in (chosen, rejected)
            }
            if not (places[chosen] and places[rejected]):
                continue
            pairs, tokens = pairs + 1, tokens + len(places[chosen])
            ratio = {}
            for m, ts in places.items():
                ratio[m] = sum(logprobs[p, m, t] - batch.frozen_logprobs_PMT[p, m, t] for t in ts)
                if o.form == "ipo":
                    ratio[m] = ratio[m] / len(ts)
            delta = ratio[chosen] - ratio[rejected]
            if o.form == "ipo":
                preference = preference + (delta - 1 / (2 * o.beta)) ** 2
            else:
                sigma = 1 / (1 + torch.exp(-o.beta * delta))
                preference = preference - (1 - o.label_smoothing) * torch.log(sigma)
                preference = preference - o.label_smoothing * torch.log(1 - sigma)
            for t in places[chosen]:
                nll = nll - logprobs[p, chosen, t]
        return preference / max(pairs, 1) + o.nll * nll / max(tokens, 1)

    return loss


def random_pairs(plain: SimpleNamespace, seed: int, *, P: int = 5, G: int = 0, lacking: bool = False):
    """Pairs of many lengths around a frozen policy; with `lacking`, row 1 has no reference and row 3 no rejected."""
    rng = random.Random(seed)
    groups = [
        plain.random_group(
            rng,
            row,
            [1.0, 0.0, None][:G],
            "absent" if lacking and row == 1 else None,
            rejected=not (lacking and row == 3),
        )
        for row in range(P)
    ]
    return plain.score(collate(groups, pad_token_id=plain.PAD), seed, frozen=True, drift=0.6)


def pair_of(plain: SimpleNamespace, chosen: list[float], rejected: list[float], frozen: float = 0.0):
    """One pair with these token log-probs; `frozen` is what the frozen policy gives to every token."""
    members = [Member(tuple(1 for _ in logprobs), "") for logprobs in (chosen, rejected)]
    batch = collate([Group(0, "q", (1,), (), *members)], pad_token_id=plain.PAD)
    logprobs = torch.zeros(batch.mask_PMT.shape, dtype=torch.float64)
    for m, values in enumerate((chosen, rejected)):
        logprobs[0, m, : len(values)] = torch.tensor(values, dtype=torch.float64)
    return plain.Scored(batch.with_(frozen_logprobs_PMT=batch.mask_PMT * torch.tensor(frozen).double()), logprobs)


def metrics_of(objective: DPO, scored: SimpleNamespace) -> dict[str, float]:
    out = loss_of(objective, scored.batch, scored.logprobs_PMT, objective.denominator(scored.batch))
    return {name: mean.total.item() / mean.count.item() for name, mean in out.metrics.items()}


def with_members(scored: SimpleNamespace, plain: SimpleNamespace, members: list[int]):
    """The same batch with its member axis permuted."""
    names = ("ids_PMT", "mask_PMT", "frozen_logprobs_PMT", "rewards_PM", "truncated_PM")
    batch = scored.batch.with_(**{n: getattr(scored.batch, n)[:, members] for n in names})
    return plain.Scored(batch, scored.logprobs_PMT.detach()[:, members])


@every_setting
@pytest.mark.parametrize("lacking", [False, True])
def test_matches_a_loop(plain: SimpleNamespace, objective: DPO, lacking: bool) -> None:
    """Oracle: the equation in float64 loops, value and gradient; samples in the group weigh nothing."""
    for seed in range(4):
        scored = random_pairs(plain, seed, G=3 if seed % 2 else 0, lacking=lacking)
        assert plain.largest_difference(objective, dpo_oracle(objective), scored) <= 1e-13


@every_setting
def test_gradcheck(plain: SimpleNamespace, objective: DPO) -> None:
    """Oracle: finite differences."""
    scored = random_pairs(plain, 2, P=4, lacking=True)
    denominator = objective.denominator(scored.batch)
    assert torch.autograd.gradcheck(
        lambda x: loss_of(objective, scored.batch, x, denominator).loss, scored.logprobs_PMT
    )


def test_sigmoid_by_hand(plain: SimpleNamespace) -> None:
    """Oracle: ρ(y) = 1 over two tokens, ρ(y⁻) = 1 − 2 ln 3, β = 1/2: σ(βΔ) = 3/4, loss ln(4/3), token weight β/4.

    With ε = 1/4 the odds 3 : 1 are where smoothing wants them: the loss is the entropy of 1/4 and nothing moves.
    """
    scored = pair_of(plain, [0.25, 0.75], [1 - 2 * math.log(3)])
    value, gradient = plain.our_loss(DPO(beta=0.5), scored)
    assert value == pytest.approx(math.log(4 / 3), abs=1e-15)
    assert gradient[0, 0].tolist() == pytest.approx([-0.125, -0.125], abs=1e-15)
    assert gradient[0, 1].tolist() == pytest.approx([0.125, 0.0], abs=1e-15)
    value, gradient = plain.our_loss(DPO(beta=0.5, label_smoothing=0.25), scored)
    assert value == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4), abs=1e-15)
    assert gradient.abs().max().item() <= 1e-16


def test_ipo_and_nll_by_hand(plain: SimpleNamespace) -> None:
    """Oracle: the frozen policy says −1.5 everywhere; ρ̄(y) = 0, ρ̄(y⁻) = −3/4; target 1/(2β) = 1; NLL mean 3/2.

    (3/4 − 1)² = 1/16, its gradient 2 · (−1/4) shared by two tokens on one side and borne by one on the other.
    """
    scored = pair_of(plain, [-1.0, -2.0], [-2.25], frozen=-1.5)
    value, gradient = plain.our_loss(DPO(beta=0.5, form="ipo"), scored)
    assert value == 0.0625
    assert gradient[0].tolist() == [[-0.25, -0.25], [0.5, 0.0]]
    objective = DPO(beta=0.5, form="ipo", nll=2.0)
    terms = loss_of(objective, scored.batch, scored.logprobs_PMT, objective.denominator(scored.batch)).terms
    assert {name: term.item() for name, term in terms.items()} == {"preference": 0.0625, "nll": 3.0}
    assert plain.our_loss(objective, scored)[1][0].tolist() == [[-1.25, -1.25], [0.5, 0.0]]


def test_metrics_by_hand(plain: SimpleNamespace) -> None:
    """Oracle: β ρ and log π of both answers: sums over tokens under either form, in nats."""
    scored = pair_of(plain, [-1.0, -2.0], [-2.25], frozen=-1.25)
    for form in ("sigmoid", "ipo"):
        assert metrics_of(DPO(beta=0.5, form=form), scored) == {  # type: ignore[arg-type]
            "rewards/chosen": -0.25,
            "rewards/rejected": -0.5,
            "rewards/margins": 0.25,
            "rewards/accuracies": 1.0,
            "logps/chosen": -3.0,
            "logps/rejected": -2.25,
        }


def test_metrics_are_means_over_pairs(plain: SimpleNamespace) -> None:
    """Oracle: the loop's log-ratios; rows that are no pair leave the mean; nothing carries a gradient."""
    scored = random_pairs(plain, 3, P=7, lacking=True)
    ratio_PM = ((scored.logprobs_PMT - scored.batch.frozen_logprobs_PMT) * scored.batch.mask_PMT).sum(-1)
    pairs = [(ratio_PM[p, 0].item(), ratio_PM[p, 1].item()) for p in (0, 2, 4, 5, 6)]
    found = metrics_of(DPO(beta=0.3), scored)
    assert found["rewards/chosen"] == pytest.approx(0.3 * sum(c for c, _ in pairs) / 5, abs=1e-14)
    assert found["rewards/margins"] == pytest.approx(0.3 * sum(c - r for c, r in pairs) / 5, abs=1e-14)
    assert found["rewards/accuracies"] == sum(c > r for c, r in pairs) / 5
    assert 0 < found["rewards/accuracies"] < 1
    out = loss_of(DPO(), scored.batch, scored.logprobs_PMT, DPO().denominator(scored.batch))
    assert not any(mean.total.requires_grad for mean in out.metrics.values())


@pytest.mark.parametrize("beta", [0.1, 1.5])
def test_every_token_has_the_weight_beta_sigma(plain: SimpleNamespace, beta: float) -> None:
    """Oracle: the identity of docs/methods.md, ∂L/∂log π = ∓ β σ(−βΔ)/P on every token, 0 on samples and padding."""
    scored = random_pairs(plain, 0, G=2)
    _, gradient = plain.our_loss(DPO(beta=beta), scored)
    mask_PMT = scored.batch.mask_PMT
    ratio_PM = ((scored.logprobs_PMT.detach() - scored.batch.frozen_logprobs_PMT) * mask_PMT).sum(-1)
    weight_P = beta / (1 + (beta * (ratio_PM[:, 2] - ratio_PM[:, 3])).exp()) / len(scored.batch)
    assert weight_P.max() > 1.1 * weight_P.min()
    expected = torch.zeros_like(gradient)
    expected[:, 2] = -weight_P[:, None] * mask_PMT[:, 2]
    expected[:, 3] = weight_P[:, None] * mask_PMT[:, 3]
    assert (gradient - expected).abs().max().item() <= 1e-16


def test_at_the_frozen_policy(plain: SimpleNamespace) -> None:
    """Oracle: Δ = 0: loss log 2 (1/(4β²) for ipo), weights ∓ β/2, no margin, and a tie counts as not preferred."""
    scored = random_pairs(plain, 1, P=4)
    batch = scored.batch.with_(frozen_logprobs_PMT=scored.logprobs_PMT.detach().clone())
    still = plain.Scored(batch, scored.logprobs_PMT)
    for objective, value in (
        (DPO(), math.log(2)),
        (DPO(label_smoothing=0.2), math.log(2)),
        (DPO(form="ipo"), 25.0),
    ):
        assert plain.our_loss(objective, still)[0] == pytest.approx(value, abs=1e-13)
        found = metrics_of(objective, still)
        assert [found[f"rewards/{n}"] for n in ("chosen", "rejected", "margins", "accuracies")] == [0.0] * 4
    _, gradient = plain.our_loss(DPO(), still)
    expected = torch.tensor([-0.1 / 2 / 4, 0.1 / 2 / 4], dtype=torch.float64)[:, None] * batch.mask_PMT
    assert (gradient - expected).abs().max().item() <= 1e-17


def test_label_smoothing_mixes_both_directions(plain: SimpleNamespace) -> None:
    """Oracle: an identity: L_ε = (1−ε) L_0 + ε L_0 of the batch whose two answers changed places."""
    scored = random_pairs(plain, 4)
    swapped = with_members(scored, plain, [1, 0])
    (value, gradient), (value_swapped, gradient_swapped) = (
        plain.our_loss(DPO(beta=0.9), s) for s in (scored, swapped)
    )
    smoothed, gradient_smoothed = plain.our_loss(DPO(beta=0.9, label_smoothing=0.3), scored)
    assert abs(value - value_swapped) > 0.01
    assert smoothed == pytest.approx(0.7 * value + 0.3 * value_swapped, abs=1e-14)
    expected = 0.7 * gradient + 0.3 * gradient_swapped[:, [1, 0]]
    assert (gradient_smoothed - expected).abs().max().item() <= 1e-16


@pytest.mark.parametrize(("margin", "value", "slope"), [(1e4, 0.0, 0.0), (-1e4, 1e4, -1.0)])
def test_extreme_margins_stay_finite(plain: SimpleNamespace, margin: float, value: float, slope: float) -> None:
    """Oracle: the limits of −log σ(x): 0, and −x with slope −1; the logarithm of a rounded σ would be infinite."""
    found, gradient = plain.our_loss(DPO(beta=1.0), pair_of(plain, [margin], [0.0]))
    assert found == value
    assert gradient[0, :, 0].tolist() == [slope, -slope]


# --- what must not matter --------------------------------------------------------------------------------------------


@every_setting
def test_micro_batches_add_up_to_the_whole(plain: SimpleNamespace, objective: DPO) -> None:
    """Oracle: the full batch; random cuts with summed denominators, some of them without a single pair."""
    rng = random.Random(0)
    for seed in range(4):
        scored = random_pairs(plain, seed, P=6, lacking=True)
        value, gradient = plain.our_loss(objective, scored)
        order = rng.sample(range(6), 6) if seed else [1, 3, 0, 2, 4, 5]
        parts = [order[a:b] for a, b in pairwise([0, 2, rng.randint(3, 5), 6])]
        batches = [scored.batch.select(part) for part in parts]
        denominator = sum(objective.denominator(batch) for batch in batches)
        assert torch.equal(denominator, objective.denominator(scored.batch))
        total, joined = 0.0, torch.zeros_like(gradient)
        for part, batch in zip(parts, batches, strict=True):
            T = batch.mask_PMT.shape[2]
            micro = plain.Scored(batch, scored.logprobs_PMT[part][..., :T].detach())
            part_value, part_gradient = plain.our_loss(objective, micro, denominator)
            total += part_value
            joined[part, :, :T] = part_gradient
        assert total == pytest.approx(value, abs=1e-13)
        assert (joined - gradient).abs().max().item() <= 1e-15


@every_setting
def test_padding_and_order_do_not_matter(plain: SimpleNamespace, objective: DPO) -> None:
    """Oracle: the same batch with three more empty places, and with its pairs and samples in another order."""
    scored = random_pairs(plain, 5, G=3, lacking=True)
    value, gradient = plain.our_loss(objective, scored)
    names = ("ids_PMT", "mask_PMT", "frozen_logprobs_PMT")
    wide = scored.batch.with_(**{n: torch.nn.functional.pad(getattr(scored.batch, n), (0, 3)) for n in names})
    padded = plain.Scored(wide, torch.nn.functional.pad(scored.logprobs_PMT.detach(), (0, 3)))
    order, members = [4, 2, 0, 3, 1], [2, 0, 1, 3, 4]
    pairs = plain.Scored(scored.batch.select(order), scored.logprobs_PMT.detach()[order])
    for other, index in (
        (padded, (..., slice(gradient.shape[2]))),
        (pairs, (order,)),
        (with_members(scored, plain, members), (slice(None), members)),
    ):
        value_other, gradient_other = plain.our_loss(objective, other)
        assert value_other == pytest.approx(value, abs=1e-13)
        there, here = (gradient_other[index], gradient) if other is padded else (gradient_other, gradient[index])
        assert (there - here).abs().max().item() <= 1e-15
    assert plain.our_loss(objective, padded)[1][..., gradient.shape[2] :].abs().max().item() == 0


@every_setting
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -1e4])
def test_values_at_masked_places_do_not_matter(plain: SimpleNamespace, objective: DPO, poison: float) -> None:
    """Oracle: the same batch with 0 there. Half a pair is masked as a whole: its other answer is poisoned too."""
    scored = random_pairs(plain, 6, lacking=True)
    value, gradient = plain.our_loss(objective, scored)
    masked = ~scored.batch.mask_PMT
    masked[[1, 3]] = True
    assert masked[0].any(), "some padding in a whole pair"
    dirty_frozen = scored.batch.with_(frozen_logprobs_PMT=scored.batch.frozen_logprobs_PMT.masked_fill(masked, poison))
    dirty_logprobs = scored.logprobs_PMT.detach().masked_fill(masked, poison)
    for batch, logprobs in (
        (dirty_frozen, scored.logprobs_PMT),
        (scored.batch, dirty_logprobs),
        (dirty_frozen, dirty_logprobs),
    ):
        dirty = plain.Scored(batch, logprobs)
        value_dirty, gradient_dirty = plain.our_loss(objective, dirty)
        assert value_dirty == value
        assert torch.equal(gradient_dirty, gradient)
        assert metrics_of(objective, dirty) == metrics_of(objective, scored)


@every_setting
def test_half_a_pair_does_not_count(plain: SimpleNamespace, objective: DPO) -> None:
    """Oracle: the same batch without rows 1 (no reference) and 3 (no rejected answer); the denominator by hand."""
    scored = random_pairs(plain, 7, lacking=True)
    whole = [0, 2, 4]
    without = plain.Scored(scored.batch.select(whole), scored.logprobs_PMT.detach()[whole])
    T = without.batch.mask_PMT.shape[2]
    without = plain.Scored(without.batch, without.logprobs_PMT[..., :T])
    tokens = sum(int(scored.batch.mask_PMT[p, 0].sum()) for p in whole)
    assert scored.batch.mask_PMT[3, 0].any(), "row 3 has a reference whose tokens must not count"
    assert objective.denominator(scored.batch).tolist() == [3.0, tokens]
    value, gradient = plain.our_loss(objective, scored)
    expected, expected_gradient = plain.our_loss(objective, without)
    assert value == pytest.approx(expected, abs=1e-14)
    assert (gradient[whole][..., :T] - expected_gradient).abs().max().item() <= 1e-16
    assert gradient[[1, 3]].abs().max().item() == 0


@every_setting
def test_a_step_without_pairs_is_zero(plain: SimpleNamespace, objective: DPO) -> None:
    """Oracle: nothing to compare: loss and gradient exactly 0, not log 2 and not NaN; no metric has a count.

    torch's anomaly detection sees that no NaN is made on the way either, to be masked later.
    """
    scored = random_pairs(plain, 8, lacking=True)
    halves = plain.Scored(scored.batch.select([1, 3]), scored.logprobs_PMT.detach()[[1, 3]])
    T = halves.batch.mask_PMT.shape[2]
    halves = plain.Scored(halves.batch, halves.logprobs_PMT[..., :T])
    with torch.autograd.set_detect_anomaly(True):
        value, gradient = plain.our_loss(objective, halves)
    assert value == 0.0
    assert gradient.abs().max().item() == 0
    out = loss_of(objective, halves.batch, halves.logprobs_PMT, objective.denominator(halves.batch))
    assert [mean.count.item() for mean in out.metrics.values()] == [0] * 6


def test_float32_stays_float32(plain: SimpleNamespace) -> None:
    """Oracle: the float64 loss, within float32's rounding."""
    for objective in EVERY:
        scored = random_pairs(plain, 9)
        batch = scored.batch.with_(frozen_logprobs_PMT=scored.batch.frozen_logprobs_PMT.float())
        loss = loss_of(objective, batch, scored.logprobs_PMT.detach().float(), objective.denominator(batch)).loss
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(plain.our_loss(objective, scored)[0], rel=1e-6)


# --- settings --------------------------------------------------------------------------------------------------------


def test_needs_advantages_and_name(plain: SimpleNamespace) -> None:
    """Oracle: by hand: signs on whole pairs only; what is needed; the name in the table, and equal values."""
    batch: GroupBatch = random_pairs(plain, 0, G=2, lacking=True).batch
    pair, half = [0.0, 0.0, 1.0, -1.0], [0.0] * 4
    assert DPO().advantages(batch).tolist() == [pair, half, pair, half, pair]
    assert DPO().needs == Needs(reference=True, rejected=True, frozen_policy=True)
    settings = {"beta": 0.3, "label_smoothing": 0.1, "nll": 1.0}
    assert make_objective("dpo", settings) == replace(DPO(), **settings) == DPO(0.3, "sigmoid", 0.1, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "beta is 0.0; give a finite number above 0 (at 0 the loss is constant)"),
        ({"beta": float("nan")}, "beta is nan; give a finite number above 0"),
        ({"beta": float("inf")}, "beta is inf; give a finite number above 0"),
        ({"form": "hinge"}, "objective.form: expected one of 'sigmoid', 'ipo', found 'hinge'"),
        (
            {"label_smoothing": 0.5},
            "label_smoothing is 0.5; it is the share of pairs labelled the wrong way round, so",
        ),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1; it is the share of pairs labelled the wrong way round"),
        ({"form": "ipo", "label_smoothing": 0.1}, "label_smoothing is 0.1, but form='ipo' has none"),
        ({"nll": -1.0}, "nll is -1.0; a weight must be a finite number, 0 or more"),
        ({"nll": float("inf")}, "nll is inf; a weight must be a finite number, 0 or more"),
        ({"betta": 1.0}, "objective.betta is not known (did you mean 'beta'?)"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    """Oracle: the sentence: what was found, what was needed, the remedy."""
    with pytest.raises(ValueError, match=re.escape(message)):
        make_objective("dpo", settings)
