"""Wins, ties, losses and differences of two models on the same prompts."""

from __future__ import annotations

import math
import random
from itertools import product

import numpy as np
import pytest

from grao.evaluation import WinTieLoss, bootstrap_mean, compare, paired_difference

A = [3.0, 1.0, 0.0, None, 2.0, 5.0, None]
B = [1.0, 1.0, 2.0, 0.0, None, 0.0, None]


def test_compare_by_hand() -> None:
    """Oracle: 3 > 1, 1 = 1, 0 < 2, 5 > 0; three prompts with an unscored side are in no count."""
    assert compare(A, B) == WinTieLoss(wins=2, ties=1, losses=1)
    assert compare(B, A) == WinTieLoss(wins=1, ties=1, losses=2)
    assert compare(A, B).n == 4
    assert compare([], []).n == compare([None], [1.0]).n == 0


def test_the_difference_is_that_of_the_scored_pairs() -> None:
    """Oracle: (2 + 0 − 2 + 5) / 4 by hand."""
    found = paired_difference(A, B)
    assert (found.value, found.n, found.confidence) == (1.25, 4, 0.95)


@pytest.mark.parametrize("confidence", [0.4, 0.8])
def test_the_interval_agrees_with_all_resamples_of_pairs_counted(confidence: float) -> None:
    """Oracle: all 5⁵ ways to draw five prompts, each with both rewards; ends four standard errors of a rank away."""
    a, b = [1.0, 4.0, 2.0, 8.0, 0.0], [0.0, 6.0, 1.0, 3.0, 0.5]
    means = sorted(sum(a[i] - b[i] for i in draw) / 5 for draw in product(range(5), repeat=5))
    found = paired_difference(a, b, confidence=confidence, resamples=4000)
    for end, q in ((found.low, (1 - confidence) / 2), (found.high, (1 + confidence) / 2)):
        slack = 4 * math.sqrt(q * (1 - q) / 4000)
        below, above = np.quantile(means, [q - slack, q + slack], method="inverted_cdf")
        assert below - 1e-12 <= end <= above + 1e-12


def test_the_interval_agrees_with_scipy() -> None:
    """Oracle: scipy 1.17's stats.bootstrap (paired, percentile, 200,000 resamples), within our resampling error.

    The mean's standard error is 0.38; of 20,000 resamples an end is known to 0.019 of those: 0.03 is 4 times that.
    """
    a = [(7 * i) % 11 - 3.0 for i in range(120)]
    b = [(5 * i) % 13 * 0.75 - 2.0 for i in range(120)]
    found = paired_difference(a, b, resamples=20_000)
    assert found.value == pytest.approx(-0.47291666666666665, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((-1.2229166666666667, 0.275), abs=0.03)


def test_what_both_sides_share_falls_out() -> None:
    """Oracle: a = b + ½ has difference ½ in every resample of pairs; each side's own interval is wide."""
    draw = random.Random(0)
    b = [draw.gauss(0, 5) for _ in range(200)]
    found = paired_difference([x + 0.5 for x in b], b)
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5), abs=1e-12)
    assert bootstrap_mean(b).high - bootstrap_mean(b).low > 1


def test_swapping_the_sides_turns_the_interval_round() -> None:
    """Oracle: the same resamples, so the identity d(b, a) = −d(a, b), ends exchanged."""
    there, back = paired_difference(A, B, seed=3), paired_difference(B, A, seed=3)
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low), abs=1e-12)


@pytest.mark.parametrize("function", [compare, paired_difference])
def test_lists_of_other_lengths_are_refused(function) -> None:
    """Oracle: the message."""
    with pytest.raises(
        ValueError, match="2 rewards against 3: a paired comparison needs both sides on the same prompts"
    ):
        function([1.0, 2.0], [1.0, 2.0, 3.0])


def test_nothing_scored_on_both_sides_has_no_difference() -> None:
    """Oracle: the message."""
    with pytest.raises(ValueError, match="none of 2 prompts is scored on both sides"):
        paired_difference([1.0, None], [None, 2.0])
