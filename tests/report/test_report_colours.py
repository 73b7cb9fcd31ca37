"""Colours: told apart by everybody, seen on either paper, and the same for a method everywhere.

Oracles: WCAG 2.2's contrast (relative luminance); the colour-vision model of Machado, Oliveira and Fernandes (2009),
severity 1; distances in OKLab (Ottosson, 2020), where 2 can just be seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from grao.report.colours import DARK, HEAT_STEPS, LIGHT, METHODS, Styles, style_sheet

SEVEN = ("base", "sft", "dpo", "ppo", "grpo", "sft-grpo", "grao", "grao-recommended")
VISIONS = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def oklab(rgb: np.ndarray) -> np.ndarray:
    to_cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
              [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.array(to_lab) @ np.cbrt(np.clip(np.array(to_cones) @ rgb, 0, None))


def distance(one: str, other: str, vision: np.ndarray) -> float:
    a, b = (oklab(np.clip(vision @ linear(colour), 0, 1)) for colour in (one, other))
    return 100 * float(np.linalg.norm(a - b))


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("vision", VISIONS)
def test_methods_are_told_apart(colours: Mapping[str, str], vision: str) -> None:
    """Oracle: at least 7 in OKLab between any two methods, in each kind of vision."""
    found = {
        pair: distance(*(colours[name] for name in pair), VISIONS[vision]) for pair in itertools.combinations(SEVEN, 2)
    }
    closest = min(found, key=lambda pair: found[pair])
    assert found[closest] >= 7, (closest, found[closest])


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_everything_stands_out_from_the_paper(colours: Mapping[str, str]) -> None:
    """Oracle: 3 : 1 for what is drawn, 4.5 : 1 for text (WCAG 2.2, 1.4.11 and 1.4.3)."""
    used = {style.colour for style in METHODS.values()} | {"other-1", "other-2", "other-3", "other-4", "win", "loss"}
    weak = {name: contrast(colours[name], colours["paper"]) for name in used}
    assert {name: value for name, value in weak.items() if value < 3} == {}
    for paper in ("paper", "raised"):
        for ink in ("ink", "ink-2", "accent"):
            assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
    assert contrast(colours["loss-ink"], colours["paper"]) >= 4.5
    for verdict in ("win", "grao-recommended"):
        assert contrast(colours[verdict], colours["paper"]) >= 4.5, verdict


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_numbers_can_be_read_on_the_heat_map(colours: Mapping[str, str]) -> None:
    """Oracle: 4.5 : 1 on every step, in the ink that the map uses there; steps run one way."""
    inks = ["heat-low-ink"] * 4 + ["heat-high-ink"] * (HEAT_STEPS - 4)
    assert all(contrast(colours[f"heat-{i}"], colours[ink]) >= 4.5 for i, ink in enumerate(inks))
    lightness = [float(oklab(linear(colours[f"heat-{i}"]))[0]) for i in range(HEAT_STEPS)]
    assert lightness in (sorted(lightness), sorted(lightness, reverse=True))


def test_a_method_looks_alike_everywhere() -> None:
    """Oracle: known names by the table, whatever else is on the page; objectives' own names mean the same."""
    alone, crowd = Styles(["GRPO"]), Styles(["GRPO", "x", "y", "z"])
    assert alone["GRPO"] == crowd["GRPO"] == METHODS["GRPO"] == Styles()["grpo"]
    assert Styles()["grao-recommended"] == METHODS["GRAO (recommended)"]
    methods = [METHODS[name] for name in list(METHODS)[:8]]
    assert len({style.colour for style in methods}) == 8


def test_unknown_names_are_stable_and_differ() -> None:
    """Oracle: a name alone looks as it does beside others that do not take its place; up to 16 names all differ."""
    names = [f"variant {i}" for i in range(16)]
    together = Styles(names)
    assert len({together[name] for name in names}) == 16
    assert Styles(reversed(names))["variant 3"] == together["variant 3"]
    assert Styles(["variant 0"])["variant 0"] == Styles(["variant 0", "GRPO", "base"])["variant 0"]
    assert not {style.colour for style in (together[name] for name in names)} & set(SEVEN)


def test_the_style_sheet_has_both_schemes() -> None:
    """Oracle: each colour once for light and twice for dark: by the system's wish, and by the reader's."""
    sheet = style_sheet()
    assert set(LIGHT) == set(DARK)
    assert sheet.count(f"--grpo:{LIGHT['grpo']}") == 1
    assert sheet.count(f"--grpo:{DARK['grpo']}") == 2
