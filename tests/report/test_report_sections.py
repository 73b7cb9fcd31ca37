"""From directories to sections: what is read, what is left out, and that nothing about a broken run is fatal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grao.report import answers, completion_tables
from grao.report.answers import Answer, Asked
from grao.report.comparison import comparison_section, score_statistics
from grao.report.curves import POINTS, CurveTable, numbers, smoothed
from grao.report.evaluation import evaluation_section
from grao.report.section import Figure, Section
from grao.report.training_run import training_section

WriteRun = Callable[..., Path]


def figure(section: Section, title: str) -> Figure:
    return next(f for f in (*section.figures, *section.more) if f.title == title)


def titles(section: Section) -> list[str]:
    return [f.title for f in section.figures]


# --- a training run --------------------------------------------------------------------------------------------------


def test_a_run_shows_everything_it_logged(write_run: WriteRun, made: SimpleNamespace) -> None:
    """Oracle: every metric of the lines is in the table of exactly one figure, but for step, epoch and the sums."""
    run = write_run("first", made.metrics(30))
    section = training_section(run, "first", sensitive=None)
    shown = [{row[0] for row in f.rows} for f in (*section.figures, *section.more)]
    assert set().union(*shown) == set(made.metrics(1)[0]) - {"loss"}
    assert sum(map(len, shown)) == len(set().union(*shown))
    assert ("steps", "30 of 100") in section.facts
    assert ("reward, last", "3.00 at step 30") in section.facts


def test_values_are_those_that_were_logged(write_run: WriteRun, made: SimpleNamespace) -> None:
    """Oracle: reward = step / 10 in the rows; a centred mean of a straight line is the line, but at its ends."""
    section = training_section(write_run("first", made.metrics(30)), "first", sensitive=None)
    rows = [row for row in figure(section, "Reward").rows if row[0] == "reward"]
    assert [(row[2], row[3]) for row in rows] == [(float(step), step / 10) for step in range(1, 31)]
    assert [row[4] for row in rows[2:-2]] == pytest.approx([row[3] for row in rows[2:-2]])


def test_a_run_without_metrics_and_one_that_was_killed(write_run: WriteRun, made: SimpleNamespace) -> None:
    """Oracle: a note and no figure; a torn last line is as if it had not been written."""
    empty = training_section(write_run("empty"), "empty", sensitive=None)
    assert empty.figures == ()
    assert "No metrics were logged" in empty.notes[0]
    whole = write_run("whole", made.metrics(3))
    torn = write_run("torn", made.metrics(3))
    with (torn / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 4, "reward": 0.')
    a, b = (training_section(path, "", sensitive=None) for path in (whole, torn))
    assert [f.rows for f in a.figures] == [f.rows for f in b.figures]


def test_what_is_no_number_is_left_out_and_counted(write_run: WriteRun) -> None:
    """Oracle: two of four values are finite; the note counts the other two."""
    run = write_run("odd", [{"reward": 1.0}, {"reward": math.nan}, {"reward": "high"}, {"reward": 4.0}, {"kl": 1.0}])
    found = figure(training_section(run, "", sensitive=None), "Reward")
    assert [(row[2], row[3]) for row in found.rows] == [(1.0, 1.0), (4.0, 4.0)]
    assert "2 logged values are not finite numbers and are left out." in found.notes


def test_long_runs_are_thinned_to_means() -> None:
    """Oracle: 1,000 points become 200 means of 5; the mean of all is kept."""
    lines = [{"step": step, "reward": float(step % 7)} for step in range(1000)]
    table = CurveTable()
    series = table.line(lines, "reward", "reward")
    assert series is not None
    assert len(series.x) == 200 <= POINTS
    assert sum(row[3] for row in table.rows) / 200 == pytest.approx(sum(n % 7 for n in range(1000)) / 1000)
    assert "Each point is the mean of up to 5 logged steps." in table.notes()
    assert numbers(lines, "reward")[0] == [float(step) for step in range(1000)]
    assert len(smoothed(list(range(50)))) == 50


def test_held_out_intervals_become_a_band(write_run: WriteRun) -> None:
    """Oracle: the bounds as logged, at the steps of the evaluations only."""
    lines = [{"reward": 1.0}, {"eval_reward": 0.5, "eval_reward_low": 0.25, "eval_reward_high": 0.75}, {"reward": 2.0}]
    found = figure(training_section(write_run("held", lines), "", sensitive=None), "Reward")
    assert [row for row in found.rows if row[0] == "eval_reward"] == [
        ("eval_reward", "held-out", 2.0, 0.5, 0.5, 0.25, 0.75)
    ]


def test_terms_of_a_later_stage_are_nothing_before_it(write_run: WriteRun) -> None:
    """Oracle: a chain logs imitation first and policy later: each is 0 where the other is, and both are stacked."""
    lines: list[dict[str, Any]] = [{"loss/imitation": 2.0}] * 2 + [{"loss/policy": -1.0}] * 2
    section = training_section(write_run("chain", lines), "", sensitive=None)
    rows = [(row[1], row[3]) for row in figure(section, "Term by term").rows]
    assert rows == [("imitation", v) for v in (2, 2, 0, 0)] + [("policy", v) for v in (0, 0, -1, -1)]


def test_completions_are_groups_with_their_reference(write_run: WriteRun, made: SimpleNamespace) -> None:
    """Oracle: the rows written: samples in order with rewards, None unscored; the reference apart; both steps."""
    conversation = [{"role": "user", "content": "hello"}]
    steps = {
        1: made.group(7, "p", "ref", [("one", 0.25), ("two", None)]),
        5: made.group(8, conversation, "ref", [("three", 1.0)]) + made.group(9, "q", "r", [("four", 2.0)]),
    }
    (found,) = training_section(write_run("c", made.metrics(5), steps), "", sensitive=None).answers
    assert [(one.step, one.prompt, one.reference, one.reference_score) for one in found.asked] == [
        (1, "p", "ref", 1.0),
        (5, "user: hello", "ref", 1.0),
        (5, "q", "r", 1.0),
    ]
    assert [(a.text, a.score, a.advantage) for a in found.asked[0].answers] == [("one", 0.25, 0.5), ("two", None, 0.5)]
    assert found.names == ("sample 1", "sample 2")
    assert found.notes == ()


def test_answers_cut_at_the_limit_say_so(write_run: WriteRun, made: SimpleNamespace) -> None:
    """Oracle: the note of the one whose `finish` is length, none for the one that stopped."""
    rows = made.group(1, "p", "r", [("whole", 1.0), ("cut", 1.0)])
    rows[1]["finish"] = "length"
    (found,) = training_section(write_run("cut", made.metrics(1), {1: rows}), "", sensitive=None).answers
    assert [answer.note for answer in found.asked[0].answers] == ["", "cut at the length limit"]


def test_a_browser_holds_so_many_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: prompts of two answers, room for five: two prompts stay, and the note counts the third."""
    monkeypatch.setattr(answers, "ANSWER_LIMIT", 5)
    asked = [Asked(f"p{i}", (Answer(0, "a", 1.0), Answer(1, "b", 1.0))) for i in range(3)]
    kept, notes = answers.limited("Answers", asked)
    assert [one.prompt for one in kept] == ["p0", "p1"]
    assert notes == ("Answers: 1 of 3 prompts are left out: a page holds 5 answers",)
    assert answers.limited("Answers", asked[:2]) == (tuple(asked[:2]), ())


