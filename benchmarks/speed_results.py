"""From steps to ratios, tables, and benchmarks/results/speed.json."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import torch

from grao.records.environment import environment

Step = dict[str, Any]
"""What a `StepMeter` reports of one step."""
RESULTS = Path(__file__).parent / "results" / "speed.json"


@dataclass(frozen=True)
class Ratio:
    """Theirs over ours, so larger is better for us; of n pairs of neighbouring turns."""

    median: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def paired_ratio(theirs: Sequence[float], ours: Sequence[float]) -> Ratio:
    """Median and range of the ratios of turns that followed each other, on the same prompts.

    >>> print(paired_ratio([6.0, 9.0, 8.0], [2.0, 3.0, 2.0]))
    3.00 [3.00, 4.00]
    """
    ratios = [t / o for t, o in zip(theirs, ours, strict=True)]
    return Ratio(median(ratios), min(ratios), max(ratios), len(ratios))


def spread(values: Sequence[float], unit: float = 1.0, digits: int = 2) -> str:
    """Median and range, as text."""
    middle, low, high = (f"{value / unit:.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} [{low}, {high}]"


def print_table(title: str, sides: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
    """One line a row, one column a side."""
    print(f"\n{title}")
    print(f"  {'':22s}" + "".join(f"{side:>26s}" for side in sides))
    for name, cells in rows.items():
        print(f"  {name:22s}" + "".join(f"{cell:>26s}" for cell in cells))


def facts(threads: int, versions: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a figure is quoted with: versions (`versions` holds those of other Pythons), machine, threads, its load."""
    return {
        "measured": time.strftime("%Y-%m-%d"),
        "versions": {**environment(), "trl": metadata.version("trl"), **(versions or {})},
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load_average_before": os.getloadavg(),
        "torch_config": [line.strip(" -") for line in torch.__config__.show().splitlines() if "settings" not in line],
    }


def print_facts(found: Mapping[str, Any]) -> None:
    libraries = found["versions"]["libraries"]
    print(
        f"torch {libraries['torch']}, transformers {libraries['transformers']}, trl {found['versions']['trl']}; "
        f"{found['cpu']}, {found['cores']} cores, {found['threads']} threads; {_load(found['load_average_before'])}",
        flush=True,
    )


def recorded(steps: Mapping[str, Sequence[Step]]) -> dict[str, list[Step]]:
    """What the file keeps of each side's steps: the numbers of tokens, equal on both sides, as their sums."""
    return {
        side: [
            {
                **step,
                "prompt_tokens": sum(step["prompt_tokens"]),
                "completion_tokens": sum(map(sum, step["completion_tokens"])),
            }
            for step in done
        ]
        for side, done in steps.items()
    }


def write(path: Path, section: str, content: Mapping[str, Any], ratios: Mapping[str, Ratio]) -> None:
    """Put a section and its ratios in place of those of its last run; other benchmarks' stay."""
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"ratios": {}, "spreads": {}}
    for name in record.get(section, {}).get("gives", ()):
        del record["ratios"][name], record["spreads"][name]
    record["ratios"] |= {name: round(ratio.median, 3) for name, ratio in ratios.items()}
    record["spreads"] |= {name: asdict(ratio) for name, ratio in ratios.items()}
    after = os.getloadavg()
    record[section] = {"gives": list(ratios), **content, "load_average_after": after}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\n{_load(after)} at the end; written to {path}")


def _load(averages: Sequence[float]) -> str:
    """Runnable threads; more than ours means that others worked beside us."""
    return "load " + ", ".join(f"{load:.1f}" for load in averages) + " over 1, 5, 15 minutes"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")  # platform.processor() is empty on Linux
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
