"""One colour, dash and marker a method, the same in every figure of every report.

The colours of the methods keep their distance for readers with any of the three colour-vision deficiencies, and
stand out from the paper by 3 : 1 (WCAG 1.4.11), in light and in dark; tests/report/test_report_colours.py measures it.
Colour is never alone: lines are dashed, and points shaped, by method too.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

LIGHT: Mapping[str, str] = MappingProxyType(
    {
        # the page
        "paper": "#ffffff",
        "raised": "#f7f7f5",
        "ink": "#1b1d21",
        "ink-2": "#565b64",
        "rule": "#d9dbdf",
        "grid": "#e9eaed",
        "accent": "#1d5fd1",
        # methods
        "base": "#6a6b6e",
        "sft": "#26a083",
        "dpo": "#9e78ff",
        "ppo": "#b7862b",
        "grpo": "#2a408d",
        "sft-grpo": "#1678b0",
        "grao": "#8a0a3c",
        "grao-recommended": "#cc4309",
        # others, and the terms of a loss
        "other-1": "#6d8115",
        "other-2": "#b0568a",
        "other-3": "#87593a",
        "other-4": "#4d8088",
        # verdicts
        "win": "#2f6f9f",
        "tie": "#c9ccd2",
        "loss": "#b3722f",
        "loss-ink": "#8a5518",
        # from little to much
        "heat-0": "#eef3f8",
        "heat-1": "#d3e2ef",
        "heat-2": "#acc9e2",
        "heat-3": "#7fabd0",
        "heat-4": "#417aa9",
        "heat-5": "#2a6496",
        "heat-6": "#10426e",
        "heat-low-ink": "#1b1d21",
        "heat-high-ink": "#ffffff",
    }
)

DARK: Mapping[str, str] = MappingProxyType(
    {
        "paper": "#14161a",
        "raised": "#1c1f25",
        "ink": "#e9eaec",
        "ink-2": "#a4a9b3",
        "rule": "#363a43",
        "grid": "#272b32",
        "accent": "#86b2ff",
        "base": "#a3a3a3",
        "sft": "#55e6c1",
        "dpo": "#a274c4",
        "ppo": "#ecd04a",
        "grpo": "#4f80fb",
        "sft-grpo": "#33a9f0",
        "grao": "#e0406d",
        "grao-recommended": "#f5843b",
        "other-1": "#a9bf4a",
        "other-2": "#e08bbb",
        "other-3": "#c0906c",
        "other-4": "#79b4bd",
        "win": "#5fa4d8",
        "tie": "#4a4f59",
        "loss": "#d69a5c",
        "loss-ink": "#e0aa70",
        "heat-0": "#1b2631",
        "heat-1": "#1f3950",
        "heat-2": "#265276",
        "heat-3": "#326a97",
        "heat-4": "#5490bf",
        "heat-5": "#86b5da",
        "heat-6": "#c3ddf0",
        "heat-low-ink": "#e9eaec",
        "heat-high-ink": "#14161a",
    }
)

HEAT_STEPS = 7
SPARE = ("other-1", "other-2", "other-3", "other-4")

SOLID = ""
DASHES = (SOLID, "6 3", "2 3", "8 3 2 3")
MARKERS = ("circle", "square", "triangle", "diamond")


SECOND, THIRD = "second line", "third line"


@dataclass(frozen=True, slots=True)
class Style:
    """How one method, or one term of a loss, looks."""

    colour: str
    """A name in LIGHT and DARK."""
    dash: str
    """As in stroke-dasharray; "" is solid."""
    marker: str

    @property
    def paint(self) -> str:
        """The colour as CSS."""
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
    """The styles of one page: fixed ones for known names, and for each other name one that nothing else here has.

    An unknown name starts at a place of its own (its checksum), so it looks alike in every report; only where two
    names of one page would meet, the later one in the alphabet moves on.
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
    """The colours as CSS variables: light, dark by the reader's system, and either one when the reader chose it."""

    def variables(colours: Mapping[str, str]) -> str:
        return "".join(f"--{name}:{value};" for name, value in colours.items())

    return (
        f":root{{color-scheme:light;{variables(LIGHT)}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light])"
        f"{{color-scheme:dark;{variables(DARK)}}}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{variables(DARK)}}}\n"
    )
