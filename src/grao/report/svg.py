"""Write SVG: elements as escaped text, so that data cannot become markup."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files

from markupsafe import Markup, escape

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")

CHARACTER = 0.63
"""Width of most characters per font size, in the widest common font (DejaVu Sans)."""
WIDTHS = {"m": 0.98, "M": 0.87, "w": 0.83, "W": 1.0, **dict.fromkeys("ABCDEFGHKLNOPQRSTUVXYZ→−", 0.76)}
WIDTHS |= dict.fromkeys("fijltrI.,:;|()[]' ", 0.4)
"""Characters with other widths."""


def asset(name: str) -> str:
    """Return the text of a file in `grao/report/assets`."""
    return files("grao.report").joinpath("assets", name).read_text(encoding="utf-8")


def printable(text: object) -> str:
    """Replace what XML does not allow (control characters, half surrogate pairs) by U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", str(text))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return an element. `class_` is class, `stroke_width` is stroke-width; attributes of None are left out.

    >>> element("text", "a < b", x=1.25, class_="tick")
    Markup('<text x="1.2" class="tick">a &lt; b</text>')
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    inside = "".join(child if isinstance(child, Markup) else escape(printable(child)) for child in children)
    return Markup(f"<{tag}{written}>{inside}</{tag}>" if inside else f"<{tag}{written}/>")


def join(parts: Iterable[Markup]) -> Markup:
    """Return elements one after another."""
    return Markup("").join(parts)


def path(points: list[tuple[float, float]], *, closed: bool = False) -> str:
    """Return the `d` of a line through points."""
    steps = " ".join(f"{coordinate(x)},{coordinate(y)}" for x, y in points)
    return f"M{steps}{'Z' if closed else ''}"


def coordinate(value: float) -> str:
    """Return a length in SVG units, to a tenth.

    >>> coordinate(12.0), coordinate(-0.04), coordinate(3.25)
    ('12', '0', '3.2')
    """
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def text_width(text: str, size: float) -> float:
    """Return an upper estimate of a text's width: the reader's font is unknown."""
    return size * sum(WIDTHS.get(character, CHARACTER) for character in text)


def drawing(width: float, height: float, title: str, description: str, *body: Markup) -> Markup:
    """Return a picture with a title and a description for screen readers."""
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        *body,
        viewBox=f"0 0 {coordinate(width)} {coordinate(height)}",
        width=width,
        height=height,
        role="img",
        aria_label=f"{title}. {description}",
        xmlns="http://www.w3.org/2000/svg",
    )


def _value(value: object) -> Markup:
    return escape(coordinate(value) if isinstance(value, float) else printable(value))
