"""RAS and NAG against tables worked by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from grao.evaluation import Estimate, nag, nag_win, ras, ras_ties_half

ALL = [ras, ras_ties_half, nag, nag_win]

ANSWERS = [3.0, 1.0, 0.0, None, 2.0, 5.0]
REFERENCES = [1.0, 1.0, 2.0, 0.0, None, 0.0]


def test_by_hand() -> None:
    """Oracle: of 6 prompts 4 are scored on both sides: win, tie, loss, win."""
    found = [f(ANSWERS, REFERENCES) for f in ALL]
    assert [estimate.value for estimate in found] == [2 / 4, 2.5 / 4, (2 - 1) / 4, 2 / 4]
    assert {estimate.n for estimate in found} == {4}


def test_the_papers_verdicts() -> None:
    """Oracle: R(y) = 0 by definition, so RAS is P(R > 0); verdicts 1, 1, 0, −1, −1, −1 worked by hand."""
    verdicts = [1.0, 1.0, 0.0, -1.0, -1.0, -1.0]
    assert ras(verdicts, [0.0] * 6).value == 2 / 6
    assert ras_ties_half(verdicts, [0.0] * 6).value == 2.5 / 6


def test_nag_can_be_negative_and_nag_win_cannot() -> None:
    """Oracle: 1 better, 1 alike, 3 worse: (1 − 3) / 5 and 1 / 5; a model that did not move has 0 in both."""
    post, pre = [1.0, 0.0, -1.0, -1.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0]
    assert (nag(post, pre).value, nag_win(post, pre).value) == (-0.4, 0.2)
    assert (nag(pre, pre).value, nag_win(pre, pre).value) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("wins", "n", "confidence", "low", "high"),
    [
        (7, 12, 0.95, 0.31951131254954973, 0.8067396863412435),
        (7, 12, 0.9, 0.3559810149005346, 0.7800221193082192),
        (117, 300, 0.95, 0.3365300216309911, 0.446251432038409),
    ],
)
@pytest.mark.parametrize("function", [ras, nag_win])
def test_proportions_have_wilsons_interval(
    function: Callable[..., Estimate], wins: int, n: int, confidence: float, low: float, high: float
) -> None:
    """Oracle: scipy 1.17's binomtest(wins, n).proportion_ci(confidence, "wilson")."""
    found = function([1.0] * wins + [0.0] * (n - wins), [0.0] * n, confidence=confidence)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize("confidence", [0.4, 0.8])
def test_the_net_gain_agrees_with_all_resamples_counted(confidence: float) -> None:
    """Oracle: all 6⁶ ways to draw six prompts that went + + + 0 − −; ends four standard errors of a rank away."""
    signs = [1, 1, 1, 0, -1, -1]
    means = sorted(sum(draw) / 6 for draw in product(signs, repeat=6))
    found = nag([float(s) for s in signs], [0.0] * 6, confidence=confidence)
    for end, q in ((found.low, (1 - confidence) / 2), (found.high, (1 + confidence) / 2)):
        slack = 4 * math.sqrt(q * (1 - q) / 2000)
        below, above = np.quantile(means, [q - slack, q + slack], method="inverted_cdf")
        assert below - 1e-12 <= end <= above + 1e-12


def test_the_net_gain_agrees_with_scipy() -> None:
    """Oracle: scipy 1.17's stats.bootstrap (percentile, 200,000 resamples) on the signs.

    The mean's standard error is 0.089; of 2000 resamples an end is known to 0.06 of those: 0.0167 is 3 times that.
    """
    post = [(7 * i) % 11 - 3.0 for i in range(120)]
    pre = [(5 * i) % 13 * 0.75 - 2.0 for i in range(120)]
    found = nag(post, pre)
    assert found.value == pytest.approx(-0.075, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((-0.25, 0.1), abs=0.0167)


def drawn(seed: int) -> tuple[list[float | None], list[float | None]]:
    draw = random.Random(seed)
    a, b = ([draw.choice([None, 0.0, 0.0, 1.0, 2.0]) for _ in range(60)] for _ in range(2))
    return a, b


@pytest.mark.parametrize("seed", range(3))
def test_the_readings_are_tied_to_each_other(seed: int) -> None:
    """Oracle: identities: W + ½T + L + ½T = 1;  W − L = 2(W + ½T) − 1, in every resample;  W(b, a) = L(a, b)."""
    a, b = drawn(seed)
    assert ras_ties_half(a, b).value + ras_ties_half(b, a).value == pytest.approx(1, abs=1e-12)
    net, half = nag(a, b), ras_ties_half(a, b)
    for found, other in ((net.value, half.value), (net.low, half.low), (net.high, half.high)):
        assert found == pytest.approx(2 * other - 1, abs=1e-12)
    assert net.value == pytest.approx(nag_win(a, b).value - nag_win(b, a).value, abs=1e-12)


@pytest.mark.parametrize("function", ALL)
def test_only_the_order_of_rewards_counts(function: Callable[..., Estimate]) -> None:
    """Oracle: invariance under the increasing map x ↦ e^x + x."""
    a, b = drawn(0)
    mapped = [[None if x is None else math.exp(x) + x for x in rewards] for rewards in (a, b)]
    assert function(*mapped) == function(a, b)


@pytest.mark.parametrize("function", ALL)
def test_an_unscored_answer_takes_its_pair_out(function: Callable[..., Estimate]) -> None:
    """Oracle: the same lists with those prompts deleted."""
    a, b = drawn(1)
    scored = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    assert len(scored) < len(a)
    assert function(a, b) == function([x for x, _ in scored], [y for _, y in scored])


@pytest.mark.parametrize("function", ALL)
def test_refusals(function: Callable[..., Estimate]) -> None:
    """Oracle: the messages."""
    with pytest.raises(ValueError, match="1 rewards against 2: a paired comparison needs both sides"):
        function([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="none of 1 prompts is scored on both sides"):
        function([None], [1.0])


def test_where_all_prompts_agree_only_wilson_keeps_a_width() -> None:
    """Oracle: every resample of 20 wins is 20 wins; Wilson's interval of 20 of 20 starts at 0.8389 (by hand)."""
    net, wins = nag([1.0] * 20, [0.0] * 20), nag_win([1.0] * 20, [0.0] * 20)
    assert (net.low, net.high) == (1.0, 1.0)
    assert (wins.low, wins.high) == pytest.approx((0.8389, 1.0), abs=5e-5)
