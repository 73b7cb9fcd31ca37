"""The figure of growth.py: time above, peak memory below, a column for each axis; all scales are logarithmic.

python benchmarks/growth_figure.py benchmarks/results/growth.json      # draws growth.svg beside it
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

TITLES = {
    "group": "completions a prompt",
    "prompt_tokens": "tokens of a prompt",
    "new_tokens": "tokens of a completion",
    "vocabulary": "vocabulary",
}
COSTS = {"seconds": ("seconds a step", 1.0), "peak_bytes": ("peak memory, GiB", 2.0**30)}
STYLES = {"grao": ("#0072B2", "o"), "TRL": ("#D55E00", "s")}
"""Two colours that differ for every kind of colour vision."""
FAILED = "x"
TEXT = {"svg.fonttype": "none", "svg.hashsalt": "growth", "font.family": "sans-serif", "font.size": 9}
"""Text stays text, and the same record gives the same file."""


def curve(record: Mapping[str, Any], axis: str, side: str, cost: str) -> list[tuple[int, float | None]]:
    """(value on the axis, median of the cost) of the points on it; None where the side failed.

    A cost that the system does not count has no points.
    """
    others = {name: value for name, value in record["base"].items() if name != axis}
    found = []
    for point in record["points"]:
        if point[axis] in record["axes"][axis] and all(point[name] == value for name, value in others.items()):
            values = [step[cost] for step in point[side]["steps"]]
            if point[side]["failure"] is not None:
                found.append((point[axis], None))
            elif None not in values:
                found.append((point[axis], median(values)))
    return sorted(found, key=lambda at: at[0])


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Small multiples as an SVG file."""
    with matplotlib.rc_context(TEXT):
        figure = Figure(figsize=(11, 5), layout="constrained", facecolor="white")
        grid = figure.subplots(len(COSTS), len(TITLES), sharey="row", sharex="col", squeeze=False)
        for row, (cost, (label, unit)) in zip(grid, COSTS.items(), strict=True):
            for axes, axis in zip(row, TITLES, strict=True):
                _panel(axes, record, axis, cost, unit)
            row[0].set_ylabel(label)
        for axes, axis in zip(grid[-1], TITLES, strict=True):
            axes.set_xlabel(TITLES[axis])
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False)
        figure.supxlabel(caption(record), fontsize=8, color="#555555")
        figure.savefig(path, format="svg", metadata={"Date": None})


def caption(record: Mapping[str, Any]) -> str:
    """What the curves have in common."""
    base, size = record["base"], record["size"]
    return (
        f"around {size['prompts']} prompts of {base['prompt_tokens']} tokens, {base['group']} completions each of "
        f"{base['new_tokens']}, vocabulary {_short(base['vocabulary'])}; a {size['shape']} model in float32 on "
        f"{record['threads']} threads; medians of {size['steps'] - 1} steps"
    )


def _panel(axes: Axes, record: Mapping[str, Any], axis: str, cost: str, unit: float) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for side, (colour, marker) in STYLES.items():
        at = curve(record, axis, side, cost)
        lived = [(x, y / unit) for x, y in at if y is not None]
        axes.plot(*_columns(lived), color=colour, marker=marker, markersize=4, linewidth=1.5, label=side)
        # At the top edge, whatever the scale: the cost is more than could be measured.
        died = [x for x, y in at if y is None]
        top = [0.96] * len(died)
        axes.plot(
            died,
            top,
            FAILED,
            color=colour,
            transform=axes.get_xaxis_transform(),
            label=f"{side}, did not finish" if _any_failed(record, side) else "_",
        )
    axes.set_xticks(record["axes"][axis], [_short(value) for value in record["axes"][axis]])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _columns(rows: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in rows], [y for _, y in rows]


def _any_failed(record: Mapping[str, Any], side: str) -> bool:
    return any(point[side]["failure"] is not None for point in record["points"])


def _short(value: int) -> str:
    """8192 as 8k, 151936 as 152k: the way sizes of vocabularies are said."""
    if value < 4096:
        return str(value)
    return f"{value // 1024}k" if value % 1024 == 0 else f"{round(value / 1000)}k"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path, help="growth.json")
    args = parser.parse_args(arguments)
    draw(json.loads(args.record.read_text(encoding="utf-8")), args.record.with_suffix(".svg"))


if __name__ == "__main__":
    main()
