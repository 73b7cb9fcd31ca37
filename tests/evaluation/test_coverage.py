"""Do 95 % intervals hold the truth 95 times in 100? Simulated data whose truth is known, many times over.

The oracle is the definition of coverage. With 2000 data sets it is known to 0.5 points (standard error), with 1000 to
0.7, so that the band from 93 to 97 % is three or four of those on either side. Data sets hold 50 prompts, where not
said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from grao.evaluation import Estimate, Item, Metric, bootstrap_mean, differences, student_mean, wilson
from grao.evaluation.distinct_ngrams import distinct
from grao.evaluation.evaluation_metric import Bootstrap
from grao.evaluation.intervals import cluster_bootstrap, clustered_wilson
from grao.evaluation.items import group_by_prompt
from grao.evaluation.model_comparison import against_base, against_references

SETS = 2000
FEWER = 1000
"""Where a data set is made of items, which takes time."""
PROMPTS = 50
PHI = NormalDist().cdf

Draw = Callable[[np.random.Generator], np.ndarray]


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def coverage(intervals: Iterator[Estimate | Metric], truth: float) -> float:
    """Share of the intervals that hold the truth."""
    held = [found.low <= truth <= found.high for found in intervals if found.low is not None]
    assert len(held) in (SETS, FEWER)
    return float(np.mean(held))


def items(rewards_PK: np.ndarray, references_P: np.ndarray | None = None) -> list[Item]:
    """One item a reward; references are rewarded 0 where none are given."""
    return [
        Item(
            row=row,
            sample=sample,
            prompt="",
            answer="",
            reference="",
            category=None,
            tokens=1,
            finish="stop",
            reward=float(reward),
            reference_reward=0.0 if references_P is None else float(references_P[row]),
        )
        for row, own in enumerate(rewards_PK)
        for sample, reward in enumerate(own)
    ]


@pytest.mark.parametrize("n", [20, 50, 200])
def test_wilson(n: int) -> None:
    """Oracle: coverage over proportions from 0.05 to 0.95."""
    draw = generator(0)
    truths = draw.uniform(0.05, 0.95, 20_000)
    ends = [wilson(successes, n) for successes in range(n + 1)]
    held = [ends[k].low <= p <= ends[k].high for k, p in zip(draw.binomial(n, truths), truths, strict=True)]
    assert 0.93 <= np.mean(held) <= 0.97


@pytest.mark.parametrize("n", [3, 5, 30])
def test_student(n: int) -> None:
    """Oracle: coverage of the mean of n normal runs, where Student's interval is exact."""
    runs = generator(1).normal(2.0, 3.0, (SETS, n))
    assert 0.93 <= coverage((student_mean(own) for own in runs), 2.0) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda g: g.normal(size=PROMPTS), 0.0),
        (lambda g: g.exponential(size=PROMPTS), 1.0),
        (lambda g: g.choice([-1.0, 0.0, 1.0], PROMPTS, p=[0.2, 0.3, 0.5]), 0.3),
    ],
    ids=["normal", "exponential", "signs"],
)
def test_the_bootstrap_of_one_value_a_prompt(draw: Draw, truth: float) -> None:
    """Oracle: coverage."""
    g = generator(2)
    found = (cluster_bootstrap(draw(g), [1] * PROMPTS, resamples=1000) for _ in range(SETS))
    assert 0.93 <= coverage(found, truth) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("draw", [lambda g, n: g.normal(1, 1, n), lambda g, n: g.exponential(1, n)])
def test_the_percentile_bootstrap_needs_more_prompts(draw: Callable[..., np.ndarray]) -> None:
    """Oracle: coverage at 200."""
    g = generator(2)
    assert 0.93 <= coverage((bootstrap_mean(draw(g, 200), resamples=400) for _ in range(SETS)), 1.0) <= 0.97


@pytest.mark.slow
def test_at_20_prompts_the_expanded_percentiles_are_needed() -> None:
    """Oracle: coverage of normal means: what a small category has."""
    values = generator(3).normal(size=(SETS, 20))
    plain = coverage((bootstrap_mean(own, resamples=1000) for own in values), 0.0)
    expanded = coverage((cluster_bootstrap(own, [1] * 20, resamples=1000) for own in values), 0.0)
    assert plain < 0.93 <= expanded <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("unequal", [False, True])
def test_the_cluster_bootstrap(unequal: bool) -> None:
    """Oracle: coverage; two thirds of the variance lie between prompts. Resampling answers instead must fail."""
    g = generator(4)
    values = g.normal(size=(SETS, PROMPTS, 1)) + g.normal(size=(SETS, PROMPTS, 4)) * np.sqrt(0.5)
    scored = np.ones_like(values, dtype=bool)
    if unequal:
        scored[..., 1:] = g.random((SETS, PROMPTS, 3)) < 0.6
    sums, sizes = (values * scored).sum(2), scored.sum(2)
    clustered = (cluster_bootstrap(s, m, resamples=1000) for s, m in zip(sums, sizes, strict=True))
    assert 0.93 <= coverage(clustered, 0.0) <= 0.97
    single = (bootstrap_mean(own[kept], resamples=200) for own, kept in zip(values, scored, strict=True))
    assert coverage(single, 0.0) < 0.85


