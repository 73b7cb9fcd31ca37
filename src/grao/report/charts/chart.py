"""What charts share: their base class, axes, labels, markers, and a legend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from grao.report.colours import Style, Styles
from grao.report.scales import Linear, tick_labels, ticks
from grao.report.svg import CHARACTER, element, join, text_width

TEXT = 11.0
"""Font size in a chart, in the units of its width: a chart is drawn at the width it is shown at."""


class Chart:
    """Base of all charts: a frozen dataclass of what it shows, which can be drawn at any width."""

    title: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are drawn in their own colours: methods, or terms of a loss."""
        return ()

    @property
    def is_cut(self) -> bool:
        """Whether an interval is wider than the chart, so that only a part is drawn."""
        return False

    def draw(self, width: float, styles: Styles) -> Markup:
        """Return the SVG: `width` wide, and as high as it needs."""
        raise NotImplementedError


Place = tuple[float, float, int]
"""x, y, and the row in the table behind the figure."""


def places(found: Sequence[Place], *, by: str = "xy") -> Markup:
    """Return the points for the pointer, which reads out the nearest one: `by` x or y first, or by distance."""
    written = " ".join(f"{x:.0f},{y:.0f},{row}" for x, y, row in found)
    return element("g", class_="places", data_by=by, data_points=written)


def label(x: float, y: float, text: str, *, class_: str = "tick", anchor: str = "start", paint: str = "") -> Markup:
    """Return a line of text; y is its middle."""
    return element(
        "text",
        text,
        x=x,
        y=y + TEXT * 0.34,
        class_=class_,
        text_anchor=None if anchor == "start" else anchor,
        style=f"fill:{paint}" if paint else None,
    )


def name_column(names: Iterable[str], width: float) -> float:
    """Return the width of the names of rows: that of the longest, and two fifths of the chart at most."""
    return min(0.4 * width, 10 + max((text_width(name, TEXT) for name in names), default=0.0))


def row_name(name: str, x: float, y: float) -> Markup:
    """Return the name of a row, ending at x; in two lines, or cut, if it is too long."""
    lines = [fitted(line, x) for line in halved(name)] if text_width(name, TEXT) > x else [name]
    first = y - 5.75 * (len(lines) - 1)
    return join(label(x, first + 11.5 * i, line, class_="name", anchor="end") for i, line in enumerate(lines))


def halved(text: str) -> list[str]:
    """Return two lines, divided at the space next to the middle, or one line without a space.

    >>> halved("split and clamp (recommended)"), halved("one")
    (['split and clamp', '(recommended)'], ['one'])
    """
    spaces = [place for place, sign in enumerate(text) if sign == " "]
    if not spaces:
        return [text]
    middle = min(spaces, key=lambda place: abs(place - len(text) / 2))
    return [text[:middle], text[middle + 1 :]]


def fitted(text: str, width: float) -> str:
    """Return as much of the text as fits."""
    room = int(width / (CHARACTER * TEXT))
    return text if len(text) <= room else f"{text[: max(room - 1, 1)]}…"


def rule(x1: float, y1: float, x2: float, y2: float, class_: str, paint: str = "") -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_, style=f"stroke:{paint}" if paint else None)


def y_axis(y: Linear, left: float, right: float, about: int = 4) -> Markup:
    """Return faint lines across with their numbers at the left, and a stronger line at 0."""
    marks = ticks(min(y.d0, y.d1), max(y.d0, y.d1), about)
    return join(
        join(
            (
                rule(left, y(mark), right, y(mark), "zero" if mark == 0 else "grid"),
                label(left - 6, y(mark), text, anchor="end"),
            )
        )
        for mark, text in zip(marks, tick_labels(marks), strict=True)
    )


def x_axis(x: Linear, bottom: float, title: str, about: int = 4, *, top: float | None = None) -> Markup:
    """Return numbers below and the axis title; `top` adds faint lines up to there."""
    marks = ticks(x.d0, x.d1, about)
    numbers = [
        join(
            (
                rule(x(mark), top if top is not None else bottom, x(mark), bottom + 4, _across(mark, top)),
                label(x(mark), bottom + 13, text, anchor="middle"),
            )
        )
        for mark, text in zip(marks, tick_labels(marks), strict=True)
    ]
    middle = (x.r0 + x.r1) / 2
    return join((*numbers, label(middle, bottom + 29, title, class_="axis-title", anchor="middle")))


def _across(mark: float, top: float | None) -> str:
    if top is None:
        return "stroke"
    return "zero" if mark == 0 else "grid"


def marker(style: Style, x: float, y: float, size: float = 4.0) -> Markup:
    """Return a point in the shape and colour of its method."""
    paint = f"fill:{style.paint}"
    if style.marker == "circle":
        return element("circle", cx=x, cy=y, r=size, class_="marker", style=paint)
    if style.marker == "square":
        return element(
            "rect",
            x=x - size * 0.9,
            y=y - size * 0.9,
            width=size * 1.8,
            height=size * 1.8,
            class_="marker",
            style=paint,
        )
    corners = {
        "triangle": [(x, y - size * 1.2), (x + size * 1.1, y + size * 0.9), (x - size * 1.1, y + size * 0.9)],
        "diamond": [(x, y - size * 1.3), (x + size * 1.1, y), (x, y + size * 1.3), (x - size * 1.1, y)],
    }[style.marker]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
    return element("polygon", points=points, class_="marker", style=paint)


def legend_entry(name: str, styles: Styles, width: float = 26.0, height: float = 12.0) -> Markup:
    """Return the picture beside a name in a legend: a line and a marker as in the chart."""
    style, middle = styles[name], height / 2
    stroke = element(
        "line",
        x1=1.0,
        y1=middle,
        x2=width - 1,
        y2=middle,
        class_="line",
        stroke_dasharray=style.dash or None,
        style=f"stroke:{style.paint}",
    )
    return element(
        "svg",
        stroke,
        marker(style, width / 2, middle),
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=width,
        height=height,
        aria_hidden="true",
        xmlns="http://www.w3.org/2000/svg",
    )
