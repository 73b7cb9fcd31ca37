"""The map over β and λ: positions read back from the drawing, and the lines of equal effective β."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from grao.report.colours import Styles
from research.report.experiment_figures import equal_lines
from research.report.heat_map import EqualLine, HeatMap

SVG = "{http://www.w3.org/2000/svg}"
MAP = HeatMap("map", "λ", "β", (0, 1), (0, 2), ((0, 0, 1.0, 0), (1, 2, 3.0, 1)), (EqualLine("e", ((0, 0), (1, 2))),))
EMPTY = HeatMap("map", "λ", "β", (), (), ())


def drawn(chart: HeatMap, width: float = 400) -> ElementTree.Element:
    return ElementTree.fromstring(chart.draw(width, Styles(chart.names)))


@pytest.mark.parametrize("chart", [MAP, EMPTY])
@pytest.mark.parametrize("width", [330, 1040])
def test_the_map_is_drawn_inside_its_width(chart: HeatMap, width: float) -> None:
    """Oracle: the view box: no coordinate lies outside; XML that a parser reads."""
    svg = drawn(chart, width)
    high = float(svg.attrib["viewBox"].split()[3])
    names = ("x", "y", "x1", "x2", "y1", "y2", "width", "height", "d")
    found = [float(n) for node in svg.iter() for name in names for n in re.findall(r"-?[\d.]+", node.get(name) or "")]
    assert all(-0.1 <= n <= max(width, high) + 0.1 for n in found)
    assert "nan" not in ElementTree.tostring(svg, encoding="unicode").lower()


def test_every_value_has_a_place_and_words() -> None:
    """Oracle: rows of the table, in order and once each; the description says more than "no data"."""
    svg = drawn(MAP)
    group = next(node for node in svg.iter() if node.get("class") == "places")
    assert [int(place.split(",")[2]) for place in (group.get("data-points") or "").split()] == [0, 1]
    assert svg.findtext(f"{SVG}desc") != "no data"


def test_a_line_goes_through_settings_that_share_an_effective_beta() -> None:
    """Oracle: 0.359375 = (0.5 + 0.6/8)/1.6 = (0.828125 + 2/8)/3, by hand; a round value close to it has no line."""
    lines = equal_lines((0.0, 0.6, 2.0), (0.1, 0.359375, 0.5, 0.828125, 1.5), 8)
    assert lines[0].name == "β_eff 0.36"
    along = dict(lines[0].points)
    assert along[0.0] == 0.359375
    assert along[0.6] == pytest.approx(0.5, abs=1e-9)
    assert along[2.0] == pytest.approx(0.828125, abs=1e-9)
    assert [line.name for line in lines[1:]] == ["β_eff 1.0", "β_eff 1.5"]


def test_lines_of_equal_effective_beta() -> None:
    """Oracle: β_eff = (β + λ/G) / (1 + λ) (docs/methods.md) is the line's name at every point of it."""
    lines = equal_lines((0.0, 0.6, 2.0), (0.1, 0.5, 1.5), 8)
    assert len(lines) >= 2
    for line in lines:
        wanted = float(line.name.split()[1])
        assert all((beta + lam / 8) / (1 + lam) == pytest.approx(wanted) for lam, beta in line.points)
    (default,) = ((b + lam / 8) / (1 + lam) for b, lam in [(0.5, 0.6)])
    assert default == pytest.approx(0.359375)


def test_a_line_on_the_map_goes_through_the_cells() -> None:
    """Oracle: (0, 0) and (1, 2) are centres of cells, so the line's ends are where those cells' numbers stand."""
    svg = drawn(MAP, 400)
    (line,) = (n for n in svg.iter() if n.get("class") == "equal")
    texts = [n for n in svg.iter(f"{SVG}text") if n.get("class") == "cell-text"]
    ends = [tuple(map(float, point.split(","))) for point in line.attrib["d"].lstrip("M").split()]
    assert [end[0] for end in ends] == pytest.approx([float(n.attrib["x"]) for n in texts], abs=0.1)
