"""Charts: what is drawn where. Oracles: positions worked by hand or read back through the axis, and identities."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest

from grao.report.charts import (
    Bar,
    Bars,
    Chart,
    Lines,
    Point,
    Quartiles,
    Scatter,
    Series,
    Spread,
    StackedAreas,
    Verdicts,
)
from grao.report.charts.areas import stack
from grao.report.charts.lines import spread
from grao.report.charts.scatter import frontier
from grao.report.colours import Styles
from grao.report.svg import text_width

SVG = "{http://www.w3.org/2000/svg}"
VALUES = {"a": 2.0, "b": -1.0, "c": 4.0}
ABC = tuple(Bar(name, value, value - 1, value + 1, row) for row, (name, value) in enumerate(VALUES.items()))
UP = Series("up", (0, 1, 2), (0, 1, 2), first_row=5)
PART = Series("part", (0, 1, 2), (0.5, 0.25, 0), first_row=5)
DOWN = Series("down", (0, 1, 2), (2, 1, -2), first_row=8)

CHARTS: list[Chart] = [
    Bars("bars", "points", ABC),
    Bars("dots", "points", ABC, dots=True),
    Lines("lines", "step", (UP, DOWN)),
    StackedAreas("areas", "step", (UP, DOWN)),
    StackedAreas("shares", "step", (PART, PART), (0.0, 1.0)),
    Scatter("scatter", "KL", "score", (Point("a", 0, 1, 0), Point("b", 2, 3, 1, 1, 3, 2, 4))),
    Verdicts("verdicts", (("a", 1, 2, 3), ("b", 0, 0, 0))),
    Quartiles("quartiles", "points", (Spread("a", 1, 2, 0, 1, 2, 0),)),
]
EMPTY: list[Chart] = [
    Bars("bars", "points", ()),
    Lines("lines", "step", ()),
    Lines("one point", "step", (Series("a", (3,), (1,)),)),
    StackedAreas("areas", "step", ()),
    Scatter("scatter", "KL", "score", ()),
    Verdicts("verdicts", ()),
    Quartiles("quartiles", "points", ()),
    Bars("missing", "points", (Bar("a", None, None, None, 0), Bar("b", float("nan"), 0, 1, 1))),
    Bars("alike", "points", (Bar("a", 0.0, 0.0, 0.0, 0),)),
]


def drawn(chart: Chart, width: float = 400) -> ElementTree.Element:
    return ElementTree.fromstring(chart.draw(width, Styles(chart.names)))


def rows_in(svg: ElementTree.Element) -> list[int]:
    group = next(node for node in svg.iter() if node.get("class") == "places")
    return [int(place.split(",")[2]) for place in (group.get("data-points") or "").split()]


def numbers(svg: ElementTree.Element) -> list[float]:
    """Every coordinate in the drawing."""
    found: list[float] = []
    for node in svg.iter():
        for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "d", "points"):
            found += [float(n) for n in re.findall(r"-?[\d.]+", node.get(name) or "")]
    return found


@pytest.mark.parametrize("chart", CHARTS + EMPTY, ids=lambda chart: chart.title)
@pytest.mark.parametrize("width", [330, 1040])
def test_every_chart_is_drawn_inside_its_width(chart: Chart, width: float) -> None:
    """Oracle: the view box: no coordinate lies outside (names may, by a little); XML that a parser reads."""
    svg = drawn(chart, width)
    high = float(svg.attrib["viewBox"].split()[3])
    assert all(-0.1 <= n <= max(width, high) + 0.1 for n in numbers(svg)), max(numbers(svg))
    assert "nan" not in ElementTree.tostring(svg, encoding="unicode").lower()


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.title)
def test_every_value_has_a_place_and_words(chart: Chart) -> None:
    """Oracle: rows of the table, in order and once each; the description says more than "no data"."""
    rows = rows_in(drawn(chart))
    expected: dict[str, list[int]] = {"lines": [5, 6, 7, 8, 9, 10], "shares": [5, 6, 7, 5, 6, 7]}
    expected |= {"areas": expected["lines"], "quartiles": [0], "bars": [0, 1, 2], "dots": [0, 1, 2]}
    assert rows == expected.get(chart.title, [0, 1])  # type: ignore[attr-defined]
    description = drawn(chart).find(f"{SVG}desc")
    assert description is not None
    assert description.text != "no data"


def test_bars_start_at_zero_and_end_at_their_values() -> None:
    """Oracle: the bars' edges, read back on the scale of the ticks 0 and 4, are 0 and the values."""
    svg = drawn(Bars("bars", "points", ABC), 500)
    at = {label.text: float(label.attrib["x"]) for label in svg.iter(f"{SVG}text") if label.get("class") == "tick"}
    scale = (at["4"] - at["0"]) / 4
    edges = []
    for bar in (node for node in svg.iter(f"{SVG}rect") if node.get("class") == "bar"):
        left, width = float(bar.attrib["x"]), float(bar.attrib["width"])
        edges.append((round((left - at["0"]) / scale, 1), round((left + width - at["0"]) / scale, 1)))
    assert edges == [(0, 2), (-1, 0), (0, 4)]
    whiskers = [n for n in svg.iter(f"{SVG}line") if n.get("class") == "whisker" and n.attrib["y1"] == n.attrib["y2"]]
    reach = [tuple(round((float(n.attrib[end]) - at["0"]) / scale, 1) for end in ("x1", "x2")) for n in whiskers]
    assert reach == [(1, 3), (-2, 0), (3, 5)]


