from __future__ import annotations

import math

import pytest
import torch
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from grao.rollout import SamplingParams
from grao.rollout.truncation import min_p, top_k, top_p, truncate


@pytest.fixture
def logits() -> torch.Tensor:
    """64 rows over 200 tokens, no two equal."""
    return 3 * torch.randn(64, 200, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("k", [1, 7, 199, 200, 1000])
def test_top_k_keeps_what_transformers_keeps(logits: torch.Tensor, k: int) -> None:
    """Oracle: transformers' TopKLogitsWarper."""
    assert torch.equal(top_k(logits, k), TopKLogitsWarper(k)(None, logits))


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9, 0.999])
def test_top_p_keeps_what_transformers_keeps(logits: torch.Tensor, p: float) -> None:
    """Oracle: transformers' TopPLogitsWarper."""
    kept = top_p(logits, p)
    assert torch.equal(kept, TopPLogitsWarper(p)(None, logits))
    assert 1 <= (kept > -math.inf).sum(-1).min() < 200


@pytest.mark.parametrize("p", [0.01, 0.3, 1.0])
def test_min_p_keeps_what_transformers_keeps(logits: torch.Tensor, p: float) -> None:
    """Oracle: transformers' MinPLogitsWarper."""
    assert torch.equal(min_p(logits, p), MinPLogitsWarper(p)(None, logits))


def test_all_three_in_their_order(logits: torch.Tensor) -> None:
    """Oracle: transformers' warpers one after another; and another order, which keeps something else here."""
    k, p, m = TopKLogitsWarper(20), TopPLogitsWarper(0.8), MinPLogitsWarper(0.05)
    kept = truncate(logits, SamplingParams(top_k=20, top_p=0.8, min_p=0.05))
    assert torch.equal(kept, m(None, p(None, k(None, logits))))
    assert not torch.equal(kept, k(None, p(None, m(None, logits))))


def test_truncation_by_hand() -> None:
    """Oracle: by hand. Probabilities 0.1, 0.4, 0.2, 0.3 in falling order reach 0.4, 0.7, 0.9, 1."""
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log()

    def kept(params: SamplingParams) -> list[int]:
        return (truncate(logits, params)[0] > -math.inf).nonzero()[:, 0].tolist()

    assert kept(SamplingParams()) == [0, 1, 2, 3]
    assert kept(SamplingParams(top_k=2)) == [1, 3]
    assert kept(SamplingParams(top_p=0.65)) == [1, 3]
    assert kept(SamplingParams(top_p=0.75)) == [1, 2, 3]
    assert kept(SamplingParams(min_p=0.4)) == [1, 2, 3]  # at least 0.16
    # After top-k 3 the probabilities are 4/9, 2/9, 3/9: 0.75 is reached by 7/9, two tokens, where 0.7 was not enough.
    assert kept(SamplingParams(top_k=3, top_p=0.75)) == [1, 3]


def test_top_p_among_equals_keeps_the_lower_ids() -> None:
    """Oracle: by hand; 512 tokens of 1/512 each, and 0.6 needs 308 of them (307 hold 0.5996)."""
    assert (top_p(torch.zeros(1, 512), 0.6)[0] > -math.inf).tolist() == [True] * 308 + [False] * 204
