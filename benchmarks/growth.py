"""How a step's time and peak memory grow, ours and TRL's: by group size, prompt, completion and vocabulary.

    python benchmarks/growth.py --threads 2

The steps of training_step.py, at the even workload (prompts and completions all of full length), with one axis varied
at a time around a base point: G = 8, prompts of 128 tokens, completions of 128, a vocabulary of 8,192, 2 prompts a
step. The model is smaller than that of training_step.py, so that all fourteen points fit into about twenty minutes on
two threads: hidden size 256, 6 layers, 6.8M weights with the base point's vocabulary.

Each side of each point has a process of its own; they take turns, and each one's first step is not counted. A side
that runs out of memory, or takes longer than the time limit for a step, is recorded as that, and the other side goes
on. The file is written after every point, and a run that was cut off goes on where it was: where file and run agree on
what is measured, on versions, machine and threads.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

from transformers.utils import logging as transformers_logging

from grao.records.durable import write_atomically
from growth_figure import draw
from limited_side import LimitedSide, Limits, free_memory
from side_by_side import OURS, check_same_tokens
from speed_results import Step, facts, print_facts, recorded
from training_step import SETTINGS, THEIRS, run_grao, run_trl
from workload import SHAPES, Size, Workload, write_even

RESULTS = Path(__file__).parent / "results" / "growth.json"
SIDES = {OURS: run_grao, THEIRS: run_trl}
COSTS = {"seconds": lambda seconds: f"{seconds:.2f}", "peak_bytes": lambda n: f"{n / 2**20:.0f}"}
"""What is compared of a step, and how it is printed."""
SAME = ("versions", "cpu", "cores", "threads", "size", "settings", "base", "axes")
"""What a file and a run must agree on for the run to go on with it."""


@dataclass(frozen=True)
class Point:
    """What varies."""

    group: int = 8
    prompt_tokens: int = 128
    new_tokens: int = 128
    vocabulary: int = 8192


AXES = {
    "group": (2, 4, 8, 16, 32),
    "prompt_tokens": (64, 128, 256, 512, 1024),
    "new_tokens": (64, 128, 256, 512),
    "vocabulary": (8192, 32768, 151936),
}


def points(base: Point, axes: Mapping[str, Sequence[int]]) -> list[Point]:
    """The base point, then every other value of each axis around it; each point once."""
    varied = (replace(base, **{axis: value}) for axis, values in axes.items() for value in values)
    return list(dict.fromkeys([base, *varied]))


def measure(point: Point, size: Size, limits: Limits) -> dict[str, Any]:
    """Both sides' steps at this point, without the first, and what a side failed of."""
    size = replace(size, **asdict(point))
    with tempfile.TemporaryDirectory() as folder:
        workload = write_even(Path(folder), size)
        sides = {name: LimitedSide(run, workload, limits, Path(folder) / f"{name}.log") for name, run in SIDES.items()}
        steps = take_limited_turns(sides, workload)
        for side in sides.values():
            side.close()
    failures = {name: None if side.failure is None else asdict(side.failure) for name, side in sides.items()}
    return {
        **asdict(point),
        **{name: {"steps": done, "failure": failures[name]} for name, done in recorded(steps).items()},
    }


def take_limited_turns(sides: Mapping[str, LimitedSide], workload: Workload) -> dict[str, list[Step]]:
    """Every step that a side finished, but its first."""
    done: dict[str, list[Step]] = {name: [] for name in sides}
    for _ in workload.prompts:
        reports = {name: side.turn({"completion_tokens": None}) for name, side in sides.items()}
        finished = {name: step for name, step in reports.items() if step is not None}
        if len(finished) == len(sides):
            check_same_tokens(finished)
        for name, step in finished.items():
            done[name].append(step)
    return {name: steps[1:] for name, steps in done.items()}


