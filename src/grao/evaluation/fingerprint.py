"""Fingerprints of models and rows, so that stored answers of other weights or rows are never reused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grao.configuration import to_mapping
from grao.data import Example
from grao.evaluation.evaluation_config import EvaluatedModel
from grao.policy import hub_commit, model_directories

READ_SUFFIXES = {".json", ".safetensors", ".model", ".txt", ".jinja", ".py"}
"""Files that loading a model can read: weights, configurations, tokenizers, templates, code."""


@dataclass(frozen=True, slots=True)
class FileState:
    """Size, time and hash of a file. While size and time are the same, the hash is not computed again (as in git)."""

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path, known: FileState | None = None) -> FileState:
        """Hash the file, unless `known` still describes it."""
        stat = path.stat()
        if known is not None and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return known
        with path.open("rb") as file:
            return cls(stat.st_size, stat.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The model, the rows and, if a KL was measured, the base behind a set of stored answers."""

    model: Mapping[str, Any]
    """The model's section of the configuration. `path` and `tokenizer` may change if the files stay the same."""
    files: Mapping[str, FileState]
    """By the part of the model and the name in its directory."""
    commit: str | None
    """On the hub."""
    rows: str
    """Digest of the examples."""
    base: str | None
    """Digest of the base that the KL is measured to."""

    @classmethod
    def of(cls, model: EvaluatedModel, rows: str, base: str | None, known: Fingerprint | None) -> Fingerprint:
        """Read the model's files; those unchanged since the fingerprint `known` are not hashed again."""
        seen = {} if known is None else known.files
        paths = {
            f"{part}/{path.name}": path
            for part, directory in model_directories(model).items()
            for path in sorted(directory.iterdir())
            if path.is_file() and path.suffix in READ_SUFFIXES
        }
        files = {name: FileState.of(path, seen.get(name)) for name, path in paths.items()}
        return cls(to_mapping(model), files, hub_commit(model), rows, base)

    @property
    def digest(self) -> str:
        """Hash of the weights and everything read with them, independent of their path."""
        contents = {name: state.sha256 for name, state in self.files.items()}
        settings = {k: v for k, v in self.model.items() if k not in ("name", "path", "tokenizer")}
        return _digest([contents, self.commit, settings])

    def differences(self, now: Fingerprint) -> list[str]:
        """List what has changed since this fingerprint; files that only moved have not."""
        found = [
            f"{key} was {self.model.get(key)!r} and is {value!r}"
            for key, value in now.model.items()
            if key not in ("path", "tokenizer") and self.model.get(key) != value
        ]
        for name in sorted({*self.files, *now.files}):
            before, after = self.files.get(name), now.files.get(name)
            if before is None or after is None:
                found.append(f"{name} is {'new' if before is None else 'gone'}")
            elif before.sha256 != after.sha256:
                found.append(f"{name} has changed")
        if self.commit != now.commit:
            found.append(f"the hub commit was {self.commit} and is {now.commit}")
        if self.rows != now.rows:
            found.append("the rows of the data have changed")
        if self.base != now.base:
            found.append("the base that the KL is measured to has changed")
        return found

    def to_json(self) -> bytes:
        """Serialise as JSON."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Fingerprint:
        """Read what `to_json` wrote."""
        fields = json.loads(content)
        return cls(**{**fields, "files": {name: FileState(**state) for name, state in fields["files"].items()}})


def rows_digest(examples: Iterable[Example]) -> str:
    """Hash everything of the examples that an answer or a score can depend on."""
    return _digest([[e.row, e.prompt, e.reference, dict(e.columns)] for e in examples])


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
