"""SFT against torch's cross entropy and a loop."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from tests.objectives.policy_outputs import loss_of

from grao.groups import collate
from grao.objectives import SFT


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "constant"])
def test_matches_a_loop(plain: SimpleNamespace, aggregation: str) -> None:
    """Oracle: −log π(y) added up token by token, value and gradient; samples and rejected answers weigh nothing."""
    length = 7 if aggregation == "constant" else None
    objective = SFT(aggregation=aggregation, length=length)  # type: ignore[arg-type]
    for seed in range(4):
        scored = plain.random_scored(seed, rejected=seed == 1)
        assert plain.largest_difference(objective, plain.sft_oracle(aggregation, length), scored) <= 1e-12


def test_is_cross_entropy(plain: SimpleNamespace) -> None:
    """Oracle: torch.nn.functional.cross_entropy on the references' tokens, value and gradient on the logits."""
    rng = random.Random(0)
    batch = collate([plain.random_group(rng, row, [], None) for row in range(4)], pad_token_id=0)
    logits = torch.randn(*batch.ids_PMT.shape, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    logprobs = logits.log_softmax(-1).gather(-1, batch.ids_PMT[..., None])[..., 0]
    ours = loss_of(SFT(), batch, logprobs * batch.mask_PMT, SFT().denominator(batch)).loss
    labels = batch.ids_PMT.masked_fill(~batch.mask_PMT, -100)
    theirs = torch.nn.functional.cross_entropy(logits.flatten(0, 2), labels.flatten())
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-14)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, theirs)]
    assert (gradients[0] - gradients[1]).abs().max().item() <= 1e-15


def test_gradcheck(plain: SimpleNamespace) -> None:
    """Oracle: finite differences."""
    scored = plain.random_scored(2, P=2, G=0)
    denominator = SFT().denominator(scored.batch)
    assert torch.autograd.gradcheck(lambda x: loss_of(SFT(), scored.batch, x, denominator).loss, scored.logprobs_PMT)


def test_a_row_without_reference_does_not_count(plain: SimpleNamespace) -> None:
    """Oracle: two references of one token each and a row without: (0.5 + 1.5)/2 = 1, worked by hand."""
    rng = random.Random(1)
    groups = [plain.random_group(rng, 0, [], None, longest=1), plain.random_group(rng, 1, [])]
    groups.append(plain.random_group(rng, 2, [], None, longest=1))
    batch = collate(groups, pad_token_id=0)
    assert SFT().denominator(batch).tolist() == [2.0, 2.0]
    logprobs = torch.tensor([[[-0.5]], [[0.0]], [[-1.5]]], dtype=torch.float64)
    assert loss_of(SFT(), batch, logprobs, SFT().denominator(batch)).loss.item() == 1.0


def test_needs_and_bad_settings() -> None:
    """Oracle: the whole message, read by a person."""
    assert SFT().needs.reference
    assert not SFT().needs.samples
    with pytest.raises(
        ValueError, match="aggregation is 'sum'; it must be one of sequence_mean, token_mean, constant"
    ):
        SFT(aggregation="sum")  # type: ignore[arg-type]
