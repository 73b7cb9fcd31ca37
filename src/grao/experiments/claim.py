"""What is claimed of an experiment's outcome, and the rule by which its records decide. Nothing here is an opinion.

A claim names an effect of one seed (a difference, a ratio, a value) and where the effect should lie. Its interval over
seeds (Student's, 95 %, paired where two cells are compared: a seed is a world that all methods share) decides:

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
Kind = Literal["difference", "interaction", "value", "speed"]

FEWEST = 3
"""Seeds without which nothing is decided: two have an interval of 25 standard errors, and can agree by chance."""


@dataclass(frozen=True)
class Claim:
    """One row of the claims table (one for each combination of levels of `each`)."""

    id: str
    claim: str
    """In words."""
    source: str
    """Where it is made."""
    metric: str
    of: dict[str, str]
    """Axis → label of the cell that the claim is about."""
    less: dict[str, str] = field(default_factory=dict)
    """The cell that it is held against; only the axes that differ."""
    kind: Kind = "difference"
    """`difference`: metric(of) − metric(less). `interaction`: that difference at `at` less the one at `than`. `value`:
    metric(of). `speed`: steps that `of` needs to reach where `less` ends, over those that `less` needs."""
    at: dict[str, str] = field(default_factory=dict)
    than: dict[str, str] = field(default_factory=dict)
    above: float | None = None
    """The effect is claimed to be above this number …"""
    below: float | None = None
    """… or below this one. Exactly one of the two is given."""
    margin: float = 0.0
    """An effect whose whole interval is closer to the number than this is none."""
    each: list[str] = field(default_factory=list)
    """Axes at each of whose levels the claim is tested by itself."""
    unit: str = ""

    def __post_init__(self) -> None:
        if (self.above is None) == (self.below is None):
            raise ValueError(f"claim {self.id!r}: give exactly one of above and below")
        if self.kind in ("difference", "interaction", "speed") and not self.less:
            raise ValueError(f"claim {self.id!r}: a {self.kind} needs `less`, the cell that it is held against")
        if self.kind == "interaction" and not (self.at and self.than):
            raise ValueError(f"claim {self.id!r}: an interaction needs `at` and `than`")
        if self.margin < 0:
            raise ValueError(f"claim {self.id!r}: margin is {self.margin}; give 0 or more")

    def places(self) -> Iterator[dict[str, str]]:
        """Every set of labels it names."""
        yield from (self.of, self.less, self.at, self.than)

    @property
    def bound(self) -> float:
        """The number that the effect is held against."""
        return self.above if self.above is not None else float(self.below or 0.0)

    @property
    def rule(self) -> str:
        """In words, for the table."""
        side, other = ("above", "below") if self.above is not None else ("below", "above")
        none = f", or wholly within ±{self.margin:g} of it" if self.margin else ""
        return (
            f"{self._effect()}. Holds: its 95 % interval over seeds lies wholly {side} {self.bound:g}. Does not hold: "
            f"wholly {other} it{none}. Else, or with fewer than {FEWEST} seeds, undecided."
        )

    def verdict(self, effect: Estimate | None) -> Verdict:
        """What an effect's interval says of the claim."""
        if effect is None or effect.n < FEWEST:
            return "undecided here"
        inside, outside = effect.low > self.bound, effect.high < self.bound
        if self.above is None:
            inside, outside = outside, inside
        if inside:
            return "holds"
        none = self.bound - self.margin < effect.low and effect.high < self.bound + self.margin
        return "does not hold" if outside or none else "undecided here"

    def _effect(self) -> str:
        of, less = _named(self.of), _named(self.less)
        if self.kind == "value":
            return f"{self.metric} of {of}"
        if self.kind == "speed":
            return f"steps until {of} reaches the {self.metric} that {less} ends at, over the steps of {less}"
        difference = f"{self.metric} of {of} less that of {less}, paired by seed"
        if self.kind == "interaction":
            return f"({difference}) at {_named(self.at)} less the same at {_named(self.than)}"
        return difference


def _named(labels: dict[str, str]) -> str:
    return ", ".join(labels.values())
