"""What is claimed of an experiment's outcome, and the rule that decides it from the records.

A claim names an effect of one seed (a difference, a ratio, a value) and where the effect should lie. Its interval over
seeds (Student's, 95 %; paired if two cells are compared, as all methods of a seed share rows and base model) decides:

    holds              the interval lies wholly where it was claimed
    does not hold      it lies wholly elsewhere; or, where nothing more than a margin was in question, wholly within it
    undecided here     otherwise, or with fewer than three seeds
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from grao.evaluation import Estimate

Verdict = Literal["holds", "does not hold", "undecided here"]
Kind = Literal["difference", "interaction", "value", "speed", "slope"]

FEWEST = 3
"""Fewest seeds for a verdict: an interval from two has 25 standard errors, and two can agree by chance."""


@dataclass(frozen=True)
class Claim:
    """A row of the claims table, or one row per combination of levels of `each`."""

    id: str
    claim: str
    """The claim in words."""
    source: str
    """Where the claim is made."""
    metric: str
    of: dict[str, str]
    """Axis → label of the claim's cell."""
    less: dict[str, str] = field(default_factory=dict)
    """The cell to compare with: only the axes that differ."""
    kind: Kind = "difference"
    """`difference`: metric(of) − metric(less). `interaction`: that difference at `at` less the one at `than`. `value`:
    metric(of). `speed`: steps that `of` needs to reach where `less` ends, over those that `less` needs. `slope`: of
    log metric(of) over log steps, along the levels of the axis `over`."""
    at: dict[str, str] = field(default_factory=dict)
    than: dict[str, str] = field(default_factory=dict)
    over: str | None = None
    """Axis of a `slope`."""
    above: float | None = None
    """The effect is claimed to be above this number …"""
    below: float | None = None
    """… or below this one …"""
    equal: float | None = None
    """… or no further from this one than `margin`. Exactly one of the three is given."""
    margin: float = 0.0
    """An effect whose whole interval is closer to the number than this is not one."""
    each: list[str] = field(default_factory=list)
    """Axes whose levels are tested separately."""
    unit: str = ""

    def __post_init__(self) -> None:
        if sum(bound is not None for bound in (self.above, self.below, self.equal)) != 1:
            raise ValueError(f"claim {self.id!r}: give exactly one of above, below and equal")
        if self.equal is not None and self.margin == 0:
            raise ValueError(f"claim {self.id!r}: equal needs a margin, or nothing could be equal")
        if (self.kind == "slope") != (self.over is not None):
            raise ValueError(f"claim {self.id!r}: `over` names the axis of a slope, and a slope needs it")
        if self.kind in ("difference", "interaction", "speed") and not self.less:
            raise ValueError(f"claim {self.id!r}: a {self.kind} needs `less`, the cell to compare with")
        if self.kind == "interaction" and not (self.at and self.than):
            raise ValueError(f"claim {self.id!r}: an interaction needs `at` and `than`")
        if self.margin < 0:
            raise ValueError(f"claim {self.id!r}: margin is {self.margin}; give 0 or more")

    def places(self) -> Iterator[dict[str, str]]:
        """Yield every set of labels of the claim."""
        yield from (self.of, self.less, self.at, self.than)

    @property
    def bound(self) -> float:
        """Return the number that the effect is compared with."""
        return next(bound for bound in (self.above, self.below, self.equal) if bound is not None)

    @property
    def rule(self) -> str:
        """Return the rule in words, for the table."""
        band = f"within ±{self.margin:g} of {self.bound:g}"
        if self.equal is not None:
            holds, fails = band, "outside that"
        else:
            side, other = ("above", "below") if self.above is not None else ("below", "above")
            holds = f"{side} {self.bound:g}"
            fails = f"{other} it" + (f", or wholly {band}" if self.margin else "")
        return (
            f"{self._effect()}. Holds: its 95 % interval over seeds lies wholly {holds}. Does not hold: wholly "
            f"{fails}. Else, or with fewer than {FEWEST} seeds: undecided here."
        )

    def verdict(self, effect: Estimate | None) -> Verdict:
        """Return the verdict of an effect's interval."""
        if effect is None or effect.n < FEWEST:
            return "undecided here"
        low, high = effect.low - self.bound, effect.high - self.bound
        within, beyond = -self.margin < low and high < self.margin, low > self.margin or high < -self.margin
        if self.equal is not None:
            holds, fails = within, beyond
        else:
            above, below = low > 0, high < 0
            holds, fails = (above, below or within) if self.above is not None else (below, above or within)
        return "holds" if holds else "does not hold" if fails else "undecided here"

    def _effect(self) -> str:
        of, less = _named(self.of), _named(self.less)
        if self.kind == "value":
            return f"{self.metric} of {of}"
        if self.kind == "speed":
            return f"steps until {of} reaches the {self.metric} that {less} ends at, over the steps of {less}"
        if self.kind == "slope":
            return f"slope of log {self.metric} of {of} over log steps, along {self.over}"
        difference = f"{self.metric} of {of} less that of {less}, paired by seed"
        if self.kind == "interaction":
            return f"({difference}) at {_named(self.at)} less the same at {_named(self.than)}"
        return difference


def _named(labels: dict[str, str]) -> str:
    return ", ".join(labels.values())
