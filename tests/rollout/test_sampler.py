from __future__ import annotations

import math

import pytest
import torch
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from grao.rollout import SamplingParams
from grao.rollout.sampler import inverse_cdf, sample_tokens
from grao.rollout.uniforms import uniforms

LAST_BELOW_ONE = 1 - 2.0**-53


def drawn(logits: list[float], *us: float) -> list[int]:
    u = torch.tensor(us, dtype=torch.float64)
    return inverse_cdf(torch.tensor(logits).expand(len(us), -1), u).tolist()


def test_inverse_cdf_by_hand() -> None:
    """Oracle: by hand; probabilities 1/2, 1/8, 3/8 add up to 0.5, 0.625, 1."""
    logits = [math.log(4), math.log(1), math.log(3)]
    assert drawn(logits, 0.0, 0.49, 0.51, 0.62, 0.63, LAST_BELOW_ONE) == [0, 0, 1, 1, 2, 2]


def test_inverse_cdf_at_its_steps() -> None:
    """Oracle: by hand; equal logits have exact weights, and a step belongs to the token on its right."""
    below = 0.5 - 2.0**-54
    assert drawn([0.0] * 4, 0.0, 0.25, below, 0.5, 0.75, LAST_BELOW_ONE) == [0, 1, 1, 2, 3, 3]


def test_a_token_without_probability_is_never_drawn() -> None:
    """Oracle: the definition, at both ends of u, beside -inf, and where exp gives 0."""
    impossible = -math.inf
    ends = (0.0, 2.0**-53, LAST_BELOW_ONE)
    assert drawn([impossible, 0.0, impossible], *ends) == [1, 1, 1]
    assert drawn([impossible, 0.0, impossible, 1.0, impossible], *ends) == [1, 1, 3]
    assert drawn([-300.0, 0.0, -300.0], *ends) == [1, 1, 1]
    assert drawn([impossible, 1e30, 0.0], *ends) == [1, 1, 1]


def test_a_uniform_number_that_rounds_to_one() -> None:
    """Oracle: the definition; where a device has no float64, 1 − 2⁻⁵³ becomes 1, which still means the last token."""
    u = torch.tensor([LAST_BELOW_ONE], dtype=torch.float64).float()
    assert u.item() == 1
    assert inverse_cdf(torch.tensor([[0.0, 0.0, -math.inf]]), u).tolist() == [1]


@pytest.mark.parametrize("V", [1, 2, 50_257, 262_144])
def test_the_weights_do_not_overflow(V: int) -> None:
    """Oracle: by hand; of V equal tokens, u lies in number ⌊u V⌋, the last one for the greatest u."""
    u = torch.tensor([0.0, 0.3, 0.999, LAST_BELOW_ONE], dtype=torch.float64)
    assert inverse_cdf(torch.full((4, V), 7.5), u).tolist() == [0, int(0.3 * V), int(0.999 * V), V - 1]


def test_a_draw_needs_only_its_own_row() -> None:
    """Oracle: a plain double loop over the cumulative sum in float64, row by row."""
    logits = 4 * torch.randn(300, 101, generator=torch.Generator().manual_seed(1))
    u = uniforms(range(300), 1)[:, 0]
    for row, target, found in zip(
        logits.double().softmax(-1).tolist(), u.tolist(), inverse_cdf(logits, u).tolist(), strict=True
    ):
        token, total = 0, row[0]
        while total <= target:
            token += 1
            total += row[token]
        assert found == token


CHI_SQUARE_999 = {5: 20.515, 8: 26.124, 11: 31.264}
"""0.999 quantiles of χ² by degrees of freedom; NIST/SEMATECH e-Handbook of Statistical Methods, table 1.3.6.7.4."""


@pytest.mark.parametrize(
    ("params", "freedom"),
    [
        (SamplingParams(), 11),
        (SamplingParams(temperature=2.0), 11),
        (SamplingParams(top_k=6), 5),
        (SamplingParams(top_p=0.95), 8),
        (SamplingParams(min_p=0.25), 5),
    ],
    ids=["all", "temperature", "top_k", "top_p", "min_p"],
)
def test_frequencies(params: SamplingParams, freedom: int) -> None:
    """Oracle: χ² of 200 × 200 draws against the exact distribution, from transformers' warpers; fixed seeds."""
    draws = 40_000
    logits = torch.linspace(-1.5, 1.5, 12)[torch.randperm(12, generator=torch.Generator().manual_seed(3))][None]
    scores = logits / params.temperature
    scores = TopKLogitsWarper(params.top_k)(None, scores) if params.top_k else scores
    scores = TopPLogitsWarper(params.top_p)(None, scores) if params.top_p < 1 else scores
    scores = MinPLogitsWarper(params.min_p)(None, scores) if params.min_p else scores
    expected = draws * scores.double().softmax(-1)[0]

    ids, _ = sample_tokens(logits.expand(draws, -1), uniforms(range(200), 200).flatten(), params)
    observed = ids.bincount(minlength=12).double()
    possible = expected > 0
    assert observed[~possible].sum() == 0
    assert possible.sum() - 1 == freedom
    chi_square = ((observed - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_square < CHI_SQUARE_999[freedom]
    if params.temperature != 1:  # the test can tell a temperature from none
        wrong = draws * logits.double().softmax(-1)[0]
        assert ((observed - wrong) ** 2 / wrong).sum() > CHI_SQUARE_999[freedom]


def test_logprobs_are_those_of_the_whole_vocabulary() -> None:
    """Oracle: torch's log_softmax of logits/τ, whatever was truncated and whichever ids were forbidden."""
    logits = 3 * torch.randn(50, 30, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    unknown = torch.arange(30) >= 25
    u = uniforms(range(50), 1)[:, 0]
    params = SamplingParams(temperature=0.5, top_k=4, top_p=0.9, min_p=0.01)
    ids, logprobs = sample_tokens(logits, u, params, unknown)
    expected = (logits / 0.5).log_softmax(-1)[torch.arange(50), ids]
    torch.testing.assert_close(logprobs, expected, rtol=0, atol=1e-13)
    assert ids.max() < 25


def test_greedy() -> None:
    """Oracle: argmax over the known ids, and the log-probs of temperature 1."""
    logits = torch.randn(20, 9, generator=torch.Generator().manual_seed(5))
    unknown = torch.arange(9) == 8
    ids, logprobs = sample_tokens(logits, torch.zeros(20), SamplingParams(temperature=0.0), unknown)
    assert ids.tolist() == [max(range(8), key=row.__getitem__) for row in logits.tolist()]
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[torch.arange(20), ids])


def test_half_precision_is_read_as_float32() -> None:
    """Oracle: identity; bfloat16 logits give what the same numbers in float32 give, log-probs in float32."""
    logits = torch.randn(64, 40, generator=torch.Generator().manual_seed(6)).bfloat16()
    u = uniforms(range(64), 1)[:, 0]
    ids, logprobs = sample_tokens(logits, u, SamplingParams(temperature=0.7))
    ids32, logprobs32 = sample_tokens(logits.float(), u, SamplingParams(temperature=0.7))
    assert logprobs.dtype == torch.float32
    assert torch.equal(ids, ids32)
    assert torch.equal(logprobs, logprobs32)
