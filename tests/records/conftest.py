"""What goes wrong: disks that are full (a real one where one can be mounted), and writers that are killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a small tmpfs; the same paths are tested with a failing os.write")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def kill_while() -> Callable[[Callable[[int], None], float], int]:
    """Call with a function that writes for ever, and seconds: it runs in a child that gets SIGKILL that long after its
    first write. The function reports a byte to the descriptor it is given after each write; returned is how many."""

    def kill(write_for_ever: Callable[[int], None], seconds: float) -> int:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(reader)
                write_for_ever(writer)
            finally:
                os._exit(1)
        os.close(writer)
        reported = len(os.read(reader, 1))  # a slow machine must not make the test empty
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while chunk := os.read(reader, 1 << 16):
            reported += len(chunk)
        os.close(reader)
        assert reported, "the writer failed before its first write"
        return reported

    return kill


@pytest.fixture
def fill_disk_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Call with n: from now on, os.write takes n more bytes in all, part of a request if need be, then fails."""
    write = os.write

    def fill(room: int) -> None:
        left = room

        def limited(descriptor: int, content: bytes | memoryview) -> int:
            nonlocal left
            if left == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = write(descriptor, bytes(content[:left]))
            left -= written
            return written

        monkeypatch.setattr(os, "write", limited)

    return fill
