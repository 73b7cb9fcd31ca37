"""An experiment's record as a section, and on a page with others."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from grao.report.section import Figure, Section
from research.report import write_report
from research.report.experiment_section import experiment_section
from research.report.table_cells import IntervalCell, UnfoldingCell, VerdictCell


def figure(section: Section, title: str) -> Figure:
    return next(f for f in (*section.figures, *section.more) if f.title == title)


def titles(section: Section) -> list[str]:
    return [f.title for f in section.figures]


def test_an_experiment_in_figures(tmp_path: Path, made: SimpleNamespace) -> None:
    """Oracle: the record's numbers; one panel a regime; every metric and curve is in some figure."""
    section = experiment_section(
        made.write_json(tmp_path / "x", "summary.json", made.experiment()), "", sensitive=None
    )
    score = next(f for f in section.figures if f.title == "Score" and "n" in f.columns)
    assert [panel.title for panel in score.panels] == ["regime: rarely", "regime: often"]
    assert [row[2] for row in score.rows] == [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0]
    assert {"Score by category", "Score by compute", "Loss, term by term", "Entropy", "Ras"} <= set(titles(section))
    assert {f.title for f in section.more} == {"Odd", "KL to the base"}
    assert figure(section, "Against the reference").rows[0][2:] == (0.2, 0.3, 0.5)
    assert section.notes == ("GRPO · often: 1 of 9 seeds diverged and are in no figure.",)
    differences = figure(section, "Difference to GRAO (paper)")
    assert [(row[1], row[2], row[3]) for row in differences.rows] == [(n, 1.0, 0.5) for n in made.METHODS[:-1]]


def test_a_much_longer_curve_is_drawn_as_far_as_the_others(tmp_path: Path, made: SimpleNamespace) -> None:
    """Oracle: three curves of 3 points and one of 30: drawn to step 10, said, and whole in the rows; one that is twice
    as long is drawn whole.
    """
    record = made.experiment()
    first, second = (
        [a for a in record["aggregates"] if a["axes"]["regime"] == regime] for regime in ("rarely", "often")
    )
    first[0]["curves"] = {"score": made.curve([1.0] * 29 + [99.0])}
    second[0]["curves"] = {"score": made.curve([1.0] * 5)}
    section = experiment_section(made.write_json(tmp_path / "x", "summary.json", record), "", sensitive=None)
    found = next(f for f in section.figures if f.title == "Score" and "over" in f.columns)
    lines = {panel.title: panel.chart.series for panel in found.panels}
    assert [line.x[-1] for line in lines["regime: rarely"]] == [10.0] * 4
    assert [line.x[-1] for line in lines["regime: often"]] == [20.0, 10.0, 10.0, 10.0]
    assert found.notes == ("Cut at the length of the other curves, in full in the data: base.",)
    assert [row[4] for row in found.rows if row[:2] == ("regime: rarely", "base")] == [1.0] * 29 + [99.0]
    assert lines["regime: rarely"][1].y[0] == found.rows[lines["regime: rarely"][1].first_row][4]


def test_a_choice_at_the_edge_of_its_grid_is_said(tmp_path: Path, made: SimpleNamespace) -> None:
    """Oracle: 3 is the greatest of three rates; 2 is within; of two numbers or of names neither is an edge."""
    grid = [{"setting": {"rate": rate, "kl": kl, "mean": mean}, "value": 1.0}
            for rate in (1, 2, 3) for kl in (0, 1) for mean in ("token", "sequence")]  # fmt: skip
    tuning = [
        {"axes": {"method": name}, "grid": grid, "chosen": {"rate": rate, "kl": 1, "mean": "token"}}
        for name, rate in (("SFT", 2), ("DPO", 3))
    ]
    record = {**made.experiment(), "tuning": tuning}
    section = experiment_section(made.write_json(tmp_path / "x", "summary.json", record), "", sensitive=None)
    assert section.tables[1].notes == (
        "Chosen at an edge of its grid, so that more might be had beyond it: DPO (rate = 3).",
    )


def test_claims_and_tuning_are_tables(tmp_path: Path, made: SimpleNamespace) -> None:
    """Oracle: the record; claims of one unit share a scale that holds both; the chosen setting is marked."""
    section = experiment_section(
        made.write_json(tmp_path / "x", "summary.json", made.experiment()), "", sensitive=None
    )
    claims, tuning = section.tables
    assert claims.rows[0][0] == UnfoldingCell("GRAO beats SFT", "above 0")
    assert [row[1] for row in claims.rows] == [
        VerdictCell("holds"),
        VerdictCell("does not hold"),
        VerdictCell("undecided here"),
    ]
    effects = [row[2] for row in claims.rows]
    assert all(isinstance(effect, IntervalCell) for effect in effects)
    first, second, third = (effect for effect in effects if isinstance(effect, IntervalCell))
    assert first.domain == second.domain != third.domain
    assert first.domain[0] <= -2.5
    assert first.domain[1] >= 1.5
    assert [row[2:] for row in tuning.rows] == [(2.5, ""), (3.5, "chosen")]


