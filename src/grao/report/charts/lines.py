"""Lines over time with bands, and faint lines for values before smoothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from grao.report.charts.chart import TEXT, Chart, Place, label, marker, places, x_axis, y_axis
from grao.report.colours import Style, Styles
from grao.report.scales import Linear, domain_of, extent, figures, tick_labels, ticks
from grao.report.svg import drawing, element, join, path, text_width

WIDE = 600.0
"""From this width on all lines have labels at their ends; below, only up to four short ones."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line. All values are finite."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    """Of the band, one per point; empty for no band."""
    high: tuple[float, ...] = ()
    raw: tuple[float, ...] = ()
    """Values before smoothing, drawn faint; empty for none."""
    first_row: int = 0
    """First row of its points in the table behind the figure."""
    style_of: str | None = None
    """Name whose colour it has, if not its own."""


@dataclass(frozen=True, slots=True)
class Lines(Chart):
    """Lines on common axes."""

    title: str
    x_label: str
    series: tuple[Series, ...]
    domain: tuple[float, float] | None = None
    """Of y; by default lines and bands fit."""
    labelled: bool = True
    """Whether lines may have labels; otherwise a legend stands above."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the lines."""
        return tuple(one.style_of or one.name for one in self.series)

    def draw(self, width: float, styles: Styles) -> Markup:
        """See `Chart.draw`."""
        height = min(320.0, 120 + width * 0.27)
        names = self._end_names(width)
        y_domain = self.domain or self._y_domain()
        marks = ticks(*y_domain, 4)
        left = 12 + max((text_width(text, TEXT) for text in tick_labels(marks)), default=20.0)
        right = width - (12 + max((text_width(name, TEXT) for name in names), default=2.0))
        y = Linear(*y_domain, height - 40, 8.0)
        x = Linear(*extent(v for s in self.series for v in s.x), left, right)
        drawn = [s for s in self.series if s.x]
        body = [y_axis(y, left, right), x_axis(x, height - 40, self.x_label)]
        bands = sum(bool(s.low) for s in drawn)
        body += [_band(s, x, y, _style(s, styles), min(0.16, 0.5 / bands)) for s in drawn if s.low]
        body += [_line(s, s.raw, x, y, _style(s, styles), "line raw") for s in drawn if s.raw]
        body += [_line(s, s.y, x, y, _style(s, styles), "line") for s in drawn]
        if len(drawn) > 1:
            body += [marker(_style(s, styles), x(s.x[-1]), y(s.y[-1]), 3.2) for s in drawn]
        if names:
            body.append(_end_labels(drawn, x, y, right + 8, styles))
        found: list[Place] = [
            (x(a), y(b), s.first_row + i) for s in drawn for i, (a, b) in enumerate(zip(s.x, s.y, strict=True))
        ]
        return drawing(width, height, self.title, self.describe(), *body, places(found, by="x"))

    def describe(self) -> str:
        """Return where each line starts and ends, in words."""
        told = [f"{s.name} from {figures(s.y[0])} to {figures(s.y[-1])}" for s in self.series if s.y]
        return f"Lines over {self.x_label}: {'; '.join(told)}" if told else "no data"

    def _end_names(self, width: float) -> list[str]:
        names = [s.name for s in self.series if s.x]
        few = 1 < len(names) <= 4 and max(map(len, names)) <= 14
        return names if self.labelled and len(names) > 1 and (width >= WIDE or few) else []

    @property
    def is_cut(self) -> bool:
        """Return whether a band is wider than the panel."""
        d0, d1 = self.domain or self._y_domain()
        return any(not d0 <= bound <= d1 for s in self.series for bound in (*s.low, *s.high))

    def _y_domain(self) -> tuple[float, float]:
        values = [value for s in self.series for value in (*s.y, *s.raw)]
        return domain_of(values, [bound for s in self.series for bound in (*s.low, *s.high)], margin=0.05)


def _style(series: Series, styles: Styles) -> Style:
    return styles[series.style_of or series.name]


def _line(series: Series, values: Sequence[float], x: Linear, y: Linear, style: Style, class_: str) -> Markup:
    points = [(x(a), y(b)) for a, b in zip(series.x, values, strict=True)]
    if len(points) == 1:
        return marker(style, *points[0])
    dash = style.dash if class_ == "line" else ""
    return element("path", d=path(points), class_=class_, stroke_dasharray=dash or None, style=f"stroke:{style.paint}")


def _band(series: Series, x: Linear, y: Linear, style: Style, opacity: float) -> Markup:
    """Return a band; `opacity` is lower for many bands, so that lines stay visible."""
    there = [(x(a), y(min(b, y.d1))) for a, b in zip(series.x, series.high, strict=True)]
    back = [(x(a), y(max(b, y.d0))) for a, b in zip(series.x, series.low, strict=True)]
    return element(
        "path",
        d=path(there + back[::-1], closed=True),
        class_="band",
        style=f"fill:{style.paint};opacity:{opacity:.2f}",
    )


def _end_labels(drawn: Sequence[Series], x: Linear, y: Linear, at: float, styles: Styles) -> Markup:
    """Return names at the ends of lines, moved apart where they would touch."""
    placed = spread([y(s.y[-1]) for s in drawn], TEXT + 2, min(y.r0, y.r1), max(y.r0, y.r1))
    return join(
        label(at, place, s.name, class_="end", paint=_style(s, styles).paint)
        for s, place in zip(drawn, placed, strict=True)
    )


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions at least `gap` apart, near the wanted ones, in their order, and in [low, high] if they fit.

    >>> spread([10, 11, 50], 10, 0, 100)
    [10.0, 20.0, 50.0]
    >>> spread([98, 99], 10, 0, 100)
    [90.0, 100.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    found = [float(value) for value in wanted]
    edge = -float("inf")
    for i in order:
        found[i] = edge = max(float(wanted[i]), edge + gap, float(low))
    edge = float(high) + gap
    for i in reversed(order):
        found[i] = edge = min(found[i], edge - gap)
    return found
