"""A run directory: created, overwritten, resumed, truncated."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from grao.records import RunDirectory, latest_good_checkpoint, seal_checkpoint
from grao.records.run_directory import MARK

CONFIG = {
    "objective": {"name": "grao", "beta": 0.5, "lam": 0.6},
    "trainer": {"learning_rate": 1e-6, "max_steps": 20, "tags": ["a", "b"], "seed": None},
    "note": "π ≠ 1e-6",
}


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def test_a_new_run_holds_its_config_and_environment(tmp_path: Path) -> None:
    """Oracle: PyYAML and json read back what went in; the layout as documented."""
    run = RunDirectory.create(tmp_path / "a" / "b", CONFIG)
    assert names(run.path) == {"config.yaml", "environment.json", MARK}
    assert yaml.safe_load(run.config_file.read_text(encoding="utf-8")) == CONFIG
    assert "pyarrow" in json.loads(run.environment_file.read_text())["libraries"]
    assert list(yaml.safe_load(run.config_file.read_text())) == list(CONFIG)  # in the user's order


def test_an_empty_directory_can_be_used(tmp_path: Path) -> None:
    """Oracle: no error."""
    assert RunDirectory.create(tmp_path, CONFIG).config_file.exists()


def test_an_existing_run_is_not_touched(tmp_path: Path) -> None:
    """Oracle: the message names both remedies, and the bytes of the run are what they were."""
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    before = {path: path.read_bytes() for path in run.path.iterdir()}
    with pytest.raises(FileExistsError) as raised:
        RunDirectory.create(tmp_path / "run", {})
    assert str(raised.value) == (
        f"{run.path} is not empty. Resume its run (resume=True, --resume), replace it "
        "(overwrite=True, --overwrite), or choose another directory"
    )
    assert {path: path.read_bytes() for path in run.path.iterdir()} == before


def test_overwrite_and_resume_exclude_each_other(tmp_path: Path) -> None:
    """Oracle: the error message."""
    with pytest.raises(ValueError, match="Choose one of overwrite and resume"):
        RunDirectory.create(tmp_path, CONFIG, overwrite=True, resume=True)


def test_overwrite_starts_from_nothing(tmp_path: Path) -> None:
    """Oracle: the names that a new run has, and the new config."""
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    run.append_metrics(1, {"loss": 1})
    run.write_completions(1, [{"a": 1}])
    (run.path / "checkpoint-1").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (run.path / "link").symlink_to(outside)
    RunDirectory.create(run.path, {"new": 1}, overwrite=True)
    assert names(run.path) == {"config.yaml", "environment.json", MARK}
    assert yaml.safe_load(run.config_file.read_text()) == {"new": 1}
    assert names(outside) == {"kept"}


@pytest.mark.parametrize("present", [["thesis.tex"], ["config.yaml"], [MARK], ["config.yaml", "thesis.tex"]])
def test_only_a_run_directory_is_overwritten(tmp_path: Path, present: list[str]) -> None:
    """Oracle: the message, and every file still there."""
    for name in present:
        (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path} is not a run directory")):
        RunDirectory.create(tmp_path, CONFIG, overwrite=True)
    assert names(tmp_path) == set(present)


def test_an_interrupted_deletion_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the deletion fails in the middle; the second call succeeds because the mark and the config go last."""
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    (run.path / "model").mkdir()
    (run.path / "README.md").touch()

    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as broken:
        broken.setattr("shutil.rmtree", fail)
        with pytest.raises(OSError, match="broken"):
            RunDirectory.create(run.path, CONFIG, overwrite=True)
    RunDirectory.create(run.path, CONFIG, overwrite=True)
    assert names(run.path) == {"config.yaml", "environment.json", MARK}


