"""Confidence intervals: no point estimate without its n and its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


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
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return Estimate(p, max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale), n, confidence)


def bootstrap_mean(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Percentile bootstrap of a mean (B. Efron, 1979): resample the items with replacement.

    For a paired comparison of two models give the differences item by item.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("cannot estimate the mean of no values")
    x = np.asarray(values, dtype=np.float64)
    draws = np.random.Generator(np.random.Philox(seed)).integers(0, len(x), (resamples, len(x)))
    means = x[draws].mean(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(x.mean()), float(low), float(high), len(x), confidence)


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


def _student_quantile(confidence: float, degrees: int) -> float:
    """t with P(|T| < t) = confidence, by bisection."""
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
