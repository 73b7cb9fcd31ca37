"""Seals: which checkpoints are complete, latest and deleted."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from grao.records.checkpoints import (
    HASHED_UP_TO,
    SEAL,
    break_seal,
    latest_good_checkpoint,
    prune_checkpoints,
    seal_checkpoint,
    why_incomplete,
)


def save(run: Path, step: int, *, seal: bool = True) -> Path:
    """A checkpoint with a small file, one in a subfolder, and a large one."""
    checkpoint = run / f"checkpoint-{step}"
    (checkpoint / "deep").mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"step": step}))
    (checkpoint / "deep" / "rng").write_bytes(b"rng")
    (checkpoint / "model.safetensors").write_bytes(b"\1" * (HASHED_UP_TO + 1))
    if seal:
        seal_checkpoint(checkpoint)
    return checkpoint


def test_a_seal_lists_every_file(tmp_path: Path) -> None:
    """Oracle: sizes by hand, SHA-256 from hashlib; no hash for the file above the limit."""
    checkpoint = save(tmp_path, 7)
    assert json.loads((checkpoint / SEAL).read_text())["files"] == {
        "deep/rng": {"size": 3, "sha256": hashlib.sha256(b"rng").hexdigest()},
        "model.safetensors": {"size": HASHED_UP_TO + 1},
        "trainer_state.json": {"size": 11, "sha256": hashlib.sha256(b'{"step": 7}').hexdigest()},
    }
    assert why_incomplete(checkpoint) is None


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (break_seal, "it has no sealed.json, so saving it never finished"),
    (lambda c: (c / SEAL).write_text('{"fil'), "sealed.json cannot be read"),
    (lambda c: (c / SEAL).write_text("[]"), "sealed.json cannot be read"),
    (lambda c: (c / "deep" / "rng").unlink(), "deep/rng is missing"),
    (lambda c: (c / "deep" / "rng").write_bytes(b"rn"), "deep/rng has 2 bytes, but had 3 when it was sealed"),
    (lambda c: (c / "deep" / "rng").write_bytes(b"rnG"), "deep/rng has changed since it was sealed (SHA-256 differs)"),
    (
        lambda c: (c / "model.safetensors").write_bytes(b"\1"),
        f"model.safetensors has 1 bytes, but had {HASHED_UP_TO + 1} when it was sealed",
    ),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_damaged_checkpoint_is_rejected_with_its_reason(
    tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    """Oracle: the damage done by hand to the newest of three; the second newest is the answer."""
    save(tmp_path, 9)
    good, bad = save(tmp_path, 10), save(tmp_path, 100)
    damage(bad)
    latest = latest_good_checkpoint(tmp_path)
    assert (latest.path, latest.step) == (good, 10)
    assert latest.rejected == {bad: reason}


def test_no_checkpoint_and_only_incomplete_ones(tmp_path: Path) -> None:
    """Oracle: by hand; files and other folders are not checkpoints."""
    assert latest_good_checkpoint(tmp_path).path is None
    (tmp_path / "checkpoint-3").touch()
    (tmp_path / "checkpoint-best").mkdir()
    two, one = save(tmp_path, 2, seal=False), save(tmp_path, 1, seal=False)
    latest = latest_good_checkpoint(tmp_path)
    assert (latest.path, latest.step) == (None, 0)
    assert list(latest.rejected) == [two, one]


def test_an_added_file_does_no_harm(tmp_path: Path) -> None:
    """Oracle: the seal speaks of the files it lists."""
    checkpoint = save(tmp_path, 1)
    (checkpoint / "NOTES").write_text("kept for the paper")
    assert why_incomplete(checkpoint) is None


def test_the_seal_comes_after_every_file_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the inodes that reach os.fsync before the seal takes its name: every file and every folder of it."""
    checkpoint = save(tmp_path, 1, seal=False)
    expected = {path.stat().st_ino for path in [checkpoint, *checkpoint.rglob("*")]}
    synced: set[int] = set()

    def fsync(descriptor: int) -> None:
        if not (checkpoint / SEAL).exists():
            synced.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    seal_checkpoint(checkpoint)
    assert expected <= synced
    assert (checkpoint / SEAL).exists()


def test_nothing_to_seal(tmp_path: Path) -> None:
    """Oracle: the error message."""
    (tmp_path / "checkpoint-1").mkdir()
    with pytest.raises(ValueError, match=r"checkpoint-1 has no files\. Save the checkpoint before sealing it"):
        seal_checkpoint(tmp_path / "checkpoint-1")


def test_pruning_keeps_the_newest_and_those_being_written(tmp_path: Path) -> None:
    """Oracle: by hand. 10 and 30 are complete but old, 20, 45 and 60 incomplete, 60 newer than 50."""
    for step in (10, 30, 40, 50):
        save(tmp_path, step)
    for step in (20, 45, 60):
        save(tmp_path, step, seal=False)
    deleted = prune_checkpoints(tmp_path, keep=2)
    assert [path.name for path in deleted] == ["checkpoint-10", "checkpoint-20", "checkpoint-30", "checkpoint-45"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-40", "checkpoint-50", "checkpoint-60"]


def test_pruning_without_a_complete_checkpoint_deletes_nothing(tmp_path: Path) -> None:
    """Oracle: by hand; with no complete checkpoint nothing is deleted, and keep=0 is refused."""
    for step in (1, 2):
        save(tmp_path, step, seal=False)
    assert prune_checkpoints(tmp_path, keep=1) == []
    with pytest.raises(ValueError, match=re.escape("cannot keep 0 checkpoints. Keep at least 1")):
        prune_checkpoints(tmp_path, keep=0)


def test_an_interrupted_deletion_leaves_nothing_that_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the state at the moment the files start to go, seen from inside the deletion."""
    old, new = save(tmp_path, 1), save(tmp_path, 2)
    seen = []
    monkeypatch.setattr("shutil.rmtree", lambda path: seen.append(why_incomplete(path)))
    assert prune_checkpoints(tmp_path, keep=1) == [old]
    assert seen == ["it has no sealed.json, so saving it never finished"]
    assert why_incomplete(new) is None


def test_a_full_disk_leaves_the_checkpoint_unsealed(tmp_path: Path, fill_disk_after: Callable[[int], None]) -> None:
    """Oracle: the message names the seal and the checkpoint before; the new one is incomplete."""
    save(tmp_path, 1)
    second = save(tmp_path, 2, seal=False)
    fill_disk_after(10)
    with pytest.raises(
        OSError, match=re.escape(f"{second / SEAL} could not be written (saved so far: checkpoint-1")
    ) as e:
        seal_checkpoint(second)
    assert e.value.errno == errno.ENOSPC
    assert latest_good_checkpoint(tmp_path).step == 1
    assert {path.name for path in second.iterdir()} == {"deep", "trainer_state.json", "model.safetensors"}