def header() -> str:
    """Of the table's columns."""
    names = [f"{side}, {unit}" for unit in ("s", "MiB") for side in SIDES]
    return f"{'G':>5s}{'prompt':>9s}{'completion':>13s}{'vocabulary':>13s}" + "".join(
        f"{name:>{width}s}" for name, width in (*((name, 12) for name in names), ("s ×", 8), ("MiB ×", 8))
    )


def line(measured: Mapping[str, Any]) -> str:
    """A point as a row of the table: its values, then each side's medians, then theirs over ours."""
    group, prompt, completion, vocabulary = (measured[f.name] for f in fields(Point))
    cells = "".join(f"{_cell(measured[name], cost):>12s}" for cost in COSTS for name in SIDES)
    ratios = "".join(f"{_ratio(measured, cost):>8s}" for cost in COSTS)
    return f"{group:5d}{prompt:9d}{completion:13d}{vocabulary:13d}" + cells + ratios


def middle(side: Mapping[str, Any], cost: str) -> float | None:
    """The median over a side's steps; None where it failed, or where this system does not count."""
    values = [step[cost] for step in side["steps"]]
    return None if side["failure"] is not None or None in values else median(values)


def _cell(side: Mapping[str, Any], cost: str) -> str:
    if side["failure"] is not None:
        return f"({side['failure']['kind']})"
    value = middle(side, cost)
    return "–" if value is None else COSTS[cost](value)


def _ratio(measured: Mapping[str, Any], cost: str) -> str:
    ours, theirs = (middle(measured[name], cost) for name in SIDES)
    return "" if ours is None or theirs is None else f"{theirs / ours:.1f}"


def resumed(path: Path, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The points that a run which was cut off has measured of what `run` asks for; none where it came to its end."""
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"complete": True}
    asked = json.loads(json.dumps(run))  # tuples become lists
    if record["complete"] or any(record[key] != asked[key] for key in SAME):
        return []
    kept: list[dict[str, Any]] = record["points"]
    return kept


def run_all(wanted: Sequence[Point], done: Sequence[Mapping[str, Any]], size: Size, limits: Limits) -> Iterator[Any]:
    """Every point, measured before or now."""
    known = {Point(**{f.name: point[f.name] for f in fields(Point)}): point for point in done}
    for point in wanted:
        yield known.get(point) or measure(point, size, limits)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    transformers_logging.disable_progress_bar()
    size = Size(shape=args.shape, prompts=args.prompts, steps=args.repeats + 1)
    base = Point(*args.base)
    axes = {axis: tuple(getattr(args, axis)) for axis in AXES}
    limits = Limits(args.seconds, free_memory(), args.threads)
    found = facts(args.threads)
    run = {**found, "size": asdict(size), "settings": SETTINGS, "base": asdict(base), "axes": axes}
    run["limits"] = asdict(limits)
    done = resumed(args.output, run)
    print_facts(found)
    print(f"{len(done)} points from {args.output}, which was cut off\n" * bool(done) + header())
    wanted, measured = points(base, axes), []
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for point in run_all(wanted, done, size, limits):
        measured.append(point)
        print(line(point), flush=True)
        run |= {"complete": len(measured) == len(wanted), "load_average_after": os.getloadavg(), "points": measured}
        write_atomically(args.output, (json.dumps(run, indent=1, ensure_ascii=False) + "\n").encode())
    figure = args.output.with_suffix(".svg")
    draw(run, figure)
    print(f"\nwritten to {args.output} and {figure}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for axis, values in AXES.items():
        option = "--" + axis.replace("_", "-")
        parser.add_argument(option, type=int, nargs="+", default=values, metavar="N", help=f"default: {values}")
    base = tuple(asdict(Point()).values())
    names = ("G", "PROMPT", "COMPLETION", "VOCABULARY")
    parser.add_argument("--base", type=int, nargs=4, default=base, metavar=names, help=f"default: {base}")
    parser.add_argument("--prompts", type=int, default=2, help="a step")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="7m", help="of the model, but for its vocabulary")
    parser.add_argument("--repeats", type=int, default=2, help="steps that count, of each side and point")
    parser.add_argument("--seconds", type=float, default=240, help="the longest that a step may take")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
