"""The command line in this process: texts, exit statuses, overrides; and that the console script is there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from grao.cli import main
from grao.configuration import describe
from grao.evaluation import EvaluateConfig
from grao.objectives import OBJECTIVES
from grao.rewards.errors import RewardError
from grao.rollout import EngineError
from grao.training import RunConfig
from grao.version import __version__

COMMANDS = ("train", "evaluate", "report", "show", "schema", "base", "task", "demo")

CONFIG = """\
model: {path: ./nowhere}
data: {source: rows.jsonl}
objective: {name: grao}
rewards:
  - path: exact_match
"""

MODELS = """\
models: [{name: a, path: ./nowhere}]
data: {source: rows.jsonl}
rewards: [{path: exact_match}]
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `grao ...` beside run.yaml and rows.jsonl; gives the exit status, stdout and stderr."""
    (tmp_path / "run.yaml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "models.yaml").write_text(MODELS, encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "a", "reference": "b"}) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRAO_TRACEBACK", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(arguments)
        except SystemExit as stop:  # argparse: help, version, wrong usage
            status = int(stop.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


# --- help ------------------------------------------------------------------------------------------------------------


def test_help_names_every_command(run: Run) -> None:
    """Oracle: the list of commands; without a command the help is shown as well."""
    status, out, _ = run("--help")
    assert status == 0
    for command in COMMANDS:
        assert f"grao {command}" in out
    assert "usage: grao" in out
    assert run()[:2] == (0, out)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(command: str, run: Run) -> None:
    """Oracle: the usage line, an example that starts with the command, and its own flags."""
    status, out, _ = run(command, "--help")
    assert status == 0
    assert f"usage: grao {command}" in out
    assert f"\n  grao {command} " in out.split("Example")[1]
    flags = {
        "train": ("--resume", "--overwrite"),
        "evaluate": ("--model", "--overwrite", "RUN_DIRECTORY"),
        "show": ("--keys",),
        "demo": ("--output", "--steps"),
        "report": ("--output", "--figures", "--no-blur", "comparison.json", "config.yaml"),
    }
    assert [flag for flag in flags.get(command, ()) if flag not in out] == []


def test_version(run: Run) -> None:
    """Oracle: version.py."""
    assert run("--version")[:2] == (0, f"grao {__version__}\n")


def test_help_does_not_load_torch() -> None:
    """Oracle: the modules of a fresh interpreter: help must answer at once."""
    code = "import sys, grao.cli; grao.cli.main([]); sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


# --- show ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["--objective.name", "grao-recommended"],
        ["--objective.name", "grpo", "--objective.kl", "0.04"],
        ["--objective.name", "dr-grpo", "--objective.length", "128"],
        ["--model.lora.r", "4", "--rollout.stop", "['\\n\\n']", "--trainer.num_train_epochs", "2"],
        ["--evaluation.data.source", "rows.jsonl", "--evaluation.every", "5"],
    ],
)
def test_what_is_shown_is_the_same_configuration(overrides: list[str], run: Run) -> None:
    """Oracle: an identity: fed back as a configuration, it shows itself."""
    status, shown, _ = run("show", "run.yaml", *overrides)
    assert status == 0
    Path("shown.yaml").write_text(shown, encoding="utf-8")
    assert run("show", "shown.yaml")[:2] == (0, shown)


def test_overrides_are_shown(run: Run) -> None:
    """Oracle: the values by hand, in each way to write one; defaults beside them."""
    _, out, _ = run(
        *("show", "run.yaml", "--objective.beta", "0.3", "rollout.temperature=0.7"),
        *("--rewards.0.weight=2", "--trainer.learning_rate", "1e-5", "--data.skip", "-0"),
    )
    shown = yaml.safe_load(out)
    assert (shown["objective"]["beta"], shown["objective"]["lam"]) == (0.3, 0.6)
    assert (shown["rollout"]["temperature"], shown["rewards"][0]["weight"]) == (0.7, 2.0)
    assert float(shown["trainer"]["learning_rate"]) == 1e-5
    assert shown["rollout"]["num_generations"] == 8


def test_an_override_may_stand_before_the_configuration(run: Run) -> None:
    """Oracle: the same command with the override behind."""
    before = run("show", "--objective.beta", "0.3", "run.yaml")
    assert before == run("show", "run.yaml", "--objective.beta", "0.3")
    assert before[0] == 0
    assert run("show", "--objective.beta=0.3", "run.yaml")[1] == before[1]


def test_keys_lists_the_fields_of_every_objective(run: Run) -> None:
    """Oracle: the dataclasses' own fields."""
    out = run("show", "--keys")[1]
    for cls, _ in OBJECTIVES.values():
        for field in fields(cls):
            assert f"objective.{field.name}: " in out


