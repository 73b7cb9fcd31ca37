"""Writes that a kill, a power cut or a full disk cannot leave half done."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
"""No space on the device, or none left in the user's quota."""


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path`, as `make_atomically` does."""

    def write(beside: Path) -> None:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            _write_all(descriptor, content)
        finally:
            os.close(descriptor)

    make_atomically(path, write)


def make_atomically(path: Path, make: Callable[[Path], object]) -> None:
    """Put what `make` writes at `path`: at every moment the file is the whole old or the whole new one.

    `make` is given a path beside it; what it writes there reaches the disk, and only then takes the name. A failed
    write removes the file beside it and leaves the old one as it was.
    """
    beside = path.with_name(f".{path.name}.tmp")
    try:
        make(beside)
        fsync_path(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    fsync_path(path.parent)  # the new name, too, has to reach the disk


def append_line(path: Path, line: bytes) -> None:
    """Append `line` and a newline; the file never keeps part of a line that failed.

    What a killed process left after the last newline is dropped first, or the new line would be joined to it.
    """
    assert b"\n" not in line, "one line at a time"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        end = _end_of_whole_lines(descriptor)
        os.ftruncate(descriptor, end)
        os.lseek(descriptor, end, os.SEEK_SET)
        try:
            _write_all(descriptor, line + b"\n")
        except OSError:
            os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file that end in a newline; none if there is no file. A torn last line is left out."""
    if not path.exists():
        return []
    return path.read_bytes().split(b"\n")[:-1]


def fsync_path(path: Path) -> None:
    """Wait until a file's bytes, or a directory's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explain_disk_full(path: Path, safe: Callable[[], str]) -> Iterator[None]:
    """Turn "no space left" inside the block into an OSError that names `path`, what is `safe`, and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        message = (
            f"the disk is full: {path} could not be written. Safe so far: {safe()}. "
            "Free some space (older checkpoints, other runs), then resume this run"
        )
        raise OSError(error.errno, message) from error


def _write_all(descriptor: int, content: bytes) -> None:
    """Write every byte: one `os.write` may take only some of them, and does when the disk is nearly full."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _end_of_whole_lines(descriptor: int, block: int = 1 << 16) -> int:
    """Offset just after the last newline, found from the end."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - block)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
