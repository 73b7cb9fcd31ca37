"""What must not matter: padding, order, cuts into micro-batches, values at masked places, members without reward."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from tests.objectives.policy_outputs import loss_of

from grao.groups import GroupBatch, collate
from grao.objectives import GRAO, GRPO, SFT, LossOutput, Needs, Objective, mean_logprob, pad_members

OBJECTIVES = [
    SFT(),
    SFT(aggregation="sequence_mean"),
    GRPO(kl=0.04),
    GRPO.dapo(),
    GRPO.dr_grpo(9),
    GRPO.rloo(),
    GRAO(),
    GRAO(advantages_over="samples", negative_reference="gate", aggregation="token_mean"),
    GRAO(negative_reference="taper", aggregation="constant", length=9),
    GRAO.recommended(),
]
every_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)


def member_tensors(batch: GroupBatch) -> tuple[str, ...]:
    named = ("ids_PMT", "mask_PMT", "behaviour_logprobs_PMT", "frozen_logprobs_PMT")
    return tuple(n for n in named if getattr(batch, n) is not None)


@every_objective
def test_padding_does_not_matter(plain: SimpleNamespace, objective: Objective) -> None:
    """Oracle: the same batch with three more empty places in S and in T: value equal, gradient equal and 0 there."""
    scored = plain.random_scored(0, behaviour=True, frozen=True)
    wide = {n: torch.nn.functional.pad(getattr(scored.batch, n), (0, 3)) for n in member_tensors(scored.batch)}
    for name in ("prompt_ids_PS", "prompt_mask_PS"):
        wide[name] = torch.nn.functional.pad(getattr(scored.batch, name), (0, 3))
    padded = plain.Scored(scored.batch.with_(**wide), torch.nn.functional.pad(scored.logprobs_PMT.detach(), (0, 3)))
    value, gradient = plain.our_loss(objective, scored)
    value_padded, gradient_padded = plain.our_loss(objective, padded)
    T = gradient.shape[2]
    assert value_padded == pytest.approx(value, abs=1e-14)
    assert (gradient_padded[..., :T] - gradient).abs().max().item() <= 1e-15
    assert gradient_padded[..., T:].abs().max().item() == 0


@every_objective
def test_order_of_samples_and_of_groups_does_not_matter(plain: SimpleNamespace, objective: Objective) -> None:
    """Oracle: permuting samples within groups, or groups, permutes the gradient and leaves the value."""
    scored = plain.random_scored(1, P=4, behaviour=True, frozen=True, rejected=True)
    value, gradient = plain.our_loss(objective, scored)
    members = [2, 0, 3, 1, 4, 5]  # samples shuffled, the given members in their places
    names = (*member_tensors(scored.batch), "rewards_PM", "truncated_PM")
    shuffled = scored.batch.with_(**{n: getattr(scored.batch, n)[:, members] for n in names})
    order = [3, 1, 0, 2]
    for other, index in (
        (plain.Scored(shuffled, scored.logprobs_PMT[:, members].detach()), (slice(None), members)),
        (plain.Scored(scored.batch.select(order), scored.logprobs_PMT[order].detach()), (order,)),
    ):
        value_other, gradient_other = plain.our_loss(objective, other)
        assert value_other == pytest.approx(value, abs=1e-14)
        assert (gradient_other - gradient[index]).abs().max().item() <= 1e-15


@every_objective
def test_micro_batches_add_up_to_the_whole(plain: SimpleNamespace, objective: Objective) -> None:
    """Oracle: the full batch. Random cuts, summed denominators: values add and gradients join, whatever the cut."""
    rng = random.Random(0)
    for seed in range(6):
        scored = plain.random_scored(seed, P=7, unscored=0.4, behaviour=True, frozen=True)
        value, gradient = plain.our_loss(objective, scored)
        order = rng.sample(range(7), 7)
        cuts = [0, *sorted(rng.sample(range(1, 7), 2)), 7]
        parts = [order[a:b] for a, b in pairwise(cuts)]
        batches = [scored.batch.select(part) for part in parts]
        denominator = sum(objective.denominator(b) for b in batches)
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


@every_objective
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -1e4])
def test_values_at_masked_places_do_not_matter(plain: SimpleNamespace, objective: Objective, poison: float) -> None:
    """Oracle: the same batch with 0 there. A NaN times a mask of 0 is NaN: it must be left out, not multiplied."""
    scored = plain.random_scored(2, P=6, behaviour=True, frozen=True, truncated=True, mask_truncated=True)
    value, gradient = plain.our_loss(objective, scored)
    masked = ~scored.batch.mask_PMT
    assert masked.any(-1).any(0).all(), "every place on the member axis holds some padding"
    names = ("behaviour_logprobs_PMT", "frozen_logprobs_PMT")
    batch = scored.batch.with_(**{n: getattr(scored.batch, n).masked_fill(masked, poison) for n in names})
    logprobs = scored.logprobs_PMT.detach()
    for dirty in (
        plain.Scored(batch, logprobs),
        plain.Scored(batch, logprobs.masked_fill(masked, poison)),
        plain.Scored(scored.batch, logprobs.masked_fill(masked, poison)),
    ):
        value_dirty, gradient_dirty = plain.our_loss(objective, dirty)
        assert value_dirty == value
        assert torch.equal(gradient_dirty, gradient)


@every_objective
def test_ids_prompts_and_rows_do_not_matter(plain: SimpleNamespace, objective: Objective) -> None:
    """Oracle: an objective sees log-probs and rewards, never tokens: other ids, the same loss."""
    scored = plain.random_scored(3, behaviour=True, frozen=True)
    other = scored.batch.with_(
        ids_PMT=scored.batch.ids_PMT + 1, prompt_ids_PS=scored.batch.prompt_ids_PS + 1, rows_P=scored.batch.rows_P + 9
    )
    assert (
        plain.our_loss(objective, plain.Scored(other, scored.logprobs_PMT))[0] == plain.our_loss(objective, scored)[0]
    )


def one_group(plain: SimpleNamespace, rewards: list[float | None], reference: float | None, **kwargs: object):
    group = plain.random_group(random.Random(0), 0, rewards, reference, **kwargs)
    return plain.score(collate([group], pad_token_id=0, mask_truncated=bool(kwargs)), 0)


weighing = pytest.mark.parametrize(
    "objective", [GRPO(), GRPO.dapo(), GRPO.rloo(), GRAO(), GRAO.recommended()], ids=repr
)


@weighing
@pytest.mark.parametrize(
    ("rewards", "reference"),
    [
        ([1.0] * 4, 1.0),  # no spread
        ([None] * 4, None),  # nothing scored
        ([1.0, None, None, None], None),  # one scored
    ],
)
def test_a_group_that_teaches_nothing(plain, objective, rewards, reference) -> None:
    """Oracle: exactly zero loss and gradient, not a rounding error divided by an epsilon, and nothing is NaN."""
    value, gradient = plain.our_loss(objective, one_group(plain, rewards, reference))
    assert value == 0.0
    assert gradient.abs().max().item() == 0.0


@pytest.mark.parametrize("objective", [GRPO(), GRAO()], ids=repr)
def test_what_a_group_adds_to_the_denominator(plain: SimpleNamespace, objective: Objective) -> None:
    """Oracle: counted by hand. A group without spread counts, as in TRL; one with under two scores does not."""
    batch = one_group(plain, [1.0] * 4, 1.0).batch
    members = 4 if isinstance(objective, GRPO) else 5
    tokens = sum(batch.lengths_PM[0].tolist()[:members])
    groups = [1.0] if isinstance(objective, GRAO) else []
    assert objective.denominator(batch).tolist() == [*groups, members, tokens]
    alone = one_group(plain, [1.0, None, None, None], None).batch
    assert objective.denominator(alone).abs().max().item() == 0


def test_a_rejected_answer_does_not_count(plain: SimpleNamespace) -> None:
    """Oracle: the same group without it; even with a reward it is no member of GRAO's or GRPO's group."""
    group = plain.random_group(random.Random(0), 0, [1.0, 0.0, 0.5], 0.7, rejected=True)
    assert group.rejected is not None
    batch = collate([replace(group, rejected=replace(group.rejected, reward=-3.0))], pad_token_id=0)
    without = collate([replace(group, rejected=None)], pad_token_id=0)
    for objective in (GRPO(), GRAO(aggregation="token_mean")):
        assert torch.equal(objective.denominator(batch), objective.denominator(without))
        assert torch.equal(objective.advantages(batch)[:, :4], objective.advantages(without))


def test_a_masked_truncated_sample_keeps_its_reward_and_loses_its_gradient(plain: SimpleNamespace) -> None:
    """Oracle: advantages equal to the unmasked group's; its own gradient is 0, its normaliser still counts it."""
    for objective in (GRPO(), GRAO()):
        kept = one_group(plain, [1.0, 0.0, 0.5], 0.7)
        masked = one_group(plain, [1.0, 0.0, 0.5], 0.7, truncated=[0])
        assert torch.equal(objective.advantages(kept.batch), objective.advantages(masked.batch))
        gradient, gradient_masked = (plain.our_loss(objective, s)[1] for s in (kept, masked))
        assert gradient[0, 0].abs().max().item() > 0
        assert gradient_masked[0, 0].abs().max().item() == 0
        assert torch.equal(gradient_masked[0, 1:], gradient[0, 1:])