def test_too_many_completions_are_spread_and_counted(
    write_run: WriteRun, made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: room for 10 answers at 2 a step is 5 of 9 steps, the first and the last among them."""
    monkeypatch.setattr(completion_tables, "ANSWER_LIMIT", 10)
    steps = {step: made.group(1, "p", "r", [("a", 1.0), ("b", 0.0)]) for step in range(1, 10)}
    (found,) = training_section(write_run("many", made.metrics(9), steps), "", sensitive=None).answers
    assert [one.step for one in found.asked] == [1, 3, 5, 7, 9]
    assert found.notes[0].startswith("5 of 9 steps with completions are on this page")


def test_one_step_beyond_the_limit_is_cut_by_whole_prompts(
    write_run: WriteRun, made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: three prompts of two answers, room for four: two prompts stay, and the note counts them."""
    monkeypatch.setattr(completion_tables, "ANSWER_LIMIT", 4)
    rows = [row for i in range(3) for row in made.group(i, f"p{i}", "r", [("a", 1.0), ("b", 0.0)])]
    (found,) = training_section(write_run("big", made.metrics(1), {1: rows}), "", sensitive=None).answers
    assert [one.prompt for one in found.asked] == ["p0", "p1"]
    assert "1 of 3 prompts" in found.notes[0]


def test_long_texts_end_in_how_much_was_cut() -> None:
    """Oracle: by hand."""
    text = "x" * (answers.TEXT_LIMIT + 5)
    assert answers.cut(text) == "x" * answers.TEXT_LIMIT + " … [5 more characters]"
    assert answers.cut("short") == "short"


def test_completions_that_cannot_be_read_are_said_to_be_missing(write_run: WriteRun, made: SimpleNamespace) -> None:
    """Oracle: a file that is no parquet: a note with its step, and the other step is there."""
    steps = {step: made.group(1, "p", "r", [("a", 1.0)]) for step in (1, 2)}
    run = write_run("broken", made.metrics(2), steps)
    (run / "completions" / "completions_00001.parquet").write_bytes(b"PAR1 nothing")
    (found,) = training_section(run, "", sensitive=None).answers
    assert [one.step for one in found.asked] == [2]
    assert "The completions of step 1 could not be read" in found.notes[0]


@pytest.mark.parametrize(
    ("config", "asked", "blurred"),
    [
        ({}, None, False),
        ({"data": {"source": "rows", "format": "hh"}}, None, True),
        ({"data": {"source": "Anthropic/HH-RLHF"}}, None, True),
        ({"data": {"source": "Anthropic/hh-rlhf"}}, False, False),
        ({}, True, True),
    ],
)
def test_texts_that_may_offend(
    config: dict[str, Any], asked: bool | None, blurred: bool, write_run: WriteRun, made: SimpleNamespace
) -> None:
    """Oracle: HH-RLHF by its format or name; the reader's word counts more."""
    run = write_run("hh", made.metrics(1), {1: made.group(1, "p", "r", [("a", 1.0)])}, **config)
    (found,) = training_section(run, "", sensitive=asked).answers
    assert found.sensitive is blurred


def test_a_directory_without_objective_is_no_training_run(write_run: WriteRun) -> None:
    """Oracle: the sentence: an evaluation under way has a config.yaml too."""
    run = write_run("evaluation")
    (run / "config.yaml").write_text("models: []\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has no objective, so this is no training run"):
        training_section(run, "", sensitive=None)


# --- a comparison ----------------------------------------------------------------------------------------------------


def test_a_comparison_in_figures(tmp_path: Path, made: SimpleNamespace) -> None:
    """Oracle: the record's numbers in the tables behind the figures."""
    section = comparison_section(
        made.write_json(tmp_path / "demo", "comparison.json", made.comparison()), "", sensitive=None
    )
    assert [row[1:3] for row in figure(section, "Score").rows] == [(n, i + 1.0) for i, n in enumerate(made.METHODS)]
    points = {row[1]: (row[2], row[5]) for row in figure(section, "What does the gain cost?").rows}
    assert points == {name: (2.0 * i, i + 1.0) for i, name in enumerate(made.METHODS)}  # the base stands at 0
    assert [row[2:] for row in figure(section, "Against the reference").rows] == [(i, 1, 5 - i) for i in range(4)]
    assert {row[0] for row in figure(section, "Score by category").rows} == {"harmful", "benign"}
    assert figure(section, "Wins, distance and cost").notes[0].startswith("base has no value for: NAG")
    spread = figure(section, "How the scores spread").rows[2]
    assert spread[2:] == (3.0, pytest.approx(2 / 3), 2.5, 3.0, 3.5)
    (found,) = section.answers
    assert [a.text for a in found.asked[1].answers] == [f"{name} says two ." for name in made.METHODS]
    assert [a.score for a in found.asked[1].answers] == [1.0, 2.0, 3.0, 4.0]
    assert "curves are left out" in section.notes[0]


def test_a_comparison_shows_the_runs_beside_it(tmp_path: Path, write_run: WriteRun, made: SimpleNamespace) -> None:
    """Oracle: rewards of the runs that are there; a note for the one that is gone."""
    write_run("demo/grao", made.metrics(4))
    record = made.comparison() | {"runs": {"GRAO (paper)": "grao", "GRPO": "grpo"}}
    section = comparison_section(made.write_json(tmp_path / "demo", "comparison.json", record), "", sensitive=None)
    rows = [row for row in figure(section, "Training, side by side").rows if row[0] == "reward"]
    assert [(row[1], row[3]) for row in rows] == [("GRAO (paper)", step / 10) for step in range(1, 5)]
    assert section.notes == ("The run of GRPO (grpo/) is missing: its curves are left out.",)


def test_records_with_gaps_are_shown_with_gaps(tmp_path: Path, made: SimpleNamespace) -> None:
    """Oracle: no results; results without a single number; NaN: a note or a missing figure, never an exception."""
    empty = made.write_json(tmp_path / "a", "comparison.json", {"results": []})
    assert comparison_section(empty, "", sensitive=None).notes == ("comparison.json has no results.",)
    bare = {"results": [{"name": "SFT"}, {"name": "GRPO", "score": {"value": math.nan, "low": math.inf}}]}
    section = comparison_section(made.write_json(tmp_path / "b", "comparison.json", bare), "", sensitive=None)
    assert section.figures == ()
    assert "The record has no answers." in section.notes


def test_statistics_of_scores() -> None:
    """Oracle: 1, 2, 3, 4 by hand: mean 2.5, population variance 1.25, quartiles between neighbours."""
    found = score_statistics([1, 2, None, 3, math.nan, 4])
    assert found == {"mean": 2.5, "variance": 1.25, "q25": 1.75, "q50": 2.5, "q75": 3.25}
    assert score_statistics([1.0]) == {}


# --- an evaluation ---------------------------------------------------------------------------------------------------


def test_an_evaluation_and_its_items(tmp_path: Path, made: SimpleNamespace) -> None:
    """Oracle: the record's means; answers of both models under their prompt; items that are gone are noted."""
    whole = {
        "unscored": 2,
        "reward": {"mean": made.estimate(0.5), "variance": 0.25, "quartiles": [0.0, 0.5, 1.0]},
        "counts": {"wins": 1, "ties": 2, "losses": 3, "unscored": 0},
        "kl": made.estimate(1.5),
        "lengths": {"tokens": {"mean": made.estimate(12.0)}, "limited": made.estimate(0.1, 0.05)},
    }
    summary = {"all": whole, "by_category": {"harmful": whole}}
    models = {name: {"summary": summary} for name in ("base", "tuned", "gone")}
    record = {"models": models, "differences": [{"model": "tuned", "against": "base", "reward": made.estimate(0.1)}]}
    folder = made.write_json(tmp_path / "e", "evaluation.json", record)
    (folder / "items").mkdir()
    for name in ("base", "tuned"):
        rows = [{"row": 3, "prompt": "p", "reference": "r", "answer": f"{name} {i}", "category": "harmful",
                 "finish": "length", "reward": 0.5 * i, "reference_reward": 1.0} for i in range(2)]  # fmt: skip
        rows.append(rows[0] | {"row": 1, "prompt": "first"})
        pq.write_table(pa.Table.from_pylist(rows), folder / "items" / f"{name}.parquet")
    section = evaluation_section(folder, "", sensitive=None)
    assert [row[1:3] for row in figure(section, "Reward").rows] == [(name, 0.5) for name in models]
    assert figure(section, "Against the reference").rows[0][2:] == (1, 2, 3)
    assert {row[0] for row in figure(section, "Wins, distance, length").rows} >= {"KL to the base", "Length"}
    ((asked,),) = ([found.asked for found in section.answers],)
    assert [one.prompt for one in asked] == ["first", "p"]  # by row
    assert [(a.name, a.text, a.score) for a in asked[1].answers] == [
        (0, "base 0", 0.0),
        (0, "base 1", 0.5),
        (1, "tuned 0", 0.0),
        (1, "tuned 1", 0.5),
    ]
    assert asked[1].reference_score == 1.0
    assert section.notes[0] == "base: 2 answers are unscored and in no mean."
    assert "The answers of gone are left out" in section.notes[-1]


def test_records_that_are_no_json(tmp_path: Path) -> None:
    """Oracle: the file's name and what to do, or what was found instead of an object."""
    (tmp_path / "comparison.json").write_text('{"seed": 0', encoding="utf-8")
    with pytest.raises(ValueError, match=r"comparison\.json is not JSON"):
        comparison_section(tmp_path, "", sensitive=None)
    (tmp_path / "comparison.json").write_text(json.dumps([1]), encoding="utf-8")
    with pytest.raises(ValueError, match="holds a list, but a record of grao is an object"):
        comparison_section(tmp_path, "", sensitive=None)
