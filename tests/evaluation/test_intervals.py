from __future__ import annotations

import math
import random
import tracemalloc
from itertools import product

import numpy as np
import pytest
from scipy import stats

from grao.evaluation import bootstrap_mean, intervals, student_mean, wilson
from grao.evaluation.intervals import cluster_bootstrap, clustered_wilson, jackknife


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
    """Oracle: the message."""
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
    """Oracle: the message."""
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


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(("successes", "n"), [(0, 5), (1, 1), (3, 7), (40, 90), (997, 1000)])
def test_wilson_agrees_with_scipy(successes: int, n: int, confidence: float) -> None:
    """Oracle: scipy's binomtest(…).proportion_ci(method="wilson")."""
    found = wilson(successes, n, confidence)
    theirs = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("n", [2, 5, 40, 1500])
def test_student_agrees_with_scipy(n: int, confidence: float) -> None:
    """Oracle: scipy's t.interval."""
    x = np.random.Generator(np.random.Philox(n)).normal(3, 2, n)
    found = student_mean(x.tolist(), confidence=confidence)
    theirs = stats.t.interval(confidence, n - 1, loc=x.mean(), scale=stats.sem(x))
    assert (found.low, found.high) == pytest.approx(theirs, rel=1e-8)


def test_the_bootstrap_agrees_with_scipy() -> None:
    """Oracle: scipy's stats.bootstrap (percentile); of 20,000 resamples an end is known to 0.02 standard errors: 5."""
    x = np.random.Generator(np.random.Philox(3)).exponential(2.0, 60)
    found = bootstrap_mean(x.tolist(), resamples=20_000)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.1 * stats.sem(x))


def test_the_cluster_bootstrap_agrees_with_scipy() -> None:
    """Oracle: scipy's paired percentile bootstrap of the ratio, asked for the expanded confidence; 5 errors of an end.

    α' = Φ(−√(n/(n−1)) t): with n = 30 and 95 % it is 0.0188, by scipy's distributions.
    """
    g = np.random.Generator(np.random.Philox(4))
    sizes = g.integers(1, 9, 30)
    sums = g.normal(2.0, 1.0, 30) * sizes
    tail = stats.norm.cdf(-math.sqrt(30 / 29) * stats.t.ppf(0.975, 29))
    assert tail == pytest.approx(0.0188, abs=5e-5)
    found = cluster_bootstrap(sums, sizes, resamples=20_000)
    theirs = stats.bootstrap(
        (sums, sizes),
        lambda s, m, axis: s.sum(axis) / m.sum(axis),
        paired=True,
        n_resamples=20_000,
        confidence_level=1 - 2 * tail,
        method="percentile",
        rng=1,
    )
    assert found.value == sums.sum() / sizes.sum()
    ends = theirs.confidence_interval
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), abs=0.1 * theirs.standard_error)


def test_clusters_of_one_size_are_a_mean_of_means() -> None:
    """Oracle: the same draws, so the ends of the means' own bootstrap; and those of sizes written as a ratio."""
    x = np.random.Generator(np.random.Philox(5)).normal(size=40)
    alone, fours = cluster_bootstrap(x, [1] * 40), cluster_bootstrap(4 * x, [4] * 40)
    assert (alone.low, alone.high) == pytest.approx((fours.low, fours.high), abs=1e-12)
    ratio = cluster_bootstrap(np.append(x, x[0]), [*[1] * 40, 1.0 + 1e-15])  # takes the way of unequal sizes
    equal = cluster_bootstrap(np.append(x, x[0]), [1] * 41)
    assert (ratio.low, ratio.high) == pytest.approx((equal.low, equal.high), abs=1e-12)


def test_drawing_a_few_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: all resamples drawn in one array."""
    x = np.random.Generator(np.random.Philox(6)).normal(size=37)
    draws = np.random.Generator(np.random.Philox(0)).integers(0, 37, (2000, 37))
    low, high = np.quantile(x[draws].mean(1), [(1 - 0.95) / 2, 1 - (1 - 0.95) / 2])
    for at_once in (1, 100, 1 << 20):
        monkeypatch.setattr(intervals, "MAX_DRAWS", at_once)
        found = bootstrap_mean(x.tolist())
        assert (found.low, found.high) == (low, high)


def test_many_prompts_take_little_memory() -> None:
    """Oracle: numpy's own allocations as tracemalloc counts them; all draws at once would be 160 MB of them."""
    x = np.ones(10_000)
    tracemalloc.start()
    cluster_bootstrap(x, 1 + np.arange(10_000) % 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


@pytest.mark.parametrize(("successes", "n"), [(0, 20), (7, 12), (20, 20), (117, 300)])
def test_clusters_of_one_have_wilsons_interval(successes: int, n: int) -> None:
    """Oracle: the identity n_eff = n."""
    found, plain = clustered_wilson([1] * successes + [0] * (n - successes), [1] * n), wilson(successes, n)
    assert (found.value, found.low, found.high) == pytest.approx((plain.value, plain.low, plain.high), abs=1e-12)


def test_clusters_that_agree_are_worth_one_unit_each() -> None:
    """Oracle: Wilson's interval with as many units as clusters; also where no cluster differs from another."""
    for wins in (5, 0, 12):
        found, plain = clustered_wilson([4] * wins + [0] * (12 - wins), [4] * 12), wilson(wins, 12)
        assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=1e-12)


def test_clustered_wilson_by_hand() -> None:
    """Oracle: s = 2, 0, 1 of m = 2, 1, 3: p̂ = ½, residuals 1, −½, −½: v = 1.5/36, n_eff = 0.25·36/1.5 = 6 units."""
    found, plain = clustered_wilson([2, 0, 1], [2, 1, 3]), wilson(3, 6)
    assert (found.value, found.n) == (0.5, 3)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=1e-12)


def test_clustered_units_are_worth_at_most_themselves() -> None:
    """Oracle: clusters that are all half won have no variance: as many independent units as there are, here 8."""
    found, plain = clustered_wilson([1] * 4, [2] * 4), wilson(4, 8)
    shares = clustered_wilson([0.5] * 4, [1] * 4, units=8)
    assert (found.low, found.high) == (plain.low, plain.high) == (shares.low, shares.high)


def test_the_jackknife_of_a_mean_is_students_interval() -> None:
    """Oracle: the identity SE = s/√n, exact for means."""
    x = np.random.Generator(np.random.Philox(7)).normal(size=11)
    found = jackknife(float(x.mean()), [(x.sum() - own) / 10 for own in x])
    plain = student_mean(x.tolist())
    assert (found.value, found.low, found.high) == pytest.approx((plain.value, plain.low, plain.high), abs=1e-12)


def test_clusters_that_cannot_be_are_refused() -> None:
    """Oracle: the messages."""
    with pytest.raises(ValueError, match="2 sums and 1 sizes"):
        cluster_bootstrap([1, 2], [1])
    with pytest.raises(ValueError, match="a cluster has no units"):
        clustered_wilson([0, 1], [0, 1])
    with pytest.raises(ValueError, match="successes must lie between 0 and the size"):
        clustered_wilson([3], [2])
    with pytest.raises(ValueError, match="one cluster has no spread"):
        cluster_bootstrap([1], [1])
    with pytest.raises(ValueError, match="one cluster has no spread"):
        jackknife(1.0, [1.0])
