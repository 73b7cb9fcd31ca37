"""An experiment from start to end: what is recorded, what is refused, and that killing it changes nothing."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from rich.console import Console

from grao.configuration import build, dump_yaml, with_values
from grao.demo.dialogue import Dialogue
from research import experiment_runner
from research.code_version import versions
from research.committed_record import rounded, summary_from_cells, write_record
from research.experiment_plan import ExperimentPlan
from research.experiment_runner import run_experiment

pytestmark = pytest.mark.slow

PLAN: dict[str, Any] = {
    "name": "tiny",
    "title": "A tiny plan",
    "description": "For tests.",
    "base": {
        "task": {"base_steps": 30, "n_train": 32, "n_validation": 15, "n_test": 20},
        "objective": {"name": "grao"},
        "rollout": {"num_generations": 2, "max_new_tokens": 12},
        "trainer": {"learning_rate": 1e-3, "max_steps": 2, "per_device_train_batch_size": 4},
    },
    "axes": {
        "method": [
            {"label": "base", "trained": False},
            {
                "label": "SFT",
                "overrides": {"objective": {"name": "sft"}},
                "grid": {"trainer.learning_rate": [1e-3, 1e-2]},
            },
            {"label": "GRAO (paper)", "grid": {"objective.beta": [0.5, 1.0]}},
        ]
    },
    "seeds": [0, 1],
    "tuning": {"per": ["method"], "seeds": [100]},
    "curves": {"every": 1, "prompts": 6, "thresholds": {"score": -9.0}},
    "series": ["kl", "loss/exploration"],
    "claims": [
        {
            "id": "gain",
            "claim": "GRAO beats SFT",
            "source": "a test",
            "metric": "score",
            "of": {"method": "GRAO (paper)"},
            "less": {"method": "SFT"},
            "above": 0,
        }
    ],
}


def plan(*changes: tuple[str, Any]) -> ExperimentPlan:
    return build(ExperimentPlan, with_values(PLAN, changes))


def run(output: Path, *changes: tuple[str, Any], **settings: Any) -> str:
    """Runs it with two processes; what it said."""
    said = StringIO()
    run_experiment(plan(*changes), output, jobs=2, console=Console(file=said, width=200), **settings)
    return said.getvalue()


def records(folder: Path) -> dict[str, bytes]:
    """Name → bytes of everything that is a record: all but times, logs and the summary, which holds times."""
    files = [
        path for pattern in ("tuning.json", "tuning/*", "cells/*", "tasks/*/*.json*") for path in folder.glob(pattern)
    ]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def without_times(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_bytes())
    for aggregate in summary["aggregates"]:
        aggregate["metrics"].pop("cpu_seconds", None)
    summary["plan"]["metrics"].pop("cpu_seconds", None)
    return summary


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experiment") / "tiny"
    run(folder)
    return folder


def cell(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "cells" / f"{name}.json").read_bytes())
    return found


def test_every_cell_has_a_record(finished: Path) -> None:
    """Oracle: names by hand; no run is left, a time and a log lie beside each record."""
    names = {f"{method}--seed{seed}.json" for method in ("base", "sft", "grao-paper") for seed in (0, 1)}
    assert {file.name for file in finished.glob("cells/*")} == names
    assert {file.name for file in finished.glob("timings/cells/*")} == names
    tried = {f"{method}--seed100--setting{i}.json" for method in ("sft", "grao-paper") for i in (0, 1)}
    assert {file.name for file in finished.glob("tuning/*")} == tried
    assert len(list(finished.glob("logs/*/*.txt"))) == 3 + 4 + 6
    assert list(finished.glob("work/*/*")) == []


def test_a_record_is_about_the_test_prompts(finished: Path) -> None:
    """Oracle: the task's own score of each answer; plain loops over them; the seeded's files."""
    record, task = cell(finished, "grao-paper--seed0"), Dialogue()
    answers = record["answers"]
    seeded = next(finished.glob("tasks/*-seed0"))
    rows = [json.loads(line) for line in (seeded / "test.jsonl").read_text().splitlines()]
    assert answers["prompts"] == [row["prompt"] for row in rows]
    assert answers["references"] == [row["reference"] for row in rows]
    scores = [task.score(p, a) for p, a in zip(answers["prompts"], answers["answers"], strict=True)]
    assert answers["scores"] == scores
    assert answers["reference_scores"] == [task.score(row["prompt"], row["reference"]) for row in rows]
    assert record["metrics"]["score"] == record["rewards"]["mean"] == pytest.approx(fmean(scores))
    wins = [s > y for s, y in zip(scores, answers["reference_scores"], strict=True)]
    assert record["metrics"]["ras"] == fmean(wins)
    harmful = [i for i, row in enumerate(rows) if row["category"] == "harmful"]
    assert record["by_category"]["harmful"] == {
        "score": pytest.approx(fmean(scores[i] for i in harmful)),
        "ras": fmean(wins[i] for i in harmful),
        "n": 7,
    }
    assert "answers" not in cell(finished, "grao-paper--seed1")


def test_a_record_knows_what_was_spent_and_how_it_went(finished: Path) -> None:
    """Oracle: two steps, measured at 0, 1 and 2; the base spends nothing; SFT draws nothing; what was spent rises."""
    grao, sft = cell(finished, "grao-paper--seed0"), cell(finished, "sft--seed0")
    assert grao["curve"]["step"] == sft["curve"]["step"] == [0, 1, 2]
    assert grao["curve"]["score"][0] == sft["curve"]["score"][0]  # the same base, asked greedily
    assert grao["curve"]["flops"] == sorted(grao["curve"]["flops"])
    assert grao["curve"]["flops"][-1] == grao["metrics"]["flops"]
    assert (sft["metrics"]["tokens_sampled"], sft["curve"]["tokens_sampled"]) == (0, [0, 0, 0])
    assert grao["metrics"]["tokens_sampled"] > 0
    assert grao["metrics"]["steps_to_score"] == 0.0
    assert "flops" not in cell(finished, "base--seed0")["metrics"]
    assert set(grao["series"]) == {"step", "kl", "loss/exploration"}
    assert set(sft["series"]) == {"step"}


def test_tuning_saw_validation_prompts_only_and_was_settled_before(finished: Path) -> None:
    """Oracle: 15 validation prompts and 20 test prompts, counted; the best value by a plain loop; its setting in every
    test cell; the file's own digest in the summary, and its time before the first test record's.
    """
    tuning = json.loads((finished / "tuning.json").read_bytes())
    chosen = {}
    for row in tuning["table"]:
        label = row["axes"]["method"]
        values = []
        for number, tried in enumerate(row["grid"]):
            slug = {"SFT": "sft", "GRAO (paper)": "grao-paper"}[label]
            record = json.loads((finished / "tuning" / f"{slug}--seed100--setting{number}.json").read_bytes())
            assert sum(category["n"] for category in record["by_category"].values()) == 15
            assert (tried["value"], tried["setting"]) == (record["metrics"]["score"], record["identity"]["setting"])
            values.append(tried["value"])
        chosen[label] = row["grid"][values.index(max(values))]["setting"]
        assert row["chosen"] == chosen[label]
    assert set(chosen) == {"SFT", "GRAO (paper)"}
    for seed in (0, 1):
        assert cell(finished, f"sft--seed{seed}")["identity"]["setting"] == chosen["SFT"]
        assert sum(c["n"] for c in cell(finished, f"sft--seed{seed}")["by_category"].values()) == 20
    digest = hashlib.sha256((finished / "tuning.json").read_bytes()).hexdigest()
    assert json.loads((finished / "summary.json").read_bytes())["provenance"]["tuning_sha256"] == digest


def test_the_summary_is_the_records_mean(finished: Path) -> None:
    """Oracle: plain means over the two seeds; the parts that a report reads are there."""
    summary = json.loads((finished / "summary.json").read_bytes())
    assert set(summary) >= {"plan", "aggregates", "differences", "claims", "tuning", "answers", "provenance"}
    sft = next(one for one in summary["aggregates"] if one["axes"] == {"method": "SFT"})
    seeds = [cell(finished, f"sft--seed{seed}") for seed in (0, 1)]
    assert (sft["n"], sft["diverged"]) == (2, 0)
    for name in ("score", "kl", "flops"):
        assert sft["metrics"][name]["value"] == pytest.approx(fmean(one["metrics"][name] for one in seeds))
    assert sft["by_category"]["harmful"]["score"]["value"] == pytest.approx(
        fmean(one["by_category"]["harmful"]["score"] for one in seeds)
    )
    assert sft["curves"]["score"]["x"] == [0, 1, 2]
    assert len(sft["curves"]["score_by_compute"]["x"]) == 13
    assert sft["metrics"]["cpu_seconds"]["value"] > 0
    assert summary["plan"]["metrics"]["ras"] == {"label": "RAS", "unit": "share of prompts", "better": "higher"}
    assert list(summary["answers"]["methods"]) == ["base", "SFT", "GRAO (paper)"]
    (gain,) = summary["claims"]
    assert gain["verdict"] == "undecided here"
    gains = [cell(finished, f"grao-paper--seed{s}")["metrics"]["score"] - seeds[s]["metrics"]["score"] for s in (0, 1)]
    assert gain["effect"]["value"] == pytest.approx(fmean(gains))
    found = [
        d for d in summary["differences"] if (d["of"], d["less"], d["metric"]) == ("GRAO (paper)", "SFT", "score")
    ]
    assert [d["value"] for d in found] == [gain["effect"]["value"]]


def test_what_is_done_is_not_done_again(finished: Path) -> None:
    """Oracle: times of change; the same words in the summary."""
    before = {file: file.stat().st_mtime_ns for file in finished.glob("*/*.json")}
    summary = (finished / "summary.json").read_bytes()
    assert "failed" not in run(finished)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert (finished / "summary.json").read_bytes() == summary


def test_results_of_other_code_are_refused(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the sentence names what differs, and how to start over; nothing has changed."""
    before = records(finished)
    monkeypatch.setattr(experiment_runner, "code_version", lambda: "another")
    monkeypatch.setattr(experiment_runner, "versions", lambda: {**versions(), "torch": "9.9"})
    with pytest.raises(ValueError, match="Start over with --overwrite, or write elsewhere with --output") as refused:
        run(finished)
    assert "'another' now" in str(refused.value)
    assert f"versions.torch: {versions()['torch']!r} then, '9.9' now" in str(refused.value)
    assert records(finished) == before


