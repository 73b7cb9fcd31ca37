"""Which members an objective weighs: the others' log-probs may be left out, and nothing changes."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from tests.objectives.policy_outputs import START, loss_of
from torch import Tensor

from grao.groups import GroupBatch, collate
from grao.objectives import DPO, GRAO, GRPO, SFT, Objective

GRAOS = [
    GRAO(),
    GRAO(advantages_over="samples", negative_reference="gate", aggregation="token_mean"),
    GRAO(negative_reference="taper", aggregation="constant", length=9),
    GRAO.recommended(),
    GRAO.recommended(beta=0.0),
    GRAO(lam=0.0, exploration=0.0),
    GRAO(advantages_over="split", beta=0.0, lam=0.0),
]
OBJECTIVES = [
    *GRAOS,
    GRPO(),
    GRPO(kl=0.04),
    GRPO.dapo(),
    GRPO.dr_grpo(9),
    GRPO.rloo(),
    SFT(),
    SFT(aggregation="sequence_mean"),
    DPO(nll=0.3),
]
every_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)


def groups_of_every_kind(plain: SimpleNamespace, behaviour: bool) -> SimpleNamespace:
    """Rewards alike, spread, all but one unscored, a mean of 0; references that tie, lose, win and lack a reward."""
    rewards = [
        ([1.0, 1.0, 1.0], 1.0),
        ([1.0, 1.0, 1.0], 0.0),
        ([1.0, 0.0, 0.5], 0.5),
        ([1.0, 0.0, 0.5], -1.0),
        ([1.0, None, None], None),
        ([1.0, None, None], 2.0),
        ([None, None, None], 1.0),
        ([1.0, 0.0, None], None),
    ]
    rng = random.Random(0)
    groups = [plain.random_group(rng, row, given, ref, rejected=True) for row, (given, ref) in enumerate(rewards)]
    return plain.score(collate(groups, pad_token_id=0), 0, behaviour=behaviour, frozen=True)


def terms_and_gradients(objective: Objective, batch: GroupBatch, logprobs_PMT: Tensor) -> dict[str, tuple]:
    """Each term's value, and its gradient by the log-probs."""
    logprobs_PMT = logprobs_PMT.detach().clone().requires_grad_()
    terms = loss_of(objective, batch, logprobs_PMT, objective.denominator(batch)).terms
    return {
        name: (term.item(), torch.autograd.grad(term, logprobs_PMT, retain_graph=True)[0])
        for name, term in terms.items()
        if term.requires_grad
    }


@every_objective
@pytest.mark.parametrize("behaviour", [False, True])
@pytest.mark.parametrize("left_out", [0.0, -3.0])
def test_nothing_depends_on_members_without_weight(
    plain: SimpleNamespace, objective: Objective, behaviour: bool, left_out: float
) -> None:
    """Oracle: the loss with every member's log-probs: each term and gradient, bit for bit, whatever the others are.

    A token that the behaviour policy gave e⁻⁵⁰⁰ has an infinite ratio there.
    """
    scored = groups_of_every_kind(plain, behaviour)
    batch = scored.batch.with_(advantages_PM=objective.advantages(scored.batch))
    contributing_PM = objective.contributing(batch, START)
    if batch.behaviour_logprobs_PMT is not None:
        behaviour_PMT = batch.behaviour_logprobs_PMT.where(contributing_PM[..., None], torch.tensor(-500.0))
        batch = batch.with_(behaviour_logprobs_PMT=behaviour_PMT * batch.mask_PMT)
    expected = terms_and_gradients(objective, batch, scored.logprobs_PMT.float())
    replaced = scored.logprobs_PMT.float().where(contributing_PM[..., None], torch.tensor(left_out))
    found = terms_and_gradients(objective, batch, replaced)
    assert found.keys() == expected.keys()
    for name, (value, gradient) in expected.items():
        assert found[name][0] == value
        assert torch.equal(found[name][1], gradient)
        assert not gradient[~contributing_PM].any()


@every_objective
def test_every_member_with_weight_matters(plain: SimpleNamespace, objective: Objective) -> None:
    """Oracle: its gradient in some term; nobody is weighed for nothing where an objective says whom it weighs."""
    scored = groups_of_every_kind(plain, behaviour=False)
    batch = scored.batch.with_(advantages_PM=objective.advantages(scored.batch))
    gradients = [g for _, g in terms_and_gradients(objective, batch, scored.logprobs_PMT).values()]
    moved_PM = torch.stack(gradients).abs().sum((0, -1)) > 0
    if isinstance(objective, (GRAO, GRPO)):
        # At the frozen policy's own log-probs k3 has no slope; these are not those.
        assert torch.equal(objective.contributing(batch, START), moved_PM)
    else:
        assert torch.equal(objective.contributing(batch, START), batch.mask_PMT.any(-1))


def test_who_is_weighed_by_hand(plain: SimpleNamespace) -> None:
    """Oracle: written out. Samples 0 0 0: none; 1 0 ½: those off the mean; the reference where a group has spread."""
    scored = groups_of_every_kind(plain, behaviour=False)
    recommended, grpo = GRAO.recommended(), GRPO()
    batch = scored.batch.with_(advantages_PM=grpo.advantages(scored.batch))
    assert grpo.contributing(batch, START).int().tolist()[:4] == [
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
    ]
    batch = scored.batch.with_(advantages_PM=recommended.advantages(scored.batch))
    assert recommended.contributing(batch, START).int().tolist()[:4] == [
        [0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0],  # the samples agree, but the reference is worse
        [1, 1, 0, 0, 0],  # the reference is just average, and Σ Â_i = 0
        [1, 1, 0, 1, 0],
    ]
