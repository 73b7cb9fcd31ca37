"""Replies on disk, so that none is paid for twice: one SQLite file, shared by threads and processes."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from grao.rewards.errors import StopError

VERSION = 1
"""Of the table below, kept in the file's `user_version`."""
APPLICATION = 0x6772616F
"""``grao`` in ASCII, kept in the file's `application_id`: it tells our files from other SQLite files."""
BUSY = 60.0
"""Seconds to wait for another process that is writing."""

_TABLE = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY,       -- SHA-256 of the whole question, see question_key
    text TEXT NOT NULL,         -- the reply as it came
    finish TEXT NOT NULL,       -- finish_reason
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    model TEXT NOT NULL,        -- as it was asked for
    time TEXT NOT NULL          -- UTC
)
"""


class ReplyCacheError(StopError, ValueError):
    """The file is damaged, of another kind or version, or cannot be written; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an endpoint said."""

    text: str
    finish: str = "stop"
    """``"stop"``, ``"length"`` (cut at `max_tokens`), …"""
    prompt_tokens: int = 0
    completion_tokens: int = 0


def question_key(question: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of the question as canonical JSON: keys sorted, no spaces, ASCII."""
    text = json.dumps(question, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class ReplyCache:
    """Replies by the key of their question.

    A reply is on the disk when `put` returns (write-ahead log, synchronous=FULL): a run that is killed afterwards, or
    a machine that loses power, never pays for it again. Keys are hashes, and nothing of a request is stored.

    Raises:
        ReplyCacheError: the file is no cache, of another version, damaged or not writable; here and at every use.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None, check_same_thread=False)
            self._open()

    def _open(self) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("BEGIN IMMEDIATE")  # of several processes that open a new file one makes the table
        (version,), (application,) = run("PRAGMA user_version").fetchone(), run("PRAGMA application_id").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if tables == 0:
            run(_TABLE)
            run(f"PRAGMA user_version = {VERSION}")
            run(f"PRAGMA application_id = {APPLICATION}")
        run("COMMIT")
        if tables and application != APPLICATION:
            raise ReplyCacheError(f"{self.path} is an SQLite file, but no cache of replies; give another path")
        if tables and version != VERSION:
            raise ReplyCacheError(
                f"{self.path} is a cache of replies of version {version}, and this grao reads version {VERSION}: "
                "give another path, or install the grao that wrote it"
            )

    def get(self, key: str) -> Reply | None:
        """The reply to that question, if there is one."""
        with self._explained(), self._lock:
            row = self._connection.execute(
                "SELECT text, finish, prompt_tokens, completion_tokens FROM replies WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else Reply(*row)

    def put(self, key: str, reply: Reply, model: str) -> Reply:
        """Keep a reply; it is on the disk on return. Of two processes that asked the same, the first one's stays.

        Returns:
            The reply that stands in the cache, so that both go on with the same.
        """
        row = (key, reply.text, reply.finish, reply.prompt_tokens, reply.completion_tokens, model)
        with self._explained(), self._lock:
            self._connection.execute(
                "INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*row, datetime.now(UTC).isoformat(timespec="seconds")),
            )
        return self.get(key) or reply

    def __len__(self) -> int:
        with self._explained(), self._lock:
            (count,) = self._connection.execute("SELECT count(*) FROM replies").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:  # a full disk, no permission, a lock that nobody gives up
            raise ReplyCacheError(
                f"the cache of replies {self.path} cannot be used ({error}): see that its directory can be written "
                "and the disk has space, or set `cache` to another path"
            ) from error
        except sqlite3.DatabaseError as error:
            raise ReplyCacheError(
                f"the cache of replies {self.path} is damaged, or no SQLite file ({error}). Move it away: a new one "
                f"is made, and its replies are paid for again. `sqlite3 {self.path} .recover` may save the old one"
            ) from error
        except OSError as error:
            raise ReplyCacheError(
                f"the directory of the cache of replies {self.path} cannot be made ({error.strerror}): "
                "set `cache` to another path"
            ) from error
