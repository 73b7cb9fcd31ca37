"""Stacked areas over time: what adds to a sum stands above 0, what takes from it below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from grao.report.charts.chart import TEXT, Chart, Place, label, places, rule, x_axis, y_axis
from grao.report.charts.lines import Series, spread
from grao.report.colours import Styles
from grao.report.scales import Linear, extent, figures, tick_labels, ticks
from grao.report.svg import drawing, element, path, text_width


@dataclass(frozen=True, slots=True)
class StackedAreas(Chart):
    """The terms of a loss on both sides of 0, or shares that add up to 1; all series have the same x."""

    title: str
    x_label: str
    series: tuple[Series, ...]
    domain: tuple[float, float] | None = None
    """Of y. By default both stacks fit; shares have (0, 1)."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the terms."""
        return tuple(one.style_of or one.name for one in self.series)

    def draw(self, width: float, styles: Styles) -> Markup:
        """Draw the areas with their names at the right. See `Chart.draw`."""
        edges = [value for edges in stack(self.series) for edge in edges for value in edge]
        domain = self.domain or extent(edges, include=(0.0,), margin=0.04)
        height = min(320.0, 120 + width * 0.27)
        left = 12 + max((text_width(text, TEXT) for text in tick_labels(ticks(*domain, 4))), default=20.0)
        right = width - (12 + max((text_width(s.name, TEXT) for s in self.series), default=4.0))
        y = Linear(*domain, height - 40, 8.0)
        x = Linear(*extent(v for s in self.series for v in s.x), left, right)
        body: list[Markup] = []
        found: list[Place] = []
        middles = []
        for one, (above, up, below, down) in zip(self.series, stack(self.series), strict=True):
            fill = f"fill:{styles[one.style_of or one.name].paint}"
            for near, far in ((above, up), (below, down)):
                if near != far:
                    there = [(x(a), y(b)) for a, b in zip(one.x, far, strict=True)]
                    back = [(x(a), y(b)) for a, b in zip(one.x, near, strict=True)]
                    body.append(element("path", d=path(there + back[::-1], closed=True), class_="area", style=fill))
            centres = [(up[i] + above[i]) / 2 if v >= 0 else (down[i] + below[i]) / 2 for i, v in enumerate(one.y)]
            found += [(x(a), y(b), one.first_row + i) for i, (a, b) in enumerate(zip(one.x, centres, strict=True))]
            middles.append(y(centres[-1]) if centres else y(0.0))
        names = [
            label(right + 8, at, one.name, class_="end", paint=styles[one.style_of or one.name].paint)
            for one, at in zip(self.series, spread(middles, TEXT + 2, 8.0, height - 40), strict=True)
        ]
        told = "; ".join(f"{s.name} from {figures(s.y[0])} to {figures(s.y[-1])}" for s in self.series if s.y)
        described = f"Areas over {self.x_label}: {told}" if told else "no data"
        zero = rule(left, y(0.0), right, y(0.0), "zero")
        body = [y_axis(y, left, right), *body, zero, x_axis(x, height - 40, self.x_label), *names]
        return drawing(width, height, self.title, described, *body, places(found, by="x"))


def stack(series: Sequence[Series]) -> list[tuple[list[float], list[float], list[float], list[float]]]:
    """Return near and far edge of each area: of its positive part, stacked up from 0, then of its negative part, down.

    A term that changes its sign shrinks to nothing on one side and then grows on the other.

    >>> stack([Series("a", (0, 1), (2, -1)), Series("b", (0, 1), (1, -3))])
    [([0.0, 0.0], [2.0, 0.0], [0.0, 0.0], [0.0, -1.0]), ([2.0, 0.0], [3.0, 0.0], [0.0, -1.0], [0.0, -4.0])]
    """
    count = len(series[0].x) if series else 0
    above, below = [0.0] * count, [0.0] * count
    found = []
    for one in series:
        up = [edge + max(value, 0.0) for edge, value in zip(above, one.y, strict=True)]
        down = [edge + min(value, 0.0) for edge, value in zip(below, one.y, strict=True)]
        found.append((above, up, below, down))
        above, below = up, down
    return found