def test_intervals_too_wide_are_cut_and_said_to_be() -> None:
    """Oracle: values 0 to 2 span 2, so that an interval is followed 2 beyond them and no further."""
    wide = Bars("bars", "points", (Bar("a", 2.0, -90.0, 90.0, 0),))
    assert wide.is_cut
    assert wide.own_domain() == pytest.approx((-2.12, 4.12))
    assert not Bars("bars", "points", ABC).is_cut
    band = Lines("lines", "step", (Series("a", (0, 1), (0, 2), (-90, 1), (1, 3)),))
    assert band.is_cut
    assert Scatter("s", "x", "y", (Point("a", 0, 0, 0, -90, 90), Point("b", 1, 1, 1))).is_cut


def test_one_series_without_interval_has_no_band() -> None:
    """Oracle: no element of the class; with bounds, one whose corners are the bounds."""
    assert not [n for n in drawn(Lines("l", "step", (UP,))).iter() if n.get("class") == "band"]
    banded = drawn(Lines("l", "step", (Series("a", (0, 1), (0, 1), (-1, 0), (1, 2)),)))
    (band,) = (n for n in banded.iter() if n.get("class") == "band")
    assert band.attrib["d"].count(",") == 4


def test_parts_stack_on_their_side_of_zero() -> None:
    """Oracle: the sum of the far edges is the sum of the values, at every step, in any order."""
    for order in ((UP, DOWN), (DOWN, UP)):
        parts = stack(order)
        for i in range(3):
            assert parts[-1][1][i] + parts[-1][3][i] == pytest.approx(UP.y[i] + DOWN.y[i])
            assert all(above[i] <= up[i] and down[i] <= below[i] <= 0 <= above[i] for above, up, below, down in parts)


def test_names_never_touch() -> None:
    """Oracle: gaps of at least 12 and the same order, for points that all lie together."""
    placed = spread([50, 50, 50.5, 51], 12, 0, 100)
    assert placed == sorted(placed)
    assert all(b - a >= 12 - 1e-9 for a, b in itertools.pairwise(placed))


def test_long_names_of_rows_stay_inside() -> None:
    """Oracle: the estimated width of every line fits before its end; nothing of a name of two lines is lost."""
    name = "split and clamp (recommended)"
    chart = Bars("bars", "points", (Bar(name, 1.0, None, None, 0), Bar("x" * 90, 1.0, None, None, 1)))
    texts = [n for n in drawn(chart, 330).iter(f"{SVG}text") if n.get("class") == "name"]
    assert [n.text for n in texts][:2] == ["split and clamp", "(recommended)"]
    assert (texts[2].text or "").endswith("…")
    assert all(text_width(n.text or "", 11) <= float(n.attrib["x"]) for n in texts)


def test_the_frontier_leaves_out_who_is_beaten() -> None:
    """Oracle: a plain double loop over the definition: no other has at most its x and more y, or less x and its y."""
    points = [Point(str(i), x, y, i) for i, (x, y) in enumerate([(0, 1), (1, 3), (2, 2), (3, 3), (3, 5), (4, 4)])]
    kept = [
        p for p in points
        if not any(q.x <= p.x and q.y >= p.y and (q.x < p.x or q.y > p.y) for q in points)
    ]  # fmt: skip
    assert frontier(points[::-1]) == kept
    assert [p.name for p in kept] == ["0", "1", "4"]


def test_shares_of_verdicts_fill_the_row() -> None:
    """Oracle: widths in proportion 1 : 2 : 3, together the whole axis from 0 to 100."""
    svg = drawn(Verdicts("v", (("a", 1, 2, 3),)), 400)
    widths = [float(n.attrib["width"]) for n in svg.iter(f"{SVG}rect") if n.get("class") == "segment"]
    ticks = {n.text: float(n.attrib["x"]) for n in svg.iter(f"{SVG}text") if n.get("class") == "tick"}
    assert sum(widths) == pytest.approx(ticks["100"] - ticks["0"], abs=0.3)
    assert [w / widths[0] for w in widths] == pytest.approx([1, 2, 3], abs=0.02)
