"""`python -m research` in this process: texts, exit statuses, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import research
from research.__main__ import main

COMMANDS = ("run", "report", "claims", "task")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the list of commands, each with an example in the help and a help of its own."""
    assert main([]) == 0
    assert f"\n  python -m research {command}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert f"usage: python -m research {command}" in capsys.readouterr().out


def test_plans_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: names and titles of the plans, as their files have them."""
    assert main(["run", "--list"]) == 0
    files = sorted((Path(research.__file__).parent / "plans").glob("*.yaml"))
    assert capsys.readouterr().out.splitlines() == [
        f"{file.stem:20s} {yaml.safe_load(file.read_text(encoding='utf-8'))['title']}" for file in files
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "no plan was given: name a plan or a .yaml file, or list the plans with --list"),
        (["run", "mian"], "there is no plan 'mian' (did you mean 'main'?); known: ablation, "),
        (["run", "main", "--jobs", "0"], "jobs is 0: give the number of processes, 1 or more"),
        (["report", "nowhere"], "nowhere does not exist"),
    ],
)
def test_an_error_is_one_clear_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Oracle: exit status 1, the sentence on stderr, and nothing written."""
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