def test_keys_lists_every_key_with_its_default(run: Run) -> None:
    """Oracle: the schema's own list; a sentence under each that has one."""
    status, out, _ = run("show", "--keys")
    assert status == 0
    keys = [*describe(RunConfig), *describe(EvaluateConfig)]
    assert len(keys) > 100
    for key in keys:
        assert f"{key.name}: {key.type} = {key.default}\n    {key.doc}\n" in out


@pytest.mark.parametrize(("kind", "section"), [((), "objective"), (("evaluation",), "models")])
def test_a_schema_is_printed(kind: tuple[str, ...], section: str, run: Run) -> None:
    """Oracle: JSON's own reader; a section of each kind of file."""
    status, out, _ = run("schema", *kind)
    assert status == 0
    assert section in json.loads(out)["properties"]


# --- report ----------------------------------------------------------------------------------------------------------


def write_comparison(folder: Path) -> None:
    """A record as small as they come."""
    folder.mkdir(parents=True)
    record = {"results": [{"name": "SFT", "score": {"value": 1.5, "low": 1.0, "high": 2.0, "n": 3}}]}
    (folder / "comparison.json").write_text(json.dumps(record), encoding="utf-8")


def test_a_report_is_written_where_it_was_asked_for(run: Run) -> None:
    """Oracle: the file, its title and figures; on stdout what is missing, and where the page lies."""
    write_comparison(Path("demo"))
    status, out, _ = run(
        "report", "demo", "--output", "out/page.html", "--title", "Mine & yours", "--figures", "out/f"
    )
    assert status == 0
    assert "<title>Mine &amp; yours</title>" in Path("out/page.html").read_text(encoding="utf-8")
    assert [path.name for path in Path("out/f").iterdir()] == ["demo-score.svg"]
    assert out.splitlines()[-1].startswith("out/page.html (0.")
    assert "note: The record has no answers." in out


