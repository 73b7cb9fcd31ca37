"""Bars with intervals: one row per method, the number at its end."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from grao.report.charts.chart import TEXT, Chart, Place, label, marker, name_column, places, row_name, rule, x_axis
from grao.report.colours import Styles
from grao.report.scales import Linear, aligned, domain_of, figures, is_number
from grao.report.svg import drawing, element, join, text_width

ROW = 25.0


@dataclass(frozen=True, slots=True)
class Bar:
    """A value with its interval; each may be missing."""

    name: str
    """Label of the row; it has this name's colour unless `style_of` is given."""
    value: float | None
    low: float | None
    high: float | None
    row: int
    """Row in the table behind the figure."""
    style_of: str | None = None


@dataclass(frozen=True, slots=True)
class Bars(Chart):
    """Bars from 0; with `dots`, points around a line at 0 (for differences)."""

    title: str
    unit: str
    bars: tuple[Bar, ...]
    domain: tuple[float, float] | None = None
    """Shared by panels to compare; by default that of these bars."""
    dots: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the rows."""
        return tuple(bar.style_of or bar.name for bar in self.bars)

    def draw(self, width: float, styles: Styles) -> Markup:
        """See `Chart.draw`."""
        left = name_column((bar.name for bar in self.bars), width)
        texts = aligned(bar.value for bar in self.bars)
        right = width - 14 - 1.1 * max((text_width(text, TEXT) for text in texts), default=0.0)
        d0, d1 = self.domain or self.own_domain()
        x = Linear(d0, d1, left, right)
        bottom = 6 + ROW * len(self.bars)
        body = [x_axis(x, bottom, self.unit, about=4 if right - left > 150 else 3, top=4.0)]
        found: list[Place] = []
        for place, (bar, text) in enumerate(zip(self.bars, texts, strict=True)):
            y = 6 + ROW * (place + 0.5)
            body.append(self._row(bar, x, y, left, width, styles))
            if is_number(bar.value):
                body.append(label(width - 2, y, text, class_="value", anchor="end"))
            if is_number(bar.value):
                found.append((x(bar.value), y, bar.row))
        return drawing(width, bottom + 38, self.title, self.describe(), *body, places(found, by="y"))

    def own_domain(self) -> tuple[float, float]:
        """Return the domain: 0, every value, and intervals unless they are much wider."""
        bounds = [bound for bar in self.bars for bound in (bar.low, bar.high)]
        return domain_of([bar.value for bar in self.bars], bounds, include=(0.0,), margin=0.02)

    @property
    def is_cut(self) -> bool:
        """Return whether an interval is wider than the panel."""
        d0, d1 = self.domain or self.own_domain()
        bounds = (bound for bar in self.bars for bound in (bar.low, bar.high))
        return any(is_number(bound) and not d0 <= bound <= d1 for bound in bounds)

    def describe(self) -> str:
        """Return each name with its value, in words."""
        return "; ".join(f"{bar.name} {figures(bar.value)}" for bar in self.bars) or "no data"

    def _row(self, bar: Bar, x: Linear, y: float, left: float, width: float, styles: Styles) -> Markup:
        style = styles[bar.style_of or bar.name]
        parts = [row_name(bar.name, left - 8, y)]
        if not is_number(bar.value):
            return join((*parts, label(x(0.0) + 6, y, "no value", class_="tick")))
        a, b = sorted((x(0.0), x(bar.value)))
        if not self.dots:
            fill = f"fill:{style.paint}"
            parts.append(element("rect", x=a, y=y - 8, width=max(b - a, 1.0), height=16.0, class_="bar", style=fill))
        if is_number(bar.low) and is_number(bar.high):
            paint = style.paint if self.dots else ""
            low, high = max(bar.low, x.d0), min(bar.high, x.d1)
            parts.append(rule(x(low), y, x(high), y, "whisker", paint))
            ends = [end for end in (bar.low, bar.high) if x.d0 <= end <= x.d1]
            parts += [rule(x(end), y - 3, x(end), y + 3, "whisker", paint) for end in ends]
        if self.dots:
            parts.append(marker(style, x(bar.value), y))
        return join(parts)
