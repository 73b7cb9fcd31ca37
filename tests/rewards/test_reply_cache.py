"""Replies on disk: found by every process, and never lost once stored."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.rewards.faulty_endpoint import FaultyEndpoint

from grao.rewards.endpoint.reply_cache import Reply, ReplyCache, ReplyCacheError, question_key
from grao.rewards.errors import StopError


def test_the_key_by_hand():
    """Oracle: SHA-256 of the canonical JSON written out by hand; the order of keys does not matter, a space does."""
    by_hand = '{"messages":[{"content":"\\u00e4","role":"user"}],"seed":0}'
    question = {"seed": 0, "messages": [{"role": "user", "content": "ä"}]}
    assert question_key(question) == hashlib.sha256(by_hand.encode()).hexdigest()
    assert question_key({**question, "messages": [{"role": "user", "content": "ä "}]}) != question_key(question)


def test_what_is_put_is_got_after_opening_again(tmp_path):
    """Oracle: the reply itself, line breaks, NUL and all; an unknown key has none."""
    reply = Reply("1 > 2\n\x00 «да»", "length", 11, 3)
    cache = ReplyCache(tmp_path / "deep" / "er" / "replies.sqlite")
    assert cache.put("k", reply, "judge") == reply
    cache.close()
    again = ReplyCache(tmp_path / "deep" / "er" / "replies.sqlite")
    assert again.get("k") == reply
    assert again.get("other") is None
    assert len(again) == 1


def test_the_first_of_two_answers_stands(tmp_path):
    """Oracle: by hand: two processes asked the same; both go on with what was written first."""
    one, two = ReplyCache(tmp_path / "r.sqlite"), ReplyCache(tmp_path / "r.sqlite")
    assert one.put("k", Reply("first"), "judge") == Reply("first")
    assert two.put("k", Reply("second"), "judge") == Reply("first")


def test_the_settings_that_make_it_durable(tmp_path):
    """Oracle: SQLite's own words: write-ahead log, FULL (2), our version and application id."""
    cache = ReplyCache(tmp_path / "r.sqlite")
    read = {
        name: cache.pragma(name)
        for name in ("journal_mode", "synchronous", "user_version", "application_id", "busy_timeout")
    }
    assert read == {
        "journal_mode": "wal",
        "synchronous": 2,
        "user_version": 1,
        "application_id": int.from_bytes(b"grao"),
        "busy_timeout": 60_000,
    }


def test_threads_share_one(tmp_path):
    """Oracle: 8 threads × 10 keys are 80 rows, each with its own text."""
    cache = ReplyCache(tmp_path / "r.sqlite")

    def write(t):
        for i in range(10):
            cache.put(f"{t}-{i}", Reply(f"text {t}-{i}"), "judge")

    threads = [threading.Thread(target=write, args=(t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == 80
    assert all(cache.get(f"{t}-{i}") == Reply(f"text {t}-{i}") for t in range(8) for i in range(10))


WRITER = """
import sys
from grao.rewards.endpoint.reply_cache import Reply, ReplyCache
path, process = sys.argv[1:]
cache = ReplyCache(path)
for i in range(60):
    cache.put(f"shared-{i}", Reply(f"by {process}"), "judge")
    cache.put(f"{process}-{i}", Reply(f"text {i}"), "judge")
"""


@pytest.mark.slow
def test_processes_share_one(tmp_path):
    """Oracle: four processes that open a new file at the same time: 4 × 60 keys of their own and 60 in common."""
    path = tmp_path / "r.sqlite"
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(p)]) for p in range(4)]
    assert [process.wait(120) for process in processes] == [0, 0, 0, 0]
    cache = ReplyCache(path)
    assert len(cache) == 4 * 60 + 60
    assert all(cache.get(f"{p}-{i}") == Reply(f"text {i}") for p in range(4) for i in range(60))


ASKER = """
import asyncio, sys
from grao.rewards.endpoint.client import Endpoint, EndpointConfig
url, path = sys.argv[1:]
endpoint = Endpoint(EndpointConfig("judge", base_url=url, cache=path, max_concurrency=4))
async def all_of_them():
    await asyncio.gather(*(endpoint.ask([{"role": "user", "content": str(i)}], str) for i in range(200)))
asyncio.run(all_of_them())
"""


@pytest.mark.slow
def test_a_killed_run_does_not_pay_twice(tmp_path):
    """Oracle: the endpoint's own count of paid answers. SIGKILL after 40 of 200; what was on disk by then is paid
    once, and only answers that were on their way (at most `max_concurrency`) can have been lost."""
    path = tmp_path / "r.sqlite"
    with FaultyEndpoint(lambda messages: "1 > 2", delay=0.01) as server:
        command = [sys.executable, "-c", ASKER, server.url, str(path)]
        killed = subprocess.Popen(command)
        until = time.monotonic() + 120
        while sum(server.paid.values()) < 40 and time.monotonic() < until:
            time.sleep(0.002)
        os.kill(killed.pid, signal.SIGKILL)
        assert killed.wait(30) == -signal.SIGKILL
        time.sleep(0.1)  # the endpoint answers into the void
        paid, stored = sum(server.paid.values()), len(ReplyCache(path))
        assert 40 - 4 <= stored <= paid <= stored + 4
        assert paid < 200
        assert subprocess.run(command, check=False).returncode == 0
        assert len(server.paid) == 200
        assert sum(server.paid.values()) == 200 + (paid - stored)


# ---------------------------------------------------------------------- files that are none


def test_a_damaged_file_is_named_with_a_remedy(tmp_path):
    """Oracle: by hand: overwritten in the middle, it opens but cannot be read; the message names file and remedy."""
    path = tmp_path / "r.sqlite"
    cache = ReplyCache(path)
    for i in range(40):
        cache.put(f"{i:040d}", Reply("x" * 200), "judge")
    cache.close()
    damaged = bytearray(path.read_bytes())
    damaged[4096:] = b"\xff" * (len(damaged) - 4096)
    path.write_bytes(damaged)
    with pytest.raises(ReplyCacheError, match=r"r\.sqlite is damaged.*Move it away") as caught:
        ReplyCache(path).get("0" * 40)
    assert isinstance(caught.value, StopError)


def test_what_is_no_sqlite_file_is_refused(tmp_path):
    """Oracle: the message names the file."""
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, not replies\n" * 100, encoding="utf-8")
    with pytest.raises(ReplyCacheError, match=r"notes\.txt is damaged, or not an SQLite file"):
        ReplyCache(path)
    assert path.read_text(encoding="utf-8").startswith("these are notes")


def test_another_programs_database_is_left_alone(tmp_path):
    """Oracle: by hand: a table of another program; it is still the only one afterwards."""
    path = tmp_path / "theirs.sqlite"
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(ReplyCacheError, match="not a reply cache"):
        ReplyCache(path)
    with sqlite3.connect(path) as theirs:
        assert theirs.execute("SELECT name FROM sqlite_master").fetchall() == [("songs",)]


def test_another_version_is_refused(tmp_path):
    """Oracle: both versions are named."""
    path = tmp_path / "r.sqlite"
    ReplyCache(path).close()
    with sqlite3.connect(path) as later:
        later.execute("PRAGMA user_version = 7")
    with pytest.raises(ReplyCacheError, match="version 7, and this grao reads version 1"):
        ReplyCache(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    """Oracle: a directory in the file's place, and a file in the directory's."""
    with pytest.raises(ReplyCacheError, match="cannot be used"):
        ReplyCache(tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ReplyCacheError, match=r"the directory of the reply cache .* cannot be made"):
        ReplyCache(Path(tmp_path / "file" / "r.sqlite"))