def test_one_seed_has_no_intervals_and_says_so(tmp_path: Path, made: SimpleNamespace) -> None:
    """Oracle: nulls for bounds, as records have them: no band, and notes."""
    record = made.experiment(half=None)
    section = experiment_section(made.write_json(tmp_path / "x", "summary.json", record), "", sensitive=None)
    assert "8 of 8 values have no interval" in section.figures[0].notes[0]
    assert "No bands: one seed." in figure(section, "Entropy").notes[0]


def test_one_regime_is_no_panel_of_its_own(tmp_path: Path, made: SimpleNamespace) -> None:
    """Oracle: with a single level the setting disappears from the titles; the facts still name it."""
    record = made.experiment()
    record["aggregates"] = record["aggregates"][:4]
    section = experiment_section(made.write_json(tmp_path / "x", "summary.json", record), "", sensitive=None)
    assert [len(f.panels) for f in section.figures if f.title == "Score"] == [1]
    assert "Learning curves" in titles(section)
    assert ("regime", "rarely, often") in section.facts


def test_the_plane_of_beta_and_lambda(tmp_path: Path, made: SimpleNamespace) -> None:
    """Oracle: each cell at its β and λ; the lines' formula says which G, and that it is assumed where it is."""
    values = {(b, lam): 10 * b + lam for b in (0.1, 0.5, 1.5) for lam in (0.0, 0.6, 2.0)}
    aggregates = [
        {"axes": {"beta": b, "lambda": lam}, "n": 2, "metrics": {"score": made.estimate(value)}}
        for (b, lam), value in values.items()
    ]
    plan = {"name": "beta-lambda", "compared": "beta"}
    record = {"plan": plan, "aggregates": aggregates}
    found = experiment_section(made.write_json(tmp_path / "x", "summary.json", record), "", sensitive=None)
    (plane,) = found.figures
    assert {(row[1], row[2]): row[3] for row in plane.rows} == values
    assert "G = 8 samples per prompt is assumed" in plane.notes[0]
    record["plan"] = plan | {"base": {"rollout": {"num_generations": 4}}}
    found = experiment_section(made.write_json(tmp_path / "x", "summary.json", record), "", sensitive=None)
    assert found.figures[0].notes == ()


def test_a_number_that_was_varied_is_an_axis(tmp_path: Path, made: SimpleNamespace) -> None:
    """Oracle: three group sizes: a line a method through their means, in order of size."""
    aggregates = [
        {"axes": {"method": name, "group": size}, "n": 2, "metrics": {"score": made.estimate(value + size)}}
        for name, value in (("GRPO", 1.0), ("GRAO (paper)", 2.0))
        for size in (8, 2, 32)
    ]
    record = {"plan": {"name": "group-size"}, "aggregates": aggregates}
    section = experiment_section(made.write_json(tmp_path / "x", "summary.json", record), "", sensitive=None)
    assert section.figures[0].title == "Score by group"
    assert [row[:3] for row in section.figures[0].rows][:3] == [
        ("GRPO", 2.0, 3.0),
        ("GRPO", 8.0, 9.0),
        ("GRPO", 32.0, 33.0),
    ]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"plan": None, "aggregates": None, "claims": None, "tuning": None, "answers": None, "provenance": None},
        {"aggregates": [{}]},
        {"aggregates": [{"axes": {"method": "SFT"}, "n": None, "metrics": {"score": None}, "curves": {"score": {}}}]},
        {"aggregates": [{"axes": {"method": "SFT"}, "metrics": {"score": {"value": math.nan}},
                         "curves": {"score": {"x": [0, None], "value": [math.nan, 1.0], "low": [0]}}}]},
        {"claims": [{}], "tuning": [{}], "answers": {"prompts": ["p"], "methods": {"SFT": {}}}},
    ],
)  # fmt: skip
def test_a_record_may_lack_anything(record: dict[str, Any], tmp_path: Path, made: SimpleNamespace) -> None:
    """Oracle: a section comes out, whatever is missing; without aggregates it says so."""
    section = experiment_section(made.write_json(tmp_path / "x", "summary.json", record), "", sensitive=None)
    assert section.kind == "Experiment"
    if not record.get("aggregates"):
        assert "nothing was measured yet" in section.notes[0]


def test_claims_of_several_experiments_stand_in_one_table(tmp_path: Path, made: SimpleNamespace) -> None:
    """Oracle: a first section with the claims of both in turn and the counts of verdicts; a single one has none."""
    record = made.experiment()
    other = {**record, "claims": [{**record["claims"][0], "plan": "other"}]}
    folders = [
        made.write_json(tmp_path / "a", "summary.json", record),
        made.write_json(tmp_path / "b", "summary.json", other),
    ]
    written = write_report(folders, tmp_path / "r.html", title="Both")
    first = written.sections[0]
    assert [section.title for section in written.sections] == ["All claims", *["A made-up experiment"] * 2]
    assert [row[-1] for row in first.tables[0].rows] == ["main", "main", "main", "other"]
    assert set(first.facts) == {("holds", "2 of 4"), ("does not hold", "1 of 4"), ("undecided here", "1 of 4")}
    assert [s.title for s in write_report(folders[:1], tmp_path / "r.html").sections] == ["A made-up experiment"]
