"""The command line of a comparison: measures the workloads it names, and writes them with what they ran on."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from speed_results import RESULTS, Ratio, Step, facts, print_facts, write
from workload import Workload, add_size_arguments, size_of, workloads

Steps = dict[str, list[Step]]
"""Of each side."""
Measured = tuple[dict[str, Any], dict[str, Ratio]]
"""What the file keeps of a workload by the name it has there, and the ratios that it gives."""


def comparison_parser(doc: str | None) -> argparse.ArgumentParser:
    """What every comparison can be told."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size_arguments(parser)
    parser.add_argument("--threads", type=int, default=2, help="of each side; one side works at a time")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser


def run_comparison(
    section: str,
    compare: Callable[[Workload, Path], Measured],
    args: argparse.Namespace,
    *,
    versions: dict[str, Any] | None = None,
    **content: Any,
) -> None:
    """Measure and show each workload, then write the section.

    Args:
        section: of the results file.
        compare: measures a workload, and shows it; the folder is for logs.
        args: what `comparison_parser` read.
        versions: of other Pythons than this one.
        content: what else the section holds.
    """
    size = size_of(args)
    found = facts(args.threads, versions or {})
    print_facts(found)
    measured: dict[str, Any] = {}
    ratios: dict[str, Ratio] = {}
    with tempfile.TemporaryDirectory() as folder:
        for workload in workloads(args.workloads, Path(folder), size, hh=args.hh, gsm8k=args.gsm8k):
            kept, new = compare(workload, Path(folder))
            measured |= kept
            ratios |= new
    write(args.output, section, {**found, "size": asdict(size), **content, "workloads": measured}, ratios)
