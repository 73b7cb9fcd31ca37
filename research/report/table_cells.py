"""Cells of the claims table that bring their own markup: a small interval, a verdict, a text that unfolds."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from grao.report.charts.chart import rule
from grao.report.scales import Linear, figures, is_number
from grao.report.svg import drawing, element, printable

WIDTH, HEIGHT = 130.0, 20.0
TONES = {"holds": ("yes", "✓"), "does not hold": ("no", "✗")}
"""Verdict → its class in the style sheet, and its sign; any other is open."""


@dataclass(frozen=True, slots=True)
class IntervalCell:
    """A number with its interval: a point with whiskers, and a line at 0. Empty without a value."""

    value: float | None
    low: float | None
    high: float | None
    domain: tuple[float, float] = (-1.0, 1.0)

    def __html__(self) -> Markup:
        """Draw it."""
        if not is_number(self.value):
            return Markup("")
        x, middle = Linear(*self.domain, 4.0, WIDTH - 4), HEIGHT / 2
        body = [rule(x(0.0), 1, x(0.0), HEIGHT - 1, "zero")]
        description = figures(self.value)
        if is_number(self.low) and is_number(self.high):
            low, high = max(self.low, self.domain[0]), min(self.high, self.domain[1])
            body.append(rule(x(low), middle, x(high), middle, "whisker"))
            description = f"{description}, interval {figures(self.low)} to {figures(self.high)}"
        body.append(element("circle", cx=x(self.value), cy=middle, r=4.0, class_="dot"))
        return drawing(WIDTH, HEIGHT, "effect", description, *body)


@dataclass(frozen=True, slots=True)
class VerdictCell:
    """Whether a claim holds."""

    text: str

    def __html__(self) -> Markup:
        """Write the verdict with its sign and colour."""
        tone, sign = TONES.get(self.text, ("open", "?"))
        return Markup('<span class="verdict {}">{} {}</span>').format(tone, sign, printable(self.text))


@dataclass(frozen=True, slots=True)
class UnfoldingCell:
    """A text that unfolds a second, smaller one."""

    text: str
    below: str

    def __html__(self) -> Markup:
        """Write the text, folded only if there is something below it."""
        if not self.below:
            return Markup("{}").format(printable(self.text))
        folded = Markup("<details><summary>{}</summary><small>{}</small></details>")
        return folded.format(printable(self.text), printable(self.below))