@pytest.mark.parametrize("p", [0.1, 0.3, 0.6])
def test_the_clustered_wilson_interval(p: float) -> None:
    """Oracle: coverage of beta-binomial counts of 4 (correlation ⅓). Wilson's interval of all answers must fail."""
    g = generator(5)
    counts = g.binomial(4, g.beta(2 * p, 2 * (1 - p), (SETS, PROMPTS)))
    sizes = [4] * PROMPTS
    assert 0.93 <= coverage((clustered_wilson(own, sizes) for own in counts), p) <= 0.97
    assert coverage((wilson(int(own.sum()), 4 * PROMPTS) for own in counts), p) < 0.9


@pytest.mark.slow
def test_the_paired_difference() -> None:
    """Oracle: coverage; what is common to both models' answers to a prompt is large and drops out."""
    g = generator(6)

    def found() -> Iterator[Metric]:
        for _ in range(FEWER):
            common = g.normal(0, 3, (PROMPTS, 1))
            base = items(common + g.normal(size=(PROMPTS, 1)))
            other = items(common + 0.4 + g.normal(0, 0.7, (PROMPTS, 1)) + g.normal(size=(PROMPTS, 2)))
            yield differences({"base": base, "other": other}, resamples=500)["other", "base"]

    figures = list(found())
    assert 0.93 <= coverage(iter(figures), 0.4) <= 0.97
    assert np.mean([f.high - f.low for f in figures]) < 1  # the models' own intervals are 1.7 wide


CUT, SPREAD = 0.3, 1.0
"""A verdict is the sign of a latent difference beyond ±CUT; SPREAD is that of prompts, 1 that of answers."""


def verdicts(latent_PK: np.ndarray) -> np.ndarray:
    return np.sign(latent_PK) * (np.abs(latent_PK) > CUT)


def chances(mean: float | np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """P(verdict 1), P(verdict −1) of a normal latent difference."""
    normal = np.vectorize(PHI)
    return normal((mean - CUT) / spread), normal((-CUT - mean) / spread)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 4])
def test_ras(samples: int) -> None:
    """Oracle: coverage of P(win) and P(win) + ½P(tie), from the normal distribution of the latent difference."""
    g = generator(7)
    win, loss = chances(0.4, float(np.hypot(SPREAD, 1)))
    strict, half = [], []
    for _ in range(FEWER):
        latent = 0.4 + g.normal(0, SPREAD, (PROMPTS, 1)) + g.normal(size=(PROMPTS, samples))
        found = against_references(group_by_prompt(items(verdicts(latent))), Bootstrap(500))
        strict.append(found.ras)
        half.append(found.ras_ties_half)
    assert 0.93 <= coverage(iter(strict), float(win)) <= 0.97
    assert 0.93 <= coverage(iter(half), float(1 + win - loss) / 2) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 3])
def test_nag(samples: int) -> None:
    """Oracle: coverage of P(post > pre) ∓ P(post < pre), by quadrature over what both models share in a prompt."""
    g = generator(8)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    up, down = chances(0.6 + nodes * SPREAD, 1.0)
    base_up, base_down = chances(nodes * SPREAD, 1.0)
    weights = weights / weights.sum()
    better = float(weights @ (up * (1 - base_up) + (1 - up - down) * base_down))
    worse = float(weights @ (down * (1 - base_down) + (1 - up - down) * base_up))
    net, wins = [], []
    for _ in range(FEWER):
        common = g.normal(0, SPREAD, (PROMPTS, 1))
        post, pre = (
            group_by_prompt(items(verdicts(m + common + g.normal(size=(PROMPTS, samples))))) for m in (0.6, 0.0)
        )
        found = against_base(post, pre, Bootstrap(500))
        net.append(found.nag)
        wins.append(found.nag_win)
    assert 0.93 <= coverage(iter(net), better - worse) <= 0.97
    assert 0.93 <= coverage(iter(wins), better) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_distinct_n(n: int) -> None:
    """Oracle: coverage of the mean over all simulated data sets; a prompt has its own topic of Zipf's words.

    The jackknife of a count of different things is known to err on the wide side (Efron and Stein, 1981).
    """
    g = generator(9)
    words = np.array([f"w{i}" for i in range(2000)])
    zipf = 1 / np.arange(1, 2001)
    blank = items(np.zeros((PROMPTS, 1)))

    def found() -> Iterator[Metric]:
        for _ in range(FEWER):
            drawn = words[g.choice(2000, (PROMPTS, 12), p=zipf / zipf.sum())]
            drawn[:, 6:9] = words[g.integers(0, 400, (PROMPTS, 1))]
            yield distinct(group_by_prompt(replace(item, answer=" ".join(drawn[item.row])) for item in blank), n)

    figures = list(found())
    truth = float(np.mean([figure.value for figure in figures]))
    assert 0.95 <= coverage(iter(figures), truth) <= 0.985