@pytest.mark.parametrize("below", ["", "run"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_its_place(tmp_path: Path, below: str, overwrite: bool) -> None:
    """Oracle: the error message, for the path itself and for one of its parents."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match=r"a file is in the way\. Choose another path"):
        RunDirectory.create(tmp_path / "file" / below, CONFIG, overwrite=overwrite)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def without_rights(tmp_path: Path) -> Iterator[Path]:
    """A directory that this process may enter but not write to; root becomes another user for it."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    root = os.geteuid() == 0
    opened = [path for path in [tmp_path, *tmp_path.parents] if root and path.stat().st_mode & 0o001 == 0]
    for path in opened:
        path.chmod(path.stat().st_mode | 0o001)
    if root:
        os.seteuid(65534)
    yield closed
    if root:
        os.seteuid(0)
    for path in opened:
        path.chmod(path.stat().st_mode & ~0o001)


@pytest.mark.parametrize("below", ["", "run"])
def test_a_path_without_the_right_to_write(without_rights: Path, below: str) -> None:
    """Oracle: the error message, for an empty directory and for one that would have to be made."""
    with pytest.raises(PermissionError, match="Choose another directory"):
        RunDirectory.create(without_rights / below, CONFIG)


def test_a_value_that_yaml_cannot_store_is_named(tmp_path: Path) -> None:
    """Oracle: the dotted key and the type; nothing is made."""
    with pytest.raises(ValueError, match=re.escape("data.files[1] is a PosixPath, which YAML cannot store")):
        RunDirectory.create(tmp_path / "run", {"data": {"files": ["a", Path("b")]}})
    assert not (tmp_path / "run").exists()


def test_resume_with_the_same_config(tmp_path: Path) -> None:
    """Oracle: metrics from before are there, the next line follows; tuples are the lists that YAML gives back."""
    config = CONFIG | {"nan": float("nan"), "shape": (1, 2), "small": 1e-20, "third": 1 / 3}
    RunDirectory.create(tmp_path, config).append_metrics(1, {"loss": 1})
    run = RunDirectory.create(tmp_path, config, resume=True)
    run.append_metrics(2, {"loss": 2})
    assert run.metrics_file.read_text() == '{"step": 1, "loss": 1}\n{"step": 2, "loss": 2}\n'
    assert "before" not in json.loads(run.environment_file.read_text())


def test_resume_with_another_config_lists_every_difference(tmp_path: Path) -> None:
    """Oracle: the whole message, by hand."""
    RunDirectory.create(tmp_path, CONFIG)
    other = {
        "objective": {"name": "grao", "beta": 0.3, "lam": 0.6, "kl": 0.1},
        "trainer": {"learning_rate": 1e-6, "max_steps": 20, "tags": ["a"], "seed": None},
    }
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole text is compared
        RunDirectory.create(tmp_path, other, resume=True)
    assert str(raised.value) == (
        f"cannot resume {tmp_path}: its configuration differs.\n"
        "  objective.beta: 0.5 in the run, 0.3 now\n"
        "  objective.kl: absent in the run, 0.1 now\n"
        "  trainer.tags: ['a', 'b'] in the run, ['a'] now\n"
        "  note: 'π ≠ 1e-6' in the run, absent now\n"
        "Restore these values, or start a new run in another directory"
    )


def test_true_is_not_one_and_null_is_not_absent(tmp_path: Path) -> None:
    """Oracle: by hand; Python's == would miss the first, dict.get the second."""
    RunDirectory.create(tmp_path, {"flag": 1, "cap": None})
    with pytest.raises(ValueError, match=r"flag: 1 in the run, True now\n  cap: None in the run, absent now"):
        RunDirectory.create(tmp_path, {"flag": True}, resume=True)


def test_keys_that_may_differ(tmp_path: Path) -> None:
    """Oracle: the config on disk is then the new one; a key's name is no prefix of another's."""
    RunDirectory.create(tmp_path, CONFIG)
    longer = CONFIG | {"trainer": CONFIG["trainer"] | {"max_steps": 40}}  # type: ignore[operator]
    with pytest.raises(ValueError, match=re.escape("trainer.max_steps: 20 in the run, 40 now")):
        RunDirectory.create(tmp_path, longer, resume=True, allow={"trainer.max"})
    run = RunDirectory.create(tmp_path, longer, resume=True, allow={"trainer.max_steps"})
    assert yaml.safe_load(run.config_file.read_text(encoding="utf-8")) == longer
    RunDirectory.create(tmp_path, CONFIG, resume=True, allow={"trainer"})


def test_nothing_to_resume(tmp_path: Path) -> None:
    """Oracle: the error messages; and resume makes no directory."""
    with pytest.raises(FileNotFoundError, match=r"has no run to resume\. Start one without resume"):
        RunDirectory.create(tmp_path / "run", CONFIG, resume=True)
    assert not (tmp_path / "run").exists()
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=re.escape("(.grao-run or config.yaml is missing). Resume another directory")):
        RunDirectory.create(tmp_path, CONFIG, resume=True)


def test_a_resumed_run_records_every_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the versions pretended, oldest first, each once."""
    for version in ("1", "1", "2", "3"):
        monkeypatch.setattr("grao.records.run_directory.environment", lambda version=version: {"grao": version})
        run = RunDirectory.create(tmp_path, CONFIG, resume=tmp_path.joinpath(MARK).exists())
    assert json.loads(run.environment_file.read_text()) == {"grao": "3", "before": [{"grao": "1"}, {"grao": "2"}]}


def test_truncation_removes_metrics_completions_and_seals_of_later_steps(tmp_path: Path) -> None:
    """Oracle: by hand, for step 2 of 3 with a torn line; then the rewritten steps equal an uninterrupted run's."""

    def train(run: RunDirectory, steps: range) -> None:
        for step in steps:
            run.append_metrics(step, {"loss": 1 / step})
            run.write_completions(step, [{"completion": f"text {step}"}])
            run.write_completions(step, [{"completion": f"answer {step}"}], held_out=True)
            (run.path / f"checkpoint-{step}").mkdir(exist_ok=True)
            (run.path / f"checkpoint-{step}" / "state").write_text(str(step))
            seal_checkpoint(run.path / f"checkpoint-{step}")

    whole = RunDirectory.create(tmp_path / "whole", CONFIG)
    train(whole, range(1, 5))
    cut = RunDirectory.create(tmp_path / "cut", CONFIG)
    train(cut, range(1, 4))
    with cut.metrics_file.open("ab") as file:
        file.write(b'{"step": 4, "lo')
    cut.truncate_after(2)
    assert cut.metrics_file.read_text() == '{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 0.5}\n'
    assert names(cut.folder(held_out=False)) == {"completions_00001.parquet", "completions_00002.parquet"}
    assert names(cut.folder(held_out=True)) == names(cut.folder(held_out=False))
    assert latest_good_checkpoint(cut.path).step == 2
    train(cut, range(3, 5))
    for path in whole.path.rglob("*"):
        if path.is_file():
            assert (cut.path / path.relative_to(whole.path)).read_bytes() == path.read_bytes(), path


def test_a_full_disk_while_training_reports_what_is_saved(
    tmp_path: Path, fill_disk_after: Callable[[int], None]
) -> None:
    """Oracle: the message names the file, the last complete step and checkpoint; the old lines stand."""
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    run.append_metrics(1, {"loss": 1})
    (run.path / "checkpoint-1").mkdir()
    (run.path / "checkpoint-1" / "state").write_text("1")
    seal_checkpoint(run.path / "checkpoint-1")
    run.append_metrics(2, {"loss": 2})
    fill_disk_after(5)
    for write, path in [
        (lambda: run.append_metrics(3, {"loss": 3}), run.metrics_file),
        (lambda: run.write_completions(3, [{"a": 1}]), run.folder(held_out=False)),
    ]:
        with pytest.raises(OSError, match="the disk is full") as raised:
            write()
        assert raised.value.errno == errno.ENOSPC
        assert f"{path} could not be written (saved so far: metrics up to step 2, checkpoint-1)." in str(raised.value)
    assert run.metrics_file.read_text() == '{"step": 1, "loss": 1}\n{"step": 2, "loss": 2}\n'
    assert names(run.folder(held_out=False)) == set()


def test_a_real_disk_that_fills(small_disk: Path) -> None:
    """Oracle: a 64 KiB file system; every line that `append_metrics` returned from is there, and none beside."""
    run = RunDirectory.create(small_disk / "run", CONFIG)
    written = 0

    def write_until_full() -> None:
        nonlocal written
        while written < 10_000:
            run.append_metrics(written + 1, {"filler": "x" * 1000})
            written += 1

    with pytest.raises(OSError, match=r"the disk is full: .*metrics\.jsonl could not be written") as raised:
        write_until_full()
    assert raised.value.errno == errno.ENOSPC
    assert f"metrics up to step {written}, no checkpoint" in str(raised.value)
    assert [json.loads(line)["step"] for line in run.metrics_file.read_text().splitlines()] == [*range(1, written + 1)]
    assert written > 10
    with pytest.raises(OSError, match=r"the disk is full: .*completions could not be written"):
        run.write_completions(1, [{"text": os.urandom(5000).hex()}])


def test_sync_waits_for_the_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the file whose descriptor reaches os.fsync, by its inode; and no error before the first line."""
    run = RunDirectory.create(tmp_path, CONFIG)
    run.sync()
    run.append_metrics(1, {})
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    run.sync()
    assert synced == [run.metrics_file.stat().st_ino]
