"""One colour, dash and marker per method, the same in every figure of every report.

Readers with any of the three colour-vision deficiencies can tell the methods' colours apart, and each has a contrast
of 3 : 1 to the page (WCAG 1.4.11), in light and dark: tests/report/test_report_colours.py measures it. Dashes and
point shapes differ per method too.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from grao.report.svg import asset

_PALETTES: dict[str, dict[str, str]] = json.loads(asset("colours.json"))
LIGHT: Mapping[str, str] = MappingProxyType(_PALETTES["light"])
DARK: Mapping[str, str] = MappingProxyType(_PALETTES["dark"])
"""Names → colours, in this order: page, methods, others and terms of a loss, verdicts, from little to much (heat)."""

HEAT_STEPS = 7
SPARE = ("other-1", "other-2", "other-3", "other-4")

SOLID = ""
DASHES = (SOLID, "6 3", "2 3", "8 3 2 3")
MARKERS = ("circle", "square", "triangle", "diamond")


SECOND, THIRD = "second line", "third line"


@dataclass(frozen=True, slots=True)
class Style:
    """How a method or a term of a loss is drawn."""

    colour: str
    """A name in LIGHT and DARK."""
    dash: str
    """As in stroke-dasharray; "" is solid."""
    marker: str

    @property
    def paint(self) -> str:
        """Return the colour as CSS."""
        return f"var(--{self.colour})"


METHODS: Mapping[str, Style] = MappingProxyType(
    {
        "base": Style("base", "1 3", "circle"),
        "SFT": Style("sft", "6 3", "square"),
        "DPO": Style("dpo", "2 3", "diamond"),
        "PPO": Style("ppo", "8 3 2 3", "triangle"),
        "GRPO": Style("grpo", SOLID, "square"),
        "SFT → GRPO": Style("sft-grpo", "12 4", "diamond"),
        "GRAO (paper)": Style("grao", SOLID, "triangle"),
        "GRAO (recommended)": Style("grao-recommended", SOLID, "circle"),
        # terms of a loss
        "exploration": Style("other-4", SOLID, "circle"),
        "imitation": Style("other-2", "6 3", "square"),
        "regulariser": Style("other-1", "2 3", "triangle"),
        "correction": Style("other-3", "8 3 2 3", "diamond"),
        "policy": Style("other-4", SOLID, "circle"),
        "value": Style("other-3", "8 3 2 3", "diamond"),
        "preference": Style("other-2", "6 3", "square"),
        # further lines of one run, whose first has its method's colour
        SECOND: Style("ink-2", "6 3", "square"),
        THIRD: Style("ink-2", "2 3", "triangle"),
    }
)

_OTHER_NAMES = {
    "sft": "SFT",
    "dpo": "DPO",
    "ppo": "PPO",
    "grpo": "GRPO",
    "sft → grpo": "SFT → GRPO",
    "sft->grpo": "SFT → GRPO",
    "grao": "GRAO (paper)",
    "full": "GRAO (paper)",  # as ablations call it
    "split and clamp (recommended)": "GRAO (recommended)",
    "grao-recommended": "GRAO (recommended)",
}


class Styles:
    """The styles of one page: fixed ones for known names, and a style of its own for every other name.

    The checksum of a name picks its style, so it looks alike in every report. If two names of one page get the same
    style, the later one in the alphabet takes the next free one.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        spare = [Style(colour, dash, marker) for dash, marker in zip(DASHES, MARKERS, strict=True) for colour in SPARE]
        self._own: dict[str, Style] = {}
        for name in sorted({name for name in names if _known(name) is None}):
            first = zlib.crc32(name.encode("utf-8", "replace")) % len(spare)
            order = spare[first:] + spare[:first]
            self._own[name] = next((s for s in order if s not in self._own.values()), order[0])

    def __getitem__(self, name: str) -> Style:
        known = _known(name)
        return known if known is not None else self._own.get(name, Style("ink-2", SOLID, "circle"))


def _known(name: str) -> Style | None:
    return METHODS.get(_OTHER_NAMES.get(name, name))


def style_sheet() -> str:
    """Return the colours as CSS variables: by the reader's system, and as chosen by the reader."""

    def variables(colours: Mapping[str, str]) -> str:
        return "".join(f"--{name}:{value};" for name, value in colours.items())

    return (
        f":root{{color-scheme:light;{variables(LIGHT)}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light])"
        f"{{color-scheme:dark;{variables(DARK)}}}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{variables(DARK)}}}\n"
    )
