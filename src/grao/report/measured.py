"""Measurements of one method in one setting: the common form of all records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grao.report.scales import is_number


@dataclass(frozen=True, slots=True)
class Interval95:
    """A number with its interval and count; each may be missing."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None

    @classmethod
    def read(cls, raw: Any) -> Interval95:
        """Read `{"value", "low", "high", "n"}`, a number or null. Values that are not finite are missing."""
        if not isinstance(raw, Mapping):
            return cls(raw if is_number(raw) else None)
        found = {key: raw[key] if is_number(raw.get(key)) else None for key in ("value", "low", "high", "n")}
        return cls(**found)


@dataclass(frozen=True, slots=True)
class Metric:
    """Label and unit of a number."""

    key: str
    label: str
    unit: str = ""
    better: str = "none"
    """`higher`, `lower` or `none`."""

    @property
    def axis(self) -> str:
        """Return the label of its axis: unit, and which way is better."""
        arrow = {"higher": "more is better", "lower": "less is better"}.get(self.better, "")
        return ", ".join(part for part in (self.unit, arrow) if part) or self.label


@dataclass(frozen=True, slots=True)
class Curve:
    """A line with a band, over seeds."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    x_label: str

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Curve:
        """Read points with finite x and value. A band with a gap is left out."""
        xs, values = list(raw.get("x") or ()), list(raw.get("value") or ())
        lows, highs = (list(raw.get(side) or ()) or [None] * len(xs) for side in ("low", "high"))
        points = [p for p in zip(xs, values, lows, highs, strict=False) if is_number(p[0]) and is_number(p[1])]
        banded = bool(points) and all(is_number(low) and is_number(high) for _, _, low, high in points)
        return cls(
            tuple(float(p[0]) for p in points),
            tuple(float(p[1]) for p in points),
            tuple(float(p[2]) for p in points) if banded else (),
            tuple(float(p[3]) for p in points) if banded else (),
            str(raw.get("x_label") or "step"),
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """A method in a setting, over seeds or prompts."""

    name: str
    """The method, which has a colour."""
    setting: str = ""
    """Other settings, such as "regime: rarely". Each setting has a panel."""
    axes: Mapping[str, Any] = field(default_factory=dict)
    n: int | None = None
    metrics: Mapping[str, Interval95] = field(default_factory=dict)
    by_category: Mapping[str, Mapping[str, Interval95]] = field(default_factory=dict)
    rewards: Mapping[str, float] = field(default_factory=dict)
    """Any of mean, variance, q25, q50, q75."""
    verdicts: tuple[float, float, float] | None = None
    """Wins, ties and losses against the references, as counts or shares."""
    curves: Mapping[str, Curve] = field(default_factory=dict)

    def get(self, metric: str) -> Interval95:
        """Return a metric, empty if it was not measured."""
        return self.metrics.get(metric, Interval95())


def settings_of(measured: Sequence[Measured]) -> list[str]:
    """Return the settings in order of appearance."""
    return list(dict.fromkeys(one.setting for one in measured))


def shown(value: Any) -> str:
    """Return a level of an axis as written in titles and tables."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_counts(raw: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Return wins, ties and losses of a record, or None if one is missing."""
    wins, ties, losses = (raw.get(key) for key in ("wins", "ties", "losses"))
    if is_number(wins) and is_number(ties) and is_number(losses):
        return int(wins), int(ties), int(losses)
    return None