def test_results_of_other_settings_are_refused(finished: Path) -> None:
    """Oracle: the sentence, with the key and both values; the plan that stands there is still the records' own."""
    before = (finished / "experiment.json").read_bytes()
    with pytest.raises(ValueError, match=r"run\.rollout\.max_new_tokens: 12 then, 13 now"):
        run(finished, ("base.rollout.max_new_tokens", 13))
    assert (finished / "experiment.json").read_bytes() == before


def test_one_command_at_a_time(finished: Path) -> None:
    """Oracle: a lock held here."""
    with (finished / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another command is running the experiment"):
            run(finished)


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """Oracle: the sentence, also where it is to be overwritten; the file is still there."""
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match=r"holds no experiment\.json"):
        run(tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_overwriting_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: what was there is gone before anything runs."""
    (tmp_path / "experiment.json").write_text("{}", encoding="utf-8")
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "old.json").write_text("{}", encoding="utf-8")
    seen: list[list[str]] = []
    monkeypatch.setattr(experiment_runner, "_run", lambda *_: seen.append(sorted(p.name for p in tmp_path.iterdir())))
    run(tmp_path, overwrite=True)
    assert seen == [[".lock", "experiment.json"]]


BROKEN = [
    {"label": "broken", "overrides": {"model.attn_implementation": "nonsense"}},
    {"label": "diverges", "overrides": {f"trainer.{key}": 1e30 for key in ("learning_rate", "max_grad_norm")}},
    {"label": "well"},
]


def test_a_cell_that_fails_is_named_and_one_that_diverges_is_an_outcome(tmp_path: Path) -> None:
    """Oracle: the sentence with the log, which holds the reason; all others are done; without the broken level the
    same directory is finished, and the diverged run is counted, not averaged.
    """
    changes = [("axes.method", BROKEN), ("tuning", None), ("claims", []), ("seeds", [0])]
    with pytest.raises(ChildProcessError, match=r"1 of 3 cells failed, the others are done") as failed:
        run(tmp_path, *changes)
    log = tmp_path / "logs" / "cells" / "broken--seed0.txt"
    assert str(log) in str(failed.value)
    assert "nonsense" in log.read_text()
    assert {file.name for file in tmp_path.glob("cells/*")} == {"diverges--seed0.json", "well--seed0.json"}
    assert not (tmp_path / "summary.json").exists()
    assert "2 done before" in run(tmp_path, *changes, ("axes.method", BROKEN[1:]))
    diverged, well = json.loads((tmp_path / "summary.json").read_bytes())["aggregates"]
    assert (diverged["n"], diverged["diverged"], diverged["metrics"]) == (0, 1, {})
    assert (well["n"], well["diverged"]) == (1, 0)
    assert "is nan" in cell(tmp_path, "diverges--seed0")["diverged"]


def test_killed_twice_and_continued(finished: Path, tmp_path: Path, start_grao: Callable[..., Any]) -> None:
    """Oracle: the same experiment uninterrupted: every record has its bytes, and the summary its words but for times.
    It is killed once while settings are tuned, and once in the middle of the cells.
    """
    (tmp_path / "tiny.yaml").write_text(dump_yaml(PLAN), encoding="utf-8")
    command = ("run", "tiny.yaml", "--output", "out", "--jobs", "2")
    output = tmp_path / "out"

    def at_work(kind: str, records: int) -> bool:
        return len(list(output.glob(f"{kind}/*"))) >= records and any(output.glob(f"work/{kind}/*/metrics.jsonl"))

    start_grao(tmp_path, *command, program="research").kill_when(lambda: at_work("tuning", 1))
    left = len(records(output))
    start_grao(tmp_path, *command, program="research").kill_when(lambda: at_work("cells", 2))
    assert left < len(records(output)) < len(records(finished))
    said = start_grao(tmp_path, *command, program="research").finish()
    assert "done before" in said
    assert records(output) == records(finished)
    assert without_times(output) == without_times(finished)


OVERFLOWS = {"trainer.optim": "sgd", "trainer.learning_rate": 1e38, "trainer.weight_decay": 1e4}


def test_weights_that_the_last_step_broke_are_found(tmp_path: Path) -> None:
    """Oracle: one step that makes weights 1e42 times themselves, beyond float32: no loss comes after it."""
    only = [{"label": "overflows", "overrides": OVERFLOWS}]
    run(
        tmp_path,
        ("axes.method", only),
        ("tuning", None),
        ("claims", []),
        ("seeds", [0]),
        ("base.trainer.max_steps", 1),
    )
    assert "no finite log-probability" in cell(tmp_path, "overflows--seed0")["diverged"]


def test_what_is_kept_gives_the_same_summary(finished: Path, tmp_path: Path) -> None:
    """Oracle: the experiment's own summary, in six digits, without what training logged; files copied whole."""
    write_record(finished, tmp_path / "kept")
    whole, again = (
        rounded(s)
        for s in (json.loads((finished / "summary.json").read_bytes()), summary_from_cells(tmp_path / "kept"))
    )
    logged = {"kl", "loss/exploration"}
    for aggregate in whole["aggregates"]:
        aggregate["curves"] = {name: curve for name, curve in aggregate["curves"].items() if name not in logged}
    assert logged & set(json.loads((finished / "summary.json").read_bytes())["aggregates"][2]["curves"]) == logged
    for part in ("plan", "aggregates", "differences", "claims", "tuning"):
        assert again[part] == whole[part]
    for name in ("experiment.json", "tuning.json"):
        assert (tmp_path / "kept" / name).read_bytes() == (finished / name).read_bytes()


def test_kept_answers_are_the_first_ones(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: slices of the experiment's own lists."""
    monkeypatch.setattr("research.committed_record.ANSWERS", 7)
    kept = json.loads(write_record(finished, tmp_path / "kept").read_bytes())["answers"]
    whole = json.loads((finished / "summary.json").read_bytes())["answers"]
    assert len(whole["prompts"]) == 20
    assert kept["prompts"] == whole["prompts"][:7]
    assert kept["methods"]["SFT"]["answers"] == whole["methods"]["SFT"]["answers"][:7]
    assert kept["seed"] == whole["seed"]


def test_cells_that_the_plan_no_longer_has_are_not_kept(finished: Path, tmp_path: Path) -> None:
    """Oracle: a cell of another seed beside the plan's own, as dropping a seed leaves it: the same files."""
    wider = shutil.copytree(finished, tmp_path / "wider")
    shutil.copy(wider / "cells" / "sft--seed1.json", wider / "cells" / "sft--seed7.json")
    for folder, name in ((finished, "one"), (wider, "two")):
        write_record(folder, tmp_path / name)
    for file in ("cells.jsonl", "summary.json", "tuning.json", "experiment.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_nothing_unfinished_is_kept(finished: Path, tmp_path: Path) -> None:
    """Oracle: no summary, fewer cells than it is about, or another plan: each said, nothing written."""
    with pytest.raises(FileNotFoundError, match=r"holds no summary.json: the experiment is not finished"):
        write_record(tmp_path, tmp_path / "kept")
    for name in ("summary.json", "experiment.json"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    with pytest.raises(ValueError, match=r"holds 0 cells, and its summary is about 6"):
        write_record(tmp_path, tmp_path / "kept")
    other = (finished / "experiment.json").read_text().replace('"max_new_tokens": 12', '"max_new_tokens": 13')
    (tmp_path / "experiment.json").write_text(other)
    with pytest.raises(ValueError, match=r"experiment\.json holds another plan than summary\.json is about"):
        write_record(tmp_path, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
