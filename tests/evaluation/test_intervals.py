from __future__ import annotations

import math
import random
from itertools import product

import numpy as np
import pytest

from grao.evaluation import bootstrap_mean, student_mean, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 20, 0.0, 0.1611),
        (20, 20, 0.8389, 1.0),
        (81, 263, 0.2553, 0.3662),  # R. G. Newcombe, Statistics in Medicine 17 (1998), Table I, method 3
        (15, 148, 0.0624, 0.1605),  # the same
        (1, 29, 0.0061, 0.1718),  # the same
    ],
)
def test_wilson_against_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    """Oracle: Newcombe's table, and 8 of 10 and 0 of 20 worked by hand with z = 1.96."""
    found = wilson(successes, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert (found.value, found.n, found.confidence) == (successes / n, n, 0.95)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (3, 7), (40, 90)])
def test_wilson_inverts_the_score_test(successes: int, n: int, confidence: float) -> None:
    """Oracle: the definition: at each end π, |p̂ − π| = z √(π(1−π)/n), with z from the error function."""
    found = wilson(successes, n, confidence)
    for end in (found.low, found.high):
        if 0 < end < 1:
            z = abs(successes / n - end) / math.sqrt(end * (1 - end) / n)
            assert math.erf(z / math.sqrt(2)) == pytest.approx(confidence, abs=1e-9)
    assert 0 <= found.low <= successes / n <= found.high <= 1


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int) -> None:
    """Oracle: the sentence."""
    with pytest.raises(ValueError, match=f"{successes} successes of {n}: need n ≥ 1 and 0 ≤ successes ≤ n"):
        wilson(successes, n)


def test_bootstrap_agrees_with_the_normal_approximation_on_many_items() -> None:
    """Oracle: x̄ ± 1.96 s/√n; with 2000 resamples an end is known to about 0.04 standard errors: 3 of those."""
    draw = random.Random(0)
    x = [draw.gauss(2.0, 3.0) for _ in range(2000)]
    error = float(np.std(x)) / math.sqrt(len(x))
    found = bootstrap_mean(x)
    assert found.value == pytest.approx(float(np.mean(x)), abs=1e-12)
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.15 * error)
    assert found.n == 2000


@pytest.mark.parametrize("x", [[0.0, 1.0], [0.0, 1.0, 5.0], [1.0, 2.0, 4.0, 8.0]])
@pytest.mark.parametrize("confidence", [0.4, 0.8])
def test_bootstrap_agrees_with_all_resamples_counted(x: list[float], confidence: float) -> None:
    """Oracle: all nⁿ resamples; an end lies between their quantiles four standard errors of its rank away."""
    means = sorted(sum(draw) / len(x) for draw in product(x, repeat=len(x)))
    found = bootstrap_mean(x, confidence=confidence, resamples=4000)
    for end, q in ((found.low, (1 - confidence) / 2), (found.high, (1 + confidence) / 2)):
        slack = 4 * math.sqrt(q * (1 - q) / 4000)
        below, above = np.quantile(means, [max(q - slack, 0), min(q + slack, 1)], method="inverted_cdf")
        assert below - 1e-12 <= end <= above + 1e-12


def test_bootstrap_covers_the_mean_about_as_often_as_it_says() -> None:
    """Oracle: 300 samples of 40 from an exponential (mean 1); coverage 0.95 less the known loss at n = 40."""
    draw = random.Random(1)
    covered = 0
    for seed in range(300):
        found = bootstrap_mean([draw.expovariate(1.0) for _ in range(40)], resamples=500, seed=seed)
        covered += found.low <= 1.0 <= found.high
    assert 0.87 <= covered / 300 <= 0.98


def test_bootstrap_is_a_function_of_its_seed() -> None:
    """Oracle: itself, and the global generators, which must not notice."""
    draw = random.Random(2)
    x = [draw.random() for _ in range(30)]
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()
    assert bootstrap_mean(x, seed=3) == bootstrap_mean(x, seed=3)
    assert bootstrap_mean(x, seed=3) != bootstrap_mean(x, seed=4)
    assert np.random.get_state()[1].tolist() == before


def test_bootstrap_of_one_value_and_of_none() -> None:
    """Oracle: one item has one resample, itself; the mean of nothing does not exist."""
    found = bootstrap_mean([3.5])
    assert (found.value, found.low, found.high, found.n) == (3.5, 3.5, 3.5, 1)
    with pytest.raises(ValueError, match="cannot estimate the mean of no values"):
        bootstrap_mean([])


def test_an_estimate_says_its_interval_and_its_n() -> None:
    """Oracle: the sentence."""
    assert str(wilson(8, 10)) == "0.800 [0.490, 0.943] (n=10)"


@pytest.mark.parametrize(
    ("degrees", "t"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (9, 2.2622), (30, 2.0423)]
)
def test_student_by_the_printed_table(degrees: int, t: float) -> None:
    """Oracle: the table of t at 95 %, two-sided, as printed in any statistics book."""
    values = [0.0] * degrees + [1.0]
    n = degrees + 1
    mean = student_mean(values)
    assert mean.value == pytest.approx(1 / n)
    half = t * math.sqrt(((n - 1) * (1 / n) ** 2 + (1 - 1 / n) ** 2) / (n - 1)) / math.sqrt(n)
    assert mean.high - mean.value == pytest.approx(half, rel=2e-5)
    assert mean.value - mean.low == pytest.approx(half, rel=2e-5)


def test_student_needs_two_runs() -> None:
    """Oracle: the message."""
    with pytest.raises(ValueError, match="1 values have no spread: give at least two runs"):
        student_mean([1.0])
