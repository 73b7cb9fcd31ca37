"""From numbers to positions, ticks and short texts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeGuard

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear map from domain to range: d0 ↦ r0, d1 ↦ r1."""

    d0: float
    d1: float
    r0: float
    r1: float

    def __call__(self, value: float) -> float:
        """Return the position of a value; outside the domain it lies outside the range."""
        return self.r0 + (value - self.d0) / (self.d1 - self.d0) * (self.r1 - self.r0)


def extent(
    values: Iterable[float | None], *, include: Iterable[float] = (), margin: float = 0.0
) -> tuple[float, float]:
    """Return smallest and largest finite value, widened by a share of their distance; never an empty interval.

    >>> extent([1.0, None, 3.0, float("nan")], margin=0.5)
    (0.0, 4.0)
    >>> extent([]), extent([2.0]), extent([0.0])
    ((0.0, 1.0), (1.0, 3.0), (-1.0, 1.0))
    """
    finite = [v for v in (*values, *include) if is_number(v)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    if low == high:
        spread = abs(low) / 2 or 1.0
        return low - spread, high + spread
    return low - margin * (high - low), high + margin * (high - low)


def domain_of(
    values: Iterable[float | None],
    bounds: Iterable[float | None],
    *,
    include: Iterable[float] = (),
    margin: float = 0.0,
) -> tuple[float, float]:
    """Return the extent of values and interval bounds; bounds count up to one spread of the values beyond them.

    With two seeds an interval can be twenty times as wide as the values, which must stay readable. Charts cut wider
    intervals and note it.

    >>> domain_of([1.0, 3.0], [0.5, 3.5]), domain_of([1.0, 3.0], [-50.0, 60.0])
    ((0.5, 3.5), (-1.0, 5.0))
    """
    low, high = extent(values, include=include)
    inside = [min(max(bound, 2 * low - high), 2 * high - low) for bound in bounds if is_number(bound)]
    return extent((low, high, *inside), margin=margin)


def is_number(value: object) -> TypeGuard[float]:
    """Return whether it is a finite number, and not a boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Return about `about` round numbers in [low, high], 1, 2 or 5 times a power of ten apart.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks(-1.3, 4.9)
    [0.0, 2.0, 4.0]
    """
    step = tick_step(low, high, about)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, last + 1)]


def tick_step(low: float, high: float, about: int = 4) -> float:
    """Return the distance of `ticks`."""
    rough = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    return min((power * factor for factor in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / rough)))


def tick_labels(places: list[float]) -> list[str]:
    """Return ticks with as many decimals as their distance needs.

    >>> tick_labels([-0.5, 0.0, 0.5]), tick_labels([0.0, 2000.0]), tick_labels([0.0, 2e-06])
    (['−0.5', '0', '0.5'], ['0', '2,000'], ['0', '2e−6'])
    >>> tick_labels([0.0, 5e8, 1e9, 1.5e9])
    ['0', '0.5 G', '1.0 G', '1.5 G']
    """
    if len(places) < 2:
        return [figures(place) for place in places]
    step = abs(places[1] - places[0])
    most = max(map(abs, places))
    if most < 1e-3:
        return [figures(place) for place in places]
    if most >= 1e6:
        size, letter = max(item for item in ((1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P")) if item[0] <= most)
        return [f"{text} {letter}" if text != "0" else text for text in tick_labels([p / size for p in places])]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return ["0" if place == 0 else _signed(f"{place:,.{decimals}f}") for place in places]


def figures(value: float | None, digits: int = 3) -> str:
    """Return a number with `digits` significant digits, or a dash.

    >>> figures(0.41256), figures(-12345.6), figures(3.0), figures(1.5e-7), figures(None)
    ('0.413', '−12,346', '3.00', '1.5e−7', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4 or size > 8:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return _signed(f"{mantissa}e{int(exponent)}")
    return _signed(f"{value:,.{max(0, digits - 1 - size)}f}")


def aligned(values: Iterable[float | None]) -> list[str]:
    """Return a column of numbers: the largest with three significant digits, the others with as many decimals.

    >>> aligned([0.0533, 0.547, None]), aligned([900.0, 12.34, -3.0]), aligned([0.0])
    (['0.053', '0.547', '–'], ['900', '12', '−3'], ['0'])
    """
    values = list(values)
    most = max((abs(value) for value in values if is_number(value)), default=0.0)
    if most == 0 or not 1e-4 <= most < 1e8:
        return [figures(value) for value in values]
    decimals = max(0, 2 - math.floor(math.log10(most)))
    return [_signed(f"{value:,.{decimals}f}") if is_number(value) else "–" for value in values]


def _signed(text: str) -> str:
    return text.replace("-", MINUS)
