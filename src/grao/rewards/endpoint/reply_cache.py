"""Replies on disk, so that each is paid for once: one SQLite file, shared by threads and processes."""

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
"""Version of the table below, stored as the file's `user_version`."""
APPLICATION = 0x6772616F
"""``grao`` in ASCII, stored as the file's `application_id`: it tells our files from other SQLite files."""
BUSY_SECONDS = 60.0
"""How long to wait for another process that is writing."""

_TABLE = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY,       -- SHA-256 of the whole question, see question_key
    text TEXT NOT NULL,         -- the reply as received
    finish TEXT NOT NULL,       -- finish_reason
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    model TEXT NOT NULL,        -- as requested
    time TEXT NOT NULL          -- UTC
)
"""


class ReplyCacheError(StopError, ValueError):
    """The file is damaged, of another kind or version, or cannot be written; the message names the remedy."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An endpoint's reply."""

    text: str
    finish: str = "stop"
    """``"stop"``, ``"length"`` (cut at `max_tokens`), …"""
    prompt_tokens: int = 0
    completion_tokens: int = 0


def question_key(question: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal, of the question as canonical JSON: keys sorted, no spaces, ASCII."""
    text = json.dumps(question, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class ReplyCache:
    """Replies by the key of their question.

    A reply is on disk when `put` returns (write-ahead log, synchronous=FULL): after a crash or power loss it is not
    paid for again. Keys are hashes; nothing of a request is stored.

    Raises:
        ReplyCacheError: The file is not a cache, of another version, damaged or not writable; here and at every use.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        with self._cache_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._open()

    def _open(self) -> None:
        run = self._connection.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("BEGIN IMMEDIATE")  # if several processes open a new file, one of them makes the table
        version, application = self.pragma("user_version"), self.pragma("application_id")
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if tables == 0:
            run(_TABLE)
            run(f"PRAGMA user_version = {VERSION}")
            run(f"PRAGMA application_id = {APPLICATION}")
        run("COMMIT")
        if tables and application != APPLICATION:
            raise ReplyCacheError(f"{self.path} is an SQLite file, but not a reply cache. Give another path.")
        if tables and version != VERSION:
            raise ReplyCacheError(
                f"{self.path} is a reply cache of version {version}, and this grao reads version {VERSION}. "
                "Give another path, or install the grao that wrote it."
            )

    def pragma(self, name: str) -> Any:
        """Return a setting of the database, such as ``"journal_mode"``."""
        (value,) = self._connection.execute(f"PRAGMA {name}").fetchone()
        return value

    def get(self, key: str) -> Reply | None:
        """Return the reply to that question, if there is one."""
        with self._cache_errors(), self._lock:
            row = self._connection.execute(
                "SELECT text, finish, prompt_tokens, completion_tokens FROM replies WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else Reply(*row)

    def put(self, key: str, reply: Reply, model: str) -> Reply:
        """Store a reply; it is on disk on return.

        Returns:
            The reply in the cache. If another process stored one for the same question first, it is that one, so that
            both continue with the same.
        """
        row = (key, reply.text, reply.finish, reply.prompt_tokens, reply.completion_tokens, model)
        with self._cache_errors(), self._lock:
            self._connection.execute(
                "INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*row, datetime.now(UTC).isoformat(timespec="seconds")),
            )
        return self.get(key) or reply

    def __len__(self) -> int:
        with self._cache_errors(), self._lock:
            (count,) = self._connection.execute("SELECT count(*) FROM replies").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _cache_errors(self) -> Iterator[None]:
        """Turn SQLite's errors into `ReplyCacheError`."""
        try:
            yield
        except sqlite3.OperationalError as error:  # disk full, no permission, locked for too long
            raise ReplyCacheError(
                f"the reply cache {self.path} cannot be used ({error}). Check that its directory is writable and the "
                "disk has space, or set `cache` to another path."
            ) from error
        except sqlite3.DatabaseError as error:
            raise ReplyCacheError(
                f"the reply cache {self.path} is damaged, or not an SQLite file ({error}). Move it away (its replies "
                f"are then paid for again), or try `sqlite3 {self.path} .recover`."
            ) from error
        except OSError as error:
            raise ReplyCacheError(
                f"the directory of the reply cache {self.path} cannot be made ({error.strerror}). "
                "Set `cache` to another path."
            ) from error
