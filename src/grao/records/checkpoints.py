"""Checkpoints that are known to be whole: sealed after the last byte, checked before they are trusted.

A process that dies while it saves leaves a directory that looks like a checkpoint. The seal, `sealed.json`, is written
when every file is on the disk; no seal, no checkpoint. It lists the size of every file and the SHA-256 of the small
ones (the trainer's state, configs, random states), which is where an edit or a mixed-up copy would go unnoticed; the
large ones are weights, whose truncation the size shows.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grao.records.durable import explain_disk_full, fsync_path, write_atomically

SEAL = "sealed.json"
HASHED_UP_TO = 1 << 20
"""Bytes. Larger files are sealed by their size alone: SHA-256 runs at about 1.7 GB/s, so hashing the weights and the
optimiser of a 7B model (84 GB) would hold up every checkpoint, and every look at one, for 50 seconds."""

DIRECTORY_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, slots=True)
class RejectedCheckpoint:
    """A checkpoint that cannot be trusted, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class LatestCheckpoint:
    """What `latest_good_checkpoint` found."""

    path: Path | None
    """The newest whole checkpoint; None if there is none."""
    step: int
    """Its step; 0 if there is none."""
    rejected: tuple[RejectedCheckpoint, ...]
    """The newer ones that were passed over, newest first."""


def seal_checkpoint(checkpoint: Path) -> None:
    """Call a saved checkpoint whole: wait until every file is on the disk, then write the seal.

    Raises:
        ValueError: there is nothing in the directory.
        OSError: the disk is full; the checkpoint stays unsealed, and the ones before it stay good.
    """
    files = sorted(_files(checkpoint))
    if not files:
        raise ValueError(f"{checkpoint} holds no files: save the checkpoint before sealing it")
    with explain_disk_full(checkpoint / SEAL, lambda: _sealed_before(checkpoint)):
        for path in files:
            fsync_path(path)
        for folder in {path.parent for path in files} | {checkpoint, checkpoint.parent}:
            fsync_path(folder)
        entries = {path.relative_to(checkpoint).as_posix(): _entry(path) for path in files}
        write_atomically(checkpoint / SEAL, json.dumps({"files": entries}, indent=1).encode())


def break_seal(checkpoint: Path) -> None:
    """Call a checkpoint no longer whole, before anything in it is changed or deleted."""
    (checkpoint / SEAL).unlink(missing_ok=True)
    fsync_path(checkpoint)


def why_not_whole(checkpoint: Path) -> str | None:
    """The first reason not to trust a checkpoint; None if its seal is there and every file matches it."""
    try:
        sealed = json.loads((checkpoint / SEAL).read_bytes())["files"]
    except FileNotFoundError:
        return f"no {SEAL}: it was never finished"
    except (ValueError, KeyError, TypeError):
        return f"{SEAL} cannot be read"
    for name, entry in sealed.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry["size"]:
            return f"{name} has {path.stat().st_size} bytes, {entry['size']} when it was sealed"
        if _entry(path) != entry:
            return f"{name} is not the file that was sealed (SHA-256 differs)"
    return None


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Steps and directories of all checkpoints, whole or not, in order of the step."""
    named = ((DIRECTORY_NAME.fullmatch(path.name), path) for path in run.glob("checkpoint-*"))
    return sorted((int(match[1]), path) for match, path in named if match and path.is_dir())


def latest_good_checkpoint(run: Path) -> LatestCheckpoint:
    """The checkpoint of the highest step whose seal is present and matches; and the newer ones, with what is wrong."""
    rejected: list[RejectedCheckpoint] = []
    for step, path in reversed(checkpoints(run)):
        reason = why_not_whole(path)
        if reason is None:
            return LatestCheckpoint(path, step, tuple(rejected))
        rejected.append(RejectedCheckpoint(path, reason))
    return LatestCheckpoint(None, 0, tuple(rejected))


def prune_checkpoints(run: Path, keep: int) -> list[Path]:
    """Delete all but the newest `keep` whole checkpoints, and the broken ones older than the newest whole one.

    A broken one that is newer stays: it may be being written. Returns what was deleted.
    """
    if keep < 1:
        raise ValueError(f"prune_checkpoints would keep {keep} checkpoints: keep at least 1, or a run cannot resume")
    paths = [path for _, path in checkpoints(run)]
    whole = [path for path in paths if why_not_whole(path) is None]
    older = paths[: paths.index(whole[-1])] if whole else []
    doomed = [path for path in older if path not in whole[-keep:]]
    for path in doomed:
        break_seal(path)  # a deletion that is cut short leaves no checkpoint that looks whole
        shutil.rmtree(path)
    return doomed


def _files(checkpoint: Path) -> Iterator[Path]:
    return (path for path in checkpoint.rglob("*") if path.is_file() and path != checkpoint / SEAL)


def _entry(path: Path) -> dict[str, Any]:
    """What the seal says of a file."""
    size = path.stat().st_size
    if size > HASHED_UP_TO:
        return {"size": size}
    return {"size": size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _sealed_before(checkpoint: Path) -> str:
    latest = latest_good_checkpoint(checkpoint.parent)
    return f"{latest.path.name} and the ones before it" if latest.path else "no checkpoint yet"
