"""A number with its interval, small enough for a table's cell."""

from __future__ import annotations

from markupsafe import Markup

from grao.report.charts.chart import rule
from grao.report.scales import Linear, figures, is_number
from grao.report.section import Interval
from grao.report.svg import drawing, element

WIDTH, HEIGHT = 130.0, 20.0


def interval_picture(shown: Interval) -> Markup:
    """A point with whiskers on a line at 0; empty where there is no value."""
    if not is_number(shown.value):
        return Markup("")
    x, middle = Linear(*shown.domain, 4.0, WIDTH - 4), HEIGHT / 2
    body = [rule(x(0.0), 1, x(0.0), HEIGHT - 1, "zero")]
    said = figures(shown.value)
    if is_number(shown.low) and is_number(shown.high):
        low, high = max(shown.low, shown.domain[0]), min(shown.high, shown.domain[1])
        body.append(rule(x(low), middle, x(high), middle, "whisker"))
        said = f"{said}, interval {figures(shown.low)} to {figures(shown.high)}"
    body.append(element("circle", cx=x(shown.value), cy=middle, r=4.0, class_="dot"))
    return drawing(WIDTH, HEIGHT, "effect", said, *body)
