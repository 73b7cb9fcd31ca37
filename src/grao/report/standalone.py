"""A figure as one SVG file: title, legend and panels in light colours, for papers and slides."""

from __future__ import annotations

import re

from markupsafe import Markup

from grao.report.charts import legend_entry
from grao.report.charts.chart import label
from grao.report.colours import LIGHT, Styles
from grao.report.section import Figure
from grao.report.svg import asset, element, join, text_width

PANEL_WIDTH, WIDE_WIDTH = 330.0, 760.0
COLUMNS = 3
GAP = 28.0
TITLE = 17.0
_SIZE = re.compile(r'width="([\d.]+)" height="([\d.]+)"')
_PLACES = re.compile(r'<g class="places"[^>]*/>')
_VARIABLE = re.compile(r"var\(--([a-z0-9-]+)\)")


def standalone(figure: Figure, styles: Styles) -> Markup:
    """Return a figure that needs no page and no style sheet, and has no CSS variables, which many programs lack."""
    width = WIDE_WIDTH if figure.wide else PANEL_WIDTH
    drawn = [(panel.title, panel.chart.draw(width, styles)) for panel in figure.panels]
    columns = 1 if figure.wide else min(COLUMNS, len(drawn))
    whole = GAP + columns * (width + GAP)
    body = [label(GAP, 26.0, figure.title, class_="figure-title")]
    y = 46.0
    if figure.legend:
        entries, y = _legend(figure.legend, styles, whole, y)
        body.append(entries)
    for start in range(0, len(drawn), columns):
        tallest = 0.0
        for column, (title, chart) in enumerate(drawn[start : start + columns]):
            x = GAP + column * (width + GAP)
            match = _SIZE.search(chart)
            assert match is not None, "every drawing has a size"
            tallest = max(tallest, float(match[2]))
            if len(drawn) > 1:
                body.append(label(x, y + 8, title, class_="panel-title"))
            body.append(_at(x, y + 20, chart))
        y += tallest + 20 + GAP / 2
    style = asset("charts.css")
    paper = element("rect", width=whole, height=y + 8, style="fill:var(--paper)")
    picture = element(
        "svg",
        element("title", figure.title),
        element("style", Markup(style)),
        paper,
        *body,
        viewBox=f"0 0 {whole:.0f} {y + 8:.0f}",
        width=whole,
        height=y + 8,
        xmlns="http://www.w3.org/2000/svg",
    )
    return Markup(_VARIABLE.sub(lambda match: LIGHT.get(match[1], match[0]), _PLACES.sub("", picture)))


def _at(x: float, y: float, picture: Markup) -> Markup:
    return element("g", picture, transform=f"translate({x:.0f} {y:.0f})")


def _legend(names: tuple[str, ...], styles: Styles, whole: float, y: float) -> tuple[Markup, float]:
    parts, x = [], GAP
    for name in names:
        wide = 34 + text_width(name, 12.0) + 16
        if x + wide > whole and x > GAP:
            x, y = GAP, y + 20
        parts.append(_at(x, y, legend_entry(name, styles)))
        parts.append(label(x + 32, y + 6, name, class_="end"))
        x += wide
    return join(parts), y + 26
