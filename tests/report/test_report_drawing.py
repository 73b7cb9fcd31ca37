"""SVG and scales: escaping, ticks, domains, and the examples in the docstrings."""

from __future__ import annotations

import doctest
import importlib
import math
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import pytest

from grao.report.scales import Linear, domain_of, extent, figures, is_number, tick_labels, ticks
from grao.report.svg import drawing, element

MODULES = (
    "svg",
    "scales",
    "embed",
    "answers",
    "curves",
    "completion_tables",
    "page",
    "charts.chart",
    "charts.lines",
    "charts.areas",
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings(name: str) -> None:
    """Oracle: what the docstrings say comes out."""
    outcome = doctest.testmod(importlib.import_module(f"grao.report.{name}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_text_and_attributes_are_escaped(made: SimpleNamespace) -> None:
    """Oracle: an XML parser reads back the text; what XML cannot hold has become U+FFFD, one for one."""
    for text in made.HOSTILE:
        parsed = ElementTree.fromstring(element("text", text, name=text))
        kept = [c if (ord(c) >= 32 and not 0xD800 <= ord(c) < 0xE000) or c == "\n" else "\ufffd" for c in text]
        assert parsed.text == "".join(kept)
        assert parsed.attrib["name"].split() == "".join(kept).split()
        assert list(parsed) == []


def test_a_drawing_has_a_name_for_those_who_do_not_see_it() -> None:
    """Oracle: the roles and elements that SVG's accessibility mapping reads."""
    parsed = ElementTree.fromstring(drawing(10, 20, "A & B", "from 1 to 2"))
    assert (parsed.attrib["role"], parsed.attrib["aria-label"]) == ("img", "A & B. from 1 to 2")
    assert [child.text for child in parsed] == ["A & B", "from 1 to 2"]
    assert parsed.attrib["viewBox"] == "0 0 10 20"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.7, 12.2), (0, 1e-7), (5e8, 2e9), (0.1, 0.1001), (-1e4, -9e3)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    """Oracle: the definition: multiples of 1, 2 or 5 times a power of ten, in order, inside; two to nine of them."""
    found = ticks(low, high)
    assert 2 <= len(found) <= 9
    assert all(low - 1e-12 <= tick <= high + 1e-12 for tick in found)
    step = (found[-1] - found[0]) / (len(found) - 1)
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-6
    assert all(abs(tick / step - round(tick / step)) < 1e-6 for tick in found)
    assert len(set(tick_labels(found))) == len(found)


def test_a_line_between_two_points() -> None:
    """Oracle: halfway is halfway, also when the range runs down, as y does."""
    assert Linear(2, 4, 100, 0)(3) == 50
    assert Linear(2, 4, 100, 0)(2) == 100


def test_extents_leave_out_what_is_no_number() -> None:
    """Oracle: by hand."""
    assert extent([None, math.nan, math.inf, 2, 4]) == (2, 4)
    assert extent([math.nan], include=(0,)) == (-1, 1)
    assert not any(map(is_number, (True, None, "1", math.nan, math.inf)))
    assert is_number(0)


def test_a_domain_holds_every_value_whatever_the_intervals() -> None:
    """Oracle: by hand: values span 2, so bounds count up to 2 beyond them."""
    assert domain_of([0, 2], [-1, 3]) == (-1, 3)
    assert domain_of([0, 2], [-100, None, math.inf]) == (-2, 2)
    assert domain_of([0, 2], [5, 100]) == (0, 4)


def test_numbers_as_people_write_them() -> None:
    """Oracle: by hand."""
    shown = [figures(v) for v in (0, 1234.5, -0.5, 1e-6, 123456789012.0, math.nan)]
    assert shown == ["0", "1,234", "−0.500", "1e−6", "1.23e11", "–"]