def test_the_demo_ends_with_its_report(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the page beside the record that the demo wrote, and its path on the last line."""
    monkeypatch.setattr("grao.demo.run_demo.run_demo", lambda output, **_: write_comparison(Path(output)))
    status, out, _ = run("demo", "--output", "runs/small")
    assert status == 0
    assert out.splitlines()[-1] == "Open the report in a browser: runs/small/report.html"
    assert "Score" in Path("runs/small/report.html").read_text(encoding="utf-8")


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere.yaml"], "grao: there is no config file nowhere.yaml"),
        (["train", "run.yaml"], "grao: model.path='./nowhere' looks like a path, but there is no such directory"),
        (["train", "run.yaml", "--data.source", "row.jsonl"], "grao: no file or folder 'row.jsonl'. Did you"),
        (
            ["show", "run.yaml", "--objective.bta", "1"],
            "grao: the configuration: objective.bta is not known (did you me",
        ),
        (
            ["show", "run.yaml", "--objective.beta"],
            "grao: --objective.beta has no value. Write --objective.beta VALUE",
        ),
        (
            ["show", "run.yaml", "--rollout.max_new_tokens", "x"],
            "grao: rollout.max_new_tokens: expected int, found 'x'",
        ),
        (["show"], "grao: no configuration was given: name a YAML file, or list all keys with --keys"),
        (["evaluate", "nowhere.yaml"], "grao: there is no config file nowhere.yaml"),
        (["evaluate", "run.yaml"], "grao: model: unknown key; did you mean models?"),
        (["evaluate", "models.yaml", "--kl", "maybe"], "grao: kl: expected bool, found 'maybe'"),
        (["evaluate", "models.yaml", "batch=0"], "grao: the configuration: batch is 0; give a number of prompts"),
        (["evaluate", "models.yaml", "--model", "b"], "grao: --model b: write --model NAME=PATH"),
        (["evaluate", "models.yaml"], "grao: model 'a': model.path='./nowhere' looks like a path, but there is no"),
        (["evaluate", "runs-of-mine"], "grao: there is no config file runs-of-mine"),
        (["report", "."], "grao: . holds models.yaml, rows.jsonl, run.yaml, which no report reads"),
        (["report", "nowhere"], "grao: nowhere does not exist"),
    ],
)
def test_an_error_is_one_clear_line(arguments: list[str], message: str, run: Run) -> None:
    """Oracle: exit status 1, the sentence on stderr, a hint, and no traceback."""
    status, _, err = run(*arguments)
    assert status == 1
    assert message in err
    assert err.splitlines()[-1] == "(set GRAO_TRACEBACK=1 to see the traceback)"
    assert "Traceback" not in err
    assert not Path("runs").exists()


USER_ERRORS = [
    (ValueError("beta is −1"), "grao: beta is −1\n"),
    (FileNotFoundError("there is no file 'x'"), "grao: there is no file 'x'\n"),
    (PermissionError(13, "Permission denied", "runs"), "grao: [Errno 13] Permission denied: 'runs'\n"),
    (FloatingPointError("the loss is nan"), "grao: the loss is nan\n"),
    (RewardError("reward judge: no answer"), "grao: reward judge: no answer\n"),
    (EngineError("server http://x: no answer"), "grao: server http://x: no answer\n"),
    (
        ModuleNotFoundError("No module named 'trackio'", name="trackio"),
        "grao: No module named 'trackio': install it with `pip install trackio`\n",
    ),
    (ImportError("liger needs a GPU build"), "grao: liger needs a GPU build\n"),
]
OTHER_ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    torch.AcceleratorError("CUDA error: device-side assert triggered"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    MemoryError(),
    AssertionError("a group has members"),
    KeyError("loss"),
    TypeError("unsupported operand"),
    ModuleNotFoundError("No module named 'grao.trainer'", name="grao.trainer"),
]


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Makes `grao evaluate` raise this."""

    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr("grao.evaluation.evaluate", fail)


@pytest.mark.parametrize(("error", "message"), USER_ERRORS, ids=lambda value: type(value).__name__)
def test_an_error_of_the_user_has_no_traceback(
    error: Exception, message: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the message by hand, the hint, and nothing else."""
    failing(monkeypatch, error)
    assert run("evaluate", "models.yaml") == (1, "", f"{message}(set GRAO_TRACEBACK=1 to see the traceback)\n")


@pytest.mark.parametrize("error", OTHER_ERRORS, ids=lambda error: type(error).__name__)
def test_any_other_error_keeps_its_traceback(error: Exception, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the exception itself comes through, so Python prints where it was raised."""
    failing(monkeypatch, error)
    with pytest.raises(type(error)) as raised:
        run("evaluate", "models.yaml")
    assert raised.value is error


def test_the_traceback_on_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the exception itself comes through."""
    monkeypatch.setenv("GRAO_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError, match="there is no config file"):
        run("train", "nowhere.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian", "run.yaml"], "invalid choice: 'trian'"),
        (["demo", "--stepz", "3"], "unrecognised arguments: --stepz 3"),
        (["train"], "the following arguments are required: config"),
        (["train", "run.yaml", "--resume", "--overwrite"], "--overwrite: not allowed with argument --resume"),
        (["task", "chess", "--output", "x"], "invalid choice: 'chess'"),
        (["evaluate"], "the following arguments are required: CONFIG | RUN_DIRECTORY"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], message: str, run: Run) -> None:
    """Oracle: argparse's status for wrong usage, and the sentence."""
    status, _, err = run(*arguments)
    assert status == 2
    assert message in err


def test_an_interrupted_evaluation_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the shell's status for an interrupt, and the sentence: it has no --resume."""
    failing(monkeypatch, KeyboardInterrupt())
    status, _, err = run("evaluate", "models.yaml")
    assert (status, err) == (130, "grao: interrupted; run the same command again to continue\n")


# --- evaluate --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_is_evaluated_by_naming_it(
    tmp_path: Path, write_bpe_model: Callable[..., Path], start_grao: Callable[..., Any]
) -> None:
    """Oracle: the models' names, rows and lengths by hand, after `grao train` and nothing else; the second call prints
    the same figures and stores nothing.
    """
    write_bpe_model(tmp_path / "base", ["3 + 4 = 7"], 258)
    rows = [{"prompt": f"{i} + 1 =", "reference": f" {i + 1}", "answer": str(i + 1)} for i in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = {
        "model": {"path": "base"},
        "data": {"source": "rows.jsonl", "limit": 4},
        "objective": {"name": "grao"},
        "rewards": [{"path": "exact_match"}],
        "rollout": {"max_new_tokens": 5, "num_generations": 2},
        "evaluation": {"data": {"source": "rows.jsonl", "skip": 4}},
        "trainer": {"output_dir": "runs/first", "max_steps": 1, "use_cpu": True, "learning_rate": 1e-2},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    start_grao(tmp_path, "train", "run.yaml").finish()
    said = start_grao(tmp_path, "evaluate", "runs/first", "--sampling.num_samples", "3").finish()
    written = json.loads((tmp_path / "runs/first/evaluation/evaluation.json").read_bytes())
    assert list(written["models"]) == ["base", "first"]
    assert written["config"]["sampling"]["max_new_tokens"] == 5
    figures = written["models"]["first"]["summary"]["all"]
    assert (figures["prompts"], figures["answers"]) == (2, 6)
    assert "exact_match" in figures["accuracy"]
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/first/evaluation/items/**/*.parquet")}
    again = start_grao(tmp_path, "evaluate", "runs/first", "--sampling.num_samples", "3").finish()
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert [line for line in said.splitlines() if "every answer is" not in line] == again.splitlines()
