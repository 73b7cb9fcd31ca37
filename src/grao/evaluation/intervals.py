"""Confidence intervals: no point estimate without its n and its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_DRAWS_AT_ONCE = 1 << 20
"""Numbers drawn at once by a bootstrap: 8 MB."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int
    confidence: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


def wilson(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Wilson's score interval for a proportion (E. B. Wilson, 1927).

        (p̂ + z²/2n ± z √(p̂(1−p̂)/n + z²/4n²)) / (1 + z²/n)

    It stays inside [0, 1] and keeps its coverage at small n, where p̂ ± z·SE does not.

    Raises:
        ValueError: n is 0, or successes do not lie between 0 and n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: need n ≥ 1 and 0 ≤ successes ≤ n")
    p = successes / n
    return Estimate(p, *_score_interval(p, n, confidence), n, confidence)


def clustered_wilson(
    successes: Sequence[float], sizes: Sequence[float], *, units: int | None = None, confidence: float = 0.95
) -> Estimate:
    """Wilson's interval of a proportion whose units come in clusters, as several answers to one prompt do.

    With s_i successes among the m_i units of cluster i of n, p̂ = Σ s_i / Σ m_i has the variance

        v = Σ_i (s_i − p̂ m_i)² / (Σ_i m_i)²        so it is worth        n_eff = p̂(1−p̂) / v

    independent units: Σ m_i over L. Kish's design effect (Survey Sampling, 1965). `wilson`'s equation is then taken at
    p̂ and n_eff. With one unit a cluster it is Wilson's interval itself; and unlike a bootstrap it keeps its width
    where all units agree: n_eff is then n, as if the units of a cluster were one. n_eff is at most the number of
    units, since fewer than a dozen clusters can show a variance near 0 by chance.

    Args:
        successes: s_i; fractions where a cluster's value is a share already (then m_i = 1 and `units` is given).
        sizes: m_i > 0.
        units: how many units there were; Σ m_i if not given.
        confidence: of the interval.

    Raises:
        ValueError: no clusters, a size that is not positive, or successes outside [0, m_i].
    """
    s, m = _clusters(successes, sizes)
    if not ((s >= 0) & (s <= m)).all():
        raise ValueError("successes must lie between 0 and the size of their cluster")
    p = float(s.sum() / m.sum())
    variance = float(((s - p * m) ** 2).sum() / m.sum() ** 2)
    most = float(m.sum() if units is None else units)
    effective = len(s) if p in (0.0, 1.0) else min(p * (1 - p) / variance, most) if variance else most
    return Estimate(p, *_score_interval(p, effective, confidence), len(s), confidence)


def bootstrap_mean(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Percentile bootstrap of a mean (B. Efron, 1979): resample the items with replacement.

    For a paired comparison of two models give the differences item by item. A little too narrow for few items:
    `cluster_bootstrap` says by how much, and mends it.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("cannot estimate the mean of no values")
    x = np.asarray(values, dtype=np.float64)
    means = _resampled_sums(x[:, None], resamples, seed)[:, 0] / len(x)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(x.mean()), float(low), float(high), len(x), confidence)


def cluster_bootstrap(
    sums: Sequence[float],
    sizes: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Bootstrap of a mean whose units come in clusters: resample clusters, each with all that it holds.

        x̄ = Σ_i s_i / Σ_i m_i        s_i: sum over the m_i units of cluster i of n

    A ratio, so that clusters of unequal size may be mixed; with m_i = 1 it is the mean of the s_i. The ends are the
    *expanded* percentiles α' and 1 − α' of the resampled ratios, with α' = Φ(−√(n/(n−1)) t_{n−1; 1−α/2}), where the
    percentile bootstrap takes α/2: resamples spread less than samples do, by √((n−1)/n) (T. C. Hesterberg, The
    American Statistician 69, 2015, section 5). The intervals are 6 % wider at n = 30 and 0.6 % at 300.

    Simulated coverage of 95 % by the number of clusters, that of the percentile bootstrap in brackets:

                        20               30               50               100
        normal          0.943 (0.920)    0.943 (0.929)    0.948 (0.940)    0.949 (0.944)
        exponential     0.922 (0.899)    0.931 (0.918)    0.934 (0.925)    0.937 (0.933)
        log-normal, 1   0.877 (0.853)    0.889 (0.873)    0.905 (0.894)    0.921 (0.916)

    Under tails as heavy as the last, BCa and studentised intervals did little better, and the latter fail on rewards
    that rarely differ: distrust intervals of KLs that a few answers dominate.

    Args:
        sums: s_i.
        sizes: m_i > 0: units of each cluster, or the denominators of a ratio.
        confidence: of the interval.
        resamples: how many.
        seed: of the resamples.

    Raises:
        ValueError: fewer than two clusters, or a size that is not positive.
    """
    s, m = _clusters(sums, sizes)
    n = len(s)
    if n < 2:
        raise ValueError("one cluster has no spread: give at least two prompts")
    equal = bool((m == m[0]).all())  # then only the numerator is random: half the work
    totals = _resampled_sums(s[:, None] if equal else np.stack([s, m], 1), resamples, seed)
    ratios = totals[:, 0] / (n * m[0] if equal else totals[:, 1])
    t = _student_quantile(confidence, n - 1)
    tail = NormalDist().cdf(-math.sqrt(n / (n - 1)) * t)
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Estimate(float(s.sum() / m.sum()), float(low), float(high), n, confidence)


def jackknife(value: float, leave_one_out: Sequence[float], *, confidence: float = 0.95) -> Estimate:
    """Student's interval on the jackknife's standard error (J. W. Tukey, 1958).

        SE² = (n−1)/n Σ_i (θ_(i) − θ̄)²        θ_(i): the statistic without cluster i        value ± t_{n−1} SE

    For statistics that depend on how many *different* things were seen, which resampling with replacement cannot
    imitate: a resample holds only 63 % of the prompts. SE is too wide rather than too narrow (Efron and Stein, 1981).

    Raises:
        ValueError: fewer than two clusters.
    """
    n = len(leave_one_out)
    if n < 2:
        raise ValueError("one cluster has no spread: give at least two prompts")
    error = math.sqrt((n - 1) * float(np.var(np.asarray(leave_one_out, dtype=np.float64))))
    half = _student_quantile(confidence, n - 1) * error
    return Estimate(value, value - half, value + half, n, confidence)


def student_mean(values: Sequence[float], *, confidence: float = 0.95) -> Estimate:
    """Student's interval of a mean (W. S. Gosset, 1908): x̄ ± t_{n−1} s/√n.

    For a few independent runs, such as seeds, where a bootstrap has too little to draw from. It assumes that they are
    about normally distributed.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} values have no spread: give at least two runs")
    x = np.asarray(values, dtype=np.float64)
    half = _student_quantile(confidence, len(x) - 1) * float(x.std(ddof=1)) / math.sqrt(len(x))
    mean = float(x.mean())
    return Estimate(mean, mean - half, mean + half, len(x), confidence)


def _score_interval(p: float, n: float, confidence: float) -> tuple[float, float]:
    """Wilson's ends for a proportion of n units; n need not be whole."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def _clusters(sums: Sequence[float], sizes: Sequence[float]) -> tuple[Array, Array]:
    s, m = np.asarray(sums, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    if s.shape != m.shape or not len(s):
        raise ValueError(f"{len(s)} sums and {len(m)} sizes: need one of each a cluster, and at least one cluster")
    if not (m > 0).all():
        raise ValueError("a cluster without units: leave it out")
    return s, m


def _resampled_sums(columns_NC: Array, resamples: int, seed: int) -> Array:
    """Sums of each column over n rows drawn with replacement: (resamples, C).

    A few resamples at a time: 2000 of 10,000 rows at once would take 320 MB.
    """
    n = len(columns_NC)
    at_once = max(1, _DRAWS_AT_ONCE // n)
    generator = np.random.Generator(np.random.Philox(seed))
    parts = []
    for done in range(0, resamples, at_once):
        draws = generator.integers(0, n, (min(at_once, resamples - done), n))
        parts.append(np.stack([column[draws].sum(1) for column in columns_NC.T], 1))
    return np.concatenate(parts)


def _student_quantile(confidence: float, degrees: int) -> float:
    """t with P(|T| < t) = confidence: by bisection, beyond 1000 degrees by Fisher's expansion (exact to 1e-9)."""
    if degrees > 1000:
        z = NormalDist().inv_cdf(0.5 + confidence / 2)
        return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    return _bisected_quantile(confidence, degrees)


@lru_cache(maxsize=1024)
def _bisected_quantile(confidence: float, degrees: int) -> float:
    low, high = 0.0, 1.0
    while _within(high, degrees) < confidence:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < confidence else (low, middle)
    return (low + high) / 2


def _within(t: float, degrees: int) -> float:
    """P(|T| < t) for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    odd = degrees % 2
    term, total = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
    for k in range(2 + odd, degrees + 1, 2):
        total += term
        term *= (k - 1) / k * math.cos(angle) ** 2
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
