"""Writes that survive a kill or a full disk."""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from grao.records.durable import append_line, explain_disk_full, whole_lines, write_atomically

KillWhile = Callable[[Callable[[int], None], float], int]


def line(step: int) -> bytes:
    """A line whose bytes and length both follow from its number."""
    return b"%d:" % step + bytes(ord("a") + step % 26 for _ in range(step * 37 % 9000))


def test_lines_of_a_killed_writer_are_a_prefix_of_what_it_wrote(tmp_path: Path, kill_while: KillWhile) -> None:
    """Oracle: the writer's own count. What it reported is there, at most one more line is, and nothing else is."""
    path = tmp_path / "lines"
    draw = random.Random(0)
    start = 0
    for _ in range(12):

        def write_for_ever(report: int, start: int = start) -> None:
            for step in itertools.count(start):
                append_line(path, line(step))
                os.write(report, b".")

        reported = kill_while(write_for_ever, draw.uniform(0.0, 0.02))
        found = whole_lines(path)
        assert found == [line(step) for step in range(len(found))]
        assert start + reported <= len(found) <= start + reported + 1
        start = len(found)


def test_a_file_of_a_killed_writer_is_one_of_those_it_wrote(tmp_path: Path, kill_while: KillWhile) -> None:
    """Oracle: the writer's own count. The file is the last version it reported, or the one it was at."""
    path = tmp_path / "whole"
    draw = random.Random(1)

    def write_for_ever(report: int) -> None:
        for step in itertools.count():
            write_atomically(path, line(step) * 20)
            os.write(report, b".")

    for _ in range(12):
        reported = kill_while(write_for_ever, draw.uniform(0.0, 0.03))
        assert path.read_bytes() in {line(reported - 1) * 20, line(reported) * 20}


@pytest.mark.parametrize("tail", [b"", b"torn", b"x" * 200_000, b"\0" * 70_000])
def test_a_torn_tail_is_not_read_and_is_dropped_before_the_next_line(tmp_path: Path, tail: bytes) -> None:
    """Oracle: the two whole lines and the new one, by hand; tails shorter and longer than the search's block."""
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\n" + tail)
    assert whole_lines(path) == [b"one", b"two"]
    append_line(path, b"three")
    assert path.read_bytes() == b"one\ntwo\nthree\n"


def test_a_file_that_is_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    """Oracle: no newline, so no whole line."""
    path = tmp_path / "lines"
    path.write_bytes(b"torn")
    assert whole_lines(path) == []
    append_line(path, b"one")
    assert path.read_bytes() == b"one\n"


@pytest.mark.parametrize("room", [0, 1, 4, 5])
def test_a_line_that_meets_a_full_disk_leaves_nothing(
    tmp_path: Path, fill_disk_after: Callable[[int], None], room: int
) -> None:
    """Oracle: the file's bytes before the failed write ('three' and its newline are 6 bytes)."""
    path = tmp_path / "lines"
    append_line(path, b"one")
    fill_disk_after(room)
    with pytest.raises(OSError, match="No space left") as raised:
        append_line(path, b"three")
    assert raised.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"one\n"


@pytest.mark.parametrize("room", [0, 3])
def test_a_file_that_meets_a_full_disk_stays_the_old_one(
    tmp_path: Path, fill_disk_after: Callable[[int], None], room: int
) -> None:
    """Oracle: the old bytes, and no other file in the folder."""
    path = tmp_path / "whole"
    write_atomically(path, b"old")
    fill_disk_after(room)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_bytes_are_on_the_disk_before_they_take_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: what stands under the name at each os.fsync: the old bytes at the file's, the new at the folder's."""
    path = tmp_path / "whole"
    write_atomically(path, b"old")
    seen = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append((os.fstat(descriptor).st_size, path.read_bytes())))
    write_atomically(path, b"newer")
    assert seen == [(5, b"old"), (tmp_path.stat().st_size, b"newer")]


def test_a_write_taken_in_parts_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the bytes given; os.write here takes 3 at a time, as it may."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, bytes(content[:3])))
    write_atomically(tmp_path / "whole", b"0123456789")
    assert (tmp_path / "whole").read_bytes() == b"0123456789"


def test_a_full_disk_is_explained_and_other_errors_are_left_alone(tmp_path: Path) -> None:
    """Oracle: the whole error message; and the very object raised, for another errno."""
    with (
        pytest.raises(OSError, match="the disk is full") as raised,
        explain_disk_full(Path("run/a"), lambda: "the first half"),
    ):
        raise OSError(errno.EDQUOT, "quota")
    assert raised.value.errno == errno.EDQUOT
    assert raised.value.strerror == (
        "the disk is full: run/a could not be written (saved so far: the first half). "
        "Free some space (older checkpoints, other runs), then resume this run"
    )
    other = OSError(errno.EIO, "broken")
    with pytest.raises(OSError, match="broken") as raised, explain_disk_full(Path("run/a"), lambda: "the first half"):
        raise other
    assert raised.value is other
