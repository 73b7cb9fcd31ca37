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
