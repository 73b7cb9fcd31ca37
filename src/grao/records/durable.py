"""File writes that a kill, a power cut or a full disk cannot leave half done."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
"""No space left on the device, or in the user's quota."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` as `make_atomically` does."""

    def write(temporary: Path) -> None:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            _write_all(descriptor, content)
        finally:
            os.close(descriptor)

    make_atomically(path, write)


def make_atomically(path: Path, make: Callable[[Path], object]) -> None:
    """Replace `path` by what `make` writes, so that the file is complete at every moment.

    `make` writes to a temporary path in the same folder, which is renamed once its content is on disk. A failed write
    removes the temporary file and leaves the old file unchanged.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        make(temporary)
        fsync_path(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_path(path.parent)  # the new name must reach the disk too


def append_line(path: Path, line: bytes) -> None:
    """Append `line` and a newline, or nothing if the write fails.

    First drop what a killed process left after the last newline, so that the new line does not join it.
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
    """Return the lines that end in a newline, without an incomplete last line; none if there is no file."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def fsync_path(path: Path) -> None:
    """Wait until a file's bytes, or a directory's names, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explain_disk_full(path: Path, saved: Callable[[], str]) -> Iterator[None]:
    """Turn "no space left" into an OSError that names `path`, what is already `saved`, and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        message = (
            f"the disk is full: {path} could not be written (saved so far: {saved()}). "
            "Free some space (older checkpoints, other runs), then resume this run"
        )
        raise OSError(error.errno, message) from error


def _write_all(descriptor: int, content: bytes) -> None:
    """Write every byte. One `os.write` may write only some of them, for example on a nearly full disk."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _end_of_whole_lines(descriptor: int, block: int = 1 << 16) -> int:
    """Return the offset after the last newline, searching from the end."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - block)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
