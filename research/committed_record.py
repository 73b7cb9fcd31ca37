"""The small part of an experiment to commit: enough to compute every verdict again.

    DIR/
      experiment.json    plan, digest of the code, versions: as it was run
      tuning.json        what was tried and chosen
      cells.jsonl        a line a cell: its labels, seed and setting, metrics, categories, held-out curve, seconds
      summary.json       what a report shows, in six digits, with the answers to the first prompts

What training logged by step is only in the summary, as means over seeds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grao.configuration import build
from grao.records.durable import write_atomically
from research.cell_runner import Places, as_json
from research.experiment_plan import ExperimentPlan
from research.experiment_runner import Folder
from research.plan_cells import cells_to_test
from research.summary import summarise

CELLS = "cells.jsonl"
ANSWERS = 60
"""Number of test prompts whose answers are kept."""
DIGITS = 6
CELL = ("name", "diverged", "metrics", "by_category", "rewards", "curve")
IDENTITY = ("axes", "seed", "setting", "world")


def write_record(experiment: Path, target: Path) -> Path:
    """Write the record of a finished experiment and return the path of its summary.

    Raises:
        FileNotFoundError: If the experiment is not finished.
        ValueError: If its cells or plan are not those of its summary.
    """
    source, kept = Folder(experiment), Folder(target)
    if not source.summary.is_file():
        raise FileNotFoundError(f"{experiment} holds no {source.summary.name}: the experiment is not finished")
    summary = json.loads(source.summary.read_bytes())
    plan = _plan(source)
    if (plan.base, plan.seeds) != (summary["plan"]["base"], summary["plan"]["seeds"]):
        raise ValueError(
            f"{experiment}: experiment.json holds another plan than summary.json is about; run the experiment again"
        )
    # The plan's own cells: what a longer form of it left in the folder is none of this summary's.
    places = [source.places(cell) for cell in sorted(cells_to_test(plan, {}), key=lambda cell: cell.name)]
    lines = [_cell(place) for place in places if place.record.is_file()]
    if len(lines) != summary["provenance"]["cells"]:
        raise ValueError(
            f"{experiment} holds {len(lines)} cells, and its summary is about {summary['provenance']['cells']}: run "
            "the experiment again"
        )
    if summary["answers"] is not None:
        summary["answers"] = _first(summary["answers"])
    target.mkdir(parents=True, exist_ok=True)
    for file, copy in ((source.manifest, kept.manifest), (source.tuning, kept.tuning)):
        if file.is_file():
            write_atomically(copy, file.read_bytes())
    write_atomically(target / CELLS, b"".join(as_json(line) for line in lines))
    write_atomically(kept.summary, as_json(rounded(summary)))
    return kept.summary


def summary_from_cells(record: Path) -> dict[str, Any]:
    """Compute the summary from the cells of a record: all except answers and training logs."""
    kept = Folder(record)
    cells = [json.loads(line) for line in (record / CELLS).read_bytes().splitlines()]
    seconds = {cell["name"]: cell["cpu_seconds"] for cell in cells if cell["cpu_seconds"] is not None}
    table = json.loads(kept.tuning.read_bytes())["table"] if kept.tuning.is_file() else []
    return summarise(_plan(kept), cells, tuning=table, seconds=seconds, provenance={})


def rounded(content: Any, digits: int = DIGITS) -> Any:
    """Return plain data with every fraction rounded to `digits` significant digits.

    >>> rounded({"value": 0.123456789, "n": 8})
    {'value': 0.123457, 'n': 8}
    """
    if isinstance(content, float):
        return float(f"{content:.{digits}g}")
    if isinstance(content, Mapping):
        return {key: rounded(value, digits) for key, value in content.items()}
    return [rounded(value, digits) for value in content] if isinstance(content, list) else content


def _plan(folder: Folder) -> ExperimentPlan:
    return build(ExperimentPlan, json.loads(folder.manifest.read_bytes())["plan"])


def _cell(places: Places) -> dict[str, Any]:
    record = {"name": places.record.stem, **json.loads(places.record.read_bytes())}
    seconds = json.loads(places.timings.read_bytes())["cpu_seconds"] if places.timings.is_file() else None
    identity = {key: record["identity"][key] for key in IDENTITY}
    return {**{key: record[key] for key in CELL if key in record}, "identity": identity, "cpu_seconds": seconds}


def _first(answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answers to the first prompts."""
    lists = {key: value[:ANSWERS] for key, value in answers.items() if isinstance(value, list)}
    methods = {name: {key: own[key][:ANSWERS] for key in own} for name, own in answers["methods"].items()}
    return {**answers, **lists, "methods": methods}
