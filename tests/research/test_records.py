"""What research/records holds and the docs show of it: figures that nobody can have written by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from research.claims_page import claims_page, committed_records
from research.committed_record import rounded, summary_from_cells
from research.experiment_plan import built_in_plans, load_plan
from research.report import write_report
from research.tuning import sha256

ROOT = Path(__file__).resolve().parents[2]
RECORDS = sorted(file.parent for file in (ROOT / "research" / "records").glob("*/summary.json"))


@pytest.fixture(params=RECORDS, ids=lambda path: path.name)
def record(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def summary_of(record: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((record / "summary.json").read_bytes())
    return found


def test_every_built_in_plan_has_a_record() -> None:
    """Oracle: the plans that come with the library."""
    assert {record.name for record in RECORDS} == set(built_in_plans())


def test_a_summary_is_what_its_cells_give(record: Path) -> None:
    """Oracle: the summary computed again from the cells, in six digits; what training logged is not in the cells."""
    kept, again = summary_of(record), rounded(summary_from_cells(record))
    for part in ("plan", "differences", "claims", "tuning"):
        assert kept[part] == again[part]
    for whole, part in zip(kept["aggregates"], again["aggregates"], strict=True):
        curves = {name: curve for name, curve in whole["curves"].items() if name in part["curves"]}
        assert {**whole, "curves": curves} == part


def test_the_chosen_setting_has_the_best_mean(record: Path) -> None:
    """Oracle: a loop over the tuning's values; its file has the digest that the summary names."""
    file = record / "tuning.json"
    if not file.is_file():
        assert summary_of(record)["tuning"] == []
        return
    assert sha256(file.read_bytes()) == summary_of(record)["provenance"]["tuning_sha256"]
    tuning = json.loads(file.read_bytes())
    assert tuning["split"] == "validation"
    for row in tuning["table"]:
        means = [sum(t["values"]) / len(tuning["seeds"]) if None not in t["values"] else -1e9 for t in row["grid"]]
        assert row["chosen"] == row["grid"][means.index(max(means))]["setting"]


def test_no_seed_is_both_tuned_on_and_tested_on(record: Path) -> None:
    """Oracle: the sets of seeds of cells and tuning; every cell there is, once."""
    cells = [json.loads(line) for line in (record / "cells.jsonl").read_text().splitlines()]
    found = summary_of(record)["provenance"]
    assert {cell["identity"]["seed"] for cell in cells} == set(found["seeds"])
    assert not set(found["seeds"]) & set(found["tuning_seeds"])
    assert len({(*cell["identity"]["axes"].values(), cell["identity"]["seed"]) for cell in cells}) == found["cells"]


def test_a_record_is_of_the_plan_as_it_stands(record: Path) -> None:
    """Oracle: the plan that comes with the library under that name."""
    kept, plan = summary_of(record)["plan"], load_plan(record.name)
    assert (kept["base"], kept["seeds"]) == (plan.base, plan.seeds)
    assert [claim["id"].split("/")[0] for claim in summary_of(record)["claims"]] == [
        claim.id for claim in plan.claims for _ in range(math.prod(len(plan.axes[axis]) for axis in claim.each))
    ]


def test_the_claims_page_is_what_the_records_give() -> None:
    """Oracle: the page written again."""
    assert (ROOT / "docs" / "claims.md").read_text(encoding="utf-8") == claims_page(committed_records())


@pytest.mark.slow
def test_the_readmes_figure_is_made_from_the_record(tmp_path: Path) -> None:
    """Oracle: the figure drawn again, byte by byte."""
    write_report([ROOT / "research" / "records" / "main"], tmp_path / "r.html", figures_folder=tmp_path / "figures")
    drawn = (tmp_path / "figures" / "all-methods-three-base-models-score.svg").read_bytes()
    assert (ROOT / "docs" / "figures" / "main.svg").read_bytes() == drawn
