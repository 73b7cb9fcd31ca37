"""One entry of a legend: a stroke and a point as they look in the chart."""

from __future__ import annotations

from markupsafe import Markup

from grao.report.charts.chart import marker
from grao.report.colours import Styles
from grao.report.svg import element

WIDTH, HEIGHT = 26.0, 12.0


def legend_entry(name: str, styles: Styles) -> Markup:
    """The picture beside a name; the name itself is text of the page."""
    style = styles[name]
    stroke = element(
        "line",
        x1=1.0,
        y1=HEIGHT / 2,
        x2=WIDTH - 1,
        y2=HEIGHT / 2,
        class_="line",
        stroke_dasharray=style.dash or None,
        style=f"stroke:{style.paint}",
    )
    return element(
        "svg",
        stroke,
        marker(style, WIDTH / 2, HEIGHT / 2),
        viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
        width=WIDTH,
        height=HEIGHT,
        aria_hidden="true",
        xmlns="http://www.w3.org/2000/svg",
    )
