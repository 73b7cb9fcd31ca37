"""Checkpoints known to be complete: sealed after the last byte, checked before they are used.

A process that dies while saving leaves a directory that looks like a checkpoint. The seal, `sealed.json`, is written
once every file is on disk, and a checkpoint without it is not used. It lists the size of every file, and the SHA-256
of small files (trainer state, configs, random states), where an edit would go unnoticed. Large files are weights,
whose truncation the size shows.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grao.records.durable import explain_disk_full, fsync_path, write_atomically

SEAL = "sealed.json"
HASHED_UP_TO = 1 << 20
"""Bytes. Larger files are sealed by size only: at about 1.7 GB/s, hashing the weights and the optimiser state of a 7B
model (84 GB) would add 50 seconds to saving a checkpoint and to each check of it."""

DIRECTORY_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, slots=True)
class LatestCheckpoint:
    """The result of `latest_good_checkpoint`."""

    path: Path | None
    """The newest complete checkpoint, or None."""
    step: int
    """Its step; 0 without a checkpoint."""
    rejected: Mapping[Path, str]
    """Newer checkpoints that are damaged or incomplete, each with the reason, newest first."""


def seal_checkpoint(checkpoint: Path) -> None:
    """Mark a saved checkpoint as complete: wait until every file is on disk, then write the seal.

    Raises:
        ValueError: The directory is empty.
        OSError: The disk is full. The checkpoint stays unsealed, and earlier ones stay valid.
    """
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path != checkpoint / SEAL)
    if not files:
        raise ValueError(f"{checkpoint} has no files. Save the checkpoint before sealing it")
    with explain_disk_full(checkpoint / SEAL, lambda: _sealed_before(checkpoint)):
        for path in files:
            fsync_path(path)
        for folder in {path.parent for path in files} | {checkpoint, checkpoint.parent}:
            fsync_path(folder)
        entries = {path.relative_to(checkpoint).as_posix(): _entry(path) for path in files}
        write_atomically(checkpoint / SEAL, json.dumps({"files": entries}, indent=1).encode())


def break_seal(checkpoint: Path) -> None:
    """Mark a checkpoint as incomplete, before changing or deleting anything in it."""
    (checkpoint / SEAL).unlink(missing_ok=True)
    fsync_path(checkpoint)


def why_incomplete(checkpoint: Path) -> str | None:
    """Return the first reason not to use a checkpoint, or None if every file matches its seal."""
    try:
        sealed = json.loads((checkpoint / SEAL).read_bytes())["files"]
    except FileNotFoundError:
        return f"it has no {SEAL}, so saving it never finished"
    except (ValueError, KeyError, TypeError):
        return f"{SEAL} cannot be read"
    for name, entry in sealed.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry["size"]:
            return f"{name} has {path.stat().st_size} bytes, but had {entry['size']} when it was sealed"
        if _entry(path) != entry:
            return f"{name} has changed since it was sealed (SHA-256 differs)"
    return None


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Return the steps and directories of all checkpoints, complete or not, in order of the step."""
    named = ((DIRECTORY_NAME.fullmatch(path.name), path) for path in run.glob("checkpoint-*"))
    return sorted((int(match[1]), path) for match, path in named if match and path.is_dir())


def latest_good_checkpoint(run: Path) -> LatestCheckpoint:
    """Return the complete checkpoint of the highest step, and the newer ones with what is wrong."""
    rejected: dict[Path, str] = {}
    for step, path in reversed(checkpoints(run)):
        reason = why_incomplete(path)
        if reason is None:
            return LatestCheckpoint(path, step, rejected)
        rejected[path] = reason
    return LatestCheckpoint(None, 0, rejected)


def prune_checkpoints(run: Path, keep: int) -> list[Path]:
    """Delete all but the newest `keep` complete checkpoints, and incomplete ones older than the newest complete one.

    A newer incomplete checkpoint stays, because it may still be being written. Return what was deleted.
    """
    if keep < 1:
        raise ValueError(f"cannot keep {keep} checkpoints. Keep at least 1, so that the run can resume")
    paths = [path for _, path in checkpoints(run)]
    complete = [path for path in paths if why_incomplete(path) is None]
    older = paths[: paths.index(complete[-1])] if complete else []
    deleted = [path for path in older if path not in complete[-keep:]]
    for path in deleted:
        break_seal(path)  # an interrupted deletion must not leave a checkpoint that looks complete
        shutil.rmtree(path)
    return deleted


def _entry(path: Path) -> dict[str, Any]:
    """Return the seal's entry for a file."""
    size = path.stat().st_size
    if size > HASHED_UP_TO:
        return {"size": size}
    return {"size": size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _sealed_before(checkpoint: Path) -> str:
    latest = latest_good_checkpoint(checkpoint.parent)
    return f"{latest.path.name} and earlier checkpoints" if latest.path else "no checkpoint yet"