def test_an_empty_step_does_not_divide_by_zero(plain: SimpleNamespace) -> None:
    """Oracle: a denominator of zero is a step without a counted group; its loss is 0, not NaN."""
    scored = one_group(plain, [None] * 3, None)
    for objective in OBJECTIVES[2:]:
        if not objective.needs.frozen_policy:
            assert plain.our_loss(objective, scored)[0] == 0.0


def test_the_example_in_the_docs_runs(plain: SimpleNamespace) -> None:
    """Oracle: best of n by hand: the best sample's J, negated, averaged over the groups."""

    class BestOfN(Objective):
        needs = Needs(samples=True)

        def advantages(self, batch):
            rewards_PG = batch.samples(batch.rewards_PM).nan_to_num(nan=-torch.inf)
            return pad_members(torch.nn.functional.one_hot(rewards_PG.argmax(1), batch.num_samples), batch)

        def loss(self, batch, output, denominator, progress):
            J_PM = mean_logprob(output.logprobs_PMT, batch.mask_PMT)
            return LossOutput({"imitation": -(batch.advantages_PM * J_PM).sum() / denominator[0]})

    scored = one_group(plain, [0.0, None, 2.0], 5.0)
    best = scored.logprobs_PMT[0, 2][scored.batch.mask_PMT[0, 2]].mean().item()
    assert plain.our_loss(BestOfN(), scored)[0] == pytest.approx(-best, abs=1e-15)


def test_float32_and_float64_agree(plain: SimpleNamespace) -> None:
    """Oracle: the float64 loss; float32 log-probs with float64 rewards stay float32 and within its rounding."""
    for objective in OBJECTIVES:
        scored = plain.random_scored(4, behaviour=True, frozen=True)
        batch = scored.batch
        floats = {n: getattr(batch, n).float() for n in ("behaviour_logprobs_PMT", "frozen_logprobs_PMT")}
        single = plain.Scored(batch.with_(**floats), scored.logprobs_PMT.detach().float())
        batch32 = single.batch.with_(advantages_PM=objective.advantages(batch))
        loss = loss_of(objective, batch32, single.logprobs_PMT, objective.denominator(batch)).loss
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(plain.our_loss(objective, scored)[0], abs=1e-5)


def test_objectives_are_values() -> None:
    """Oracle: dataclasses.replace and equality: the configuration is the object."""
    for objective in OBJECTIVES:
        assert replace(objective) == objective  # type: ignore[type-var]
