"""The small part of an experiment that a repository keeps: enough to compute every verdict again.

    DIR/
      experiment.json    plan, digest of the code, versions: as it was run
      tuning.json        what was tried and chosen
      cells.jsonl        a line a cell: its labels, seed and setting, metrics, categories, held-out curve, seconds
      summary.json       what a report shows, in six digits, with the answers to the first prompts

What training logged step by step is in the summary alone, as means over seeds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grao.configuration import build
from grao.experiments.plan import Plan
from grao.experiments.summary import summarise
from grao.records.durable import write_atomically

ANSWERS = 60
"""Test prompts whose answers are kept."""
DIGITS = 6
CELL = ("name", "diverged", "metrics", "by_category", "rewards", "curve")
IDENTITY = ("axes", "seed", "setting", "world")


def keep(experiment: Path, target: Path) -> Path:
    """Write the small part of a finished experiment; the path of its summary.

    Raises:
        FileNotFoundError: the experiment is not finished.
        ValueError: the cells or the plan there are not those of the summary.
    """
    summary_file = experiment / "summary.json"
    if not summary_file.is_file():
        raise FileNotFoundError(f"{experiment} holds no summary.json: the experiment is not finished")
    summary = json.loads(summary_file.read_bytes())
    plan = build(Plan, json.loads((experiment / "experiment.json").read_bytes())["plan"])
    if (plan.base, plan.seeds) != (summary["plan"]["base"], summary["plan"]["seeds"]):
        raise ValueError(
            f"{experiment}: experiment.json holds another plan than summary.json is about; run `grao experiment` "
            "there again"
        )
    lines = [_cell(experiment, file) for file in sorted((experiment / "cells").glob("*.json"))]
    if len(lines) != summary["provenance"]["cells"]:
        raise ValueError(
            f"{experiment} holds {len(lines)} cells, and its summary is about {summary['provenance']['cells']}: run "
            "`grao experiment` there again"
        )
    if summary["answers"] is not None:
        summary["answers"] = _first(summary["answers"])
    target.mkdir(parents=True, exist_ok=True)
    for name in ("experiment.json", "tuning.json"):
        if (experiment / name).is_file():
            write_atomically(target / name, (experiment / name).read_bytes())
    write_atomically(target / "cells.jsonl", "".join(f"{_plain(line)}\n" for line in lines).encode())
    write_atomically(target / "summary.json", f"{_plain(rounded(summary))}\n".encode())
    return target / "summary.json"


def recomputed(record: Path) -> dict[str, Any]:
    """The summary as the kept cells give it: all but the answers and what training logged step by step."""
    plan = build(Plan, json.loads((record / "experiment.json").read_bytes())["plan"])
    cells = {line["name"]: line for line in map(json.loads, (record / "cells.jsonl").read_text().splitlines())}
    seconds = {name: line["cpu_seconds"] for name, line in cells.items() if line["cpu_seconds"] is not None}
    tuning = record / "tuning.json"
    table = json.loads(tuning.read_bytes())["table"] if tuning.is_file() else []
    return summarise(plan, list(cells.values()), tuning=table, seconds=seconds, provenance={})


def rounded(content: Any, digits: int = DIGITS) -> Any:
    """Plain data with every fraction in so many significant digits.

    >>> rounded({"value": 0.123456789, "n": 8})
    {'value': 0.123457, 'n': 8}
    """
    if isinstance(content, float):
        return float(f"{content:.{digits}g}")
    if isinstance(content, Mapping):
        return {key: rounded(value, digits) for key, value in content.items()}
    return [rounded(value, digits) for value in content] if isinstance(content, list) else content


def _cell(experiment: Path, file: Path) -> dict[str, Any]:
    record = {"name": file.stem, **json.loads(file.read_bytes())}
    timings = experiment / "timings" / "cells" / file.name
    seconds = json.loads(timings.read_bytes())["cpu_seconds"] if timings.is_file() else None
    identity = {key: record["identity"][key] for key in IDENTITY}
    return {**{key: record[key] for key in CELL if key in record}, "identity": identity, "cpu_seconds": seconds}


def _first(answers: Mapping[str, Any]) -> dict[str, Any]:
    """The answers to the first prompts."""
    lists = {key: value[:ANSWERS] for key, value in answers.items() if isinstance(value, list)}
    methods = {name: {key: own[key][:ANSWERS] for key in own} for name, own in answers["methods"].items()}
    return {**answers, **lists, "methods": methods}


def _plain(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
