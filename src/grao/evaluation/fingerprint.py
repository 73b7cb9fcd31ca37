"""What a model's results were made from, so that results of other weights or rows are never taken for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grao.configuration import to_mapping
from grao.data import Example
from grao.evaluation.config import EvaluatedModel
from grao.policy import hub_commit, model_directories

READ_SUFFIXES = {".json", ".safetensors", ".model", ".txt", ".jinja", ".py"}
"""Of the files that loading a model can read: weights, configurations, tokenizers, templates, code."""


@dataclass(frozen=True, slots=True)
class FileState:
    """A file's content and how the file system describes it.

    While size and time are as they were, so is the content, as git's index has it; else it is read again.
    """

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path, known: FileState | None = None) -> FileState:
        """Reads the file only where `known` is not about it as it is now."""
        stat = path.stat()
        if known is not None and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return known
        with path.open("rb") as file:
            return cls(stat.st_size, stat.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The model, the rows and, where a KL was measured, the base behind a set of stored answers."""

    model: Mapping[str, Any]
    """The model's section of the configuration; `path` and `tokenizer` say what was meant, `files` what was read."""
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
        """Look at the model's files; `known`, an earlier look, spares reading those that have not been touched."""
        seen = {} if known is None else known.files
        files = {
            f"{part}/{path.name}": FileState.of(path, seen.get(f"{part}/{path.name}"))
            for part, directory in model_directories(model).items()
            for path in sorted(directory.iterdir())
            if path.is_file() and path.suffix in READ_SUFFIXES
        }
        return cls(to_mapping(model), files, hub_commit(model), rows, base)

    @property
    def digest(self) -> str:
        """Of the weights and everything read with them, wherever they lie."""
        contents = {name: state.sha256 for name, state in self.files.items()}
        settings = {k: v for k, v in self.model.items() if k not in ("name", "path", "tokenizer")}
        return _digest([contents, self.commit, settings])

    def differences(self, now: Fingerprint) -> list[str]:
        """What is not now as it was, in words; where the files are moved as they are, nothing is."""
        found = [
            f"{key} was {self.model.get(key)!r} and is {now.model.get(key)!r}"
            for key in now.model
            if key not in ("path", "tokenizer") and self.model.get(key) != now.model[key]
        ]
        for name in sorted({*self.files, *now.files}):
            before, after = self.files.get(name), now.files.get(name)
            if before is None or after is None:
                found.append(f"{name} is {'new' if before is None else 'gone'}")
            elif before.sha256 != after.sha256:
                found.append(f"{name} has changed")
        if self.commit != now.commit:
            found.append(f"its commit on the hub was {self.commit} and is {now.commit}")
        if self.rows != now.rows:
            found.append("the rows of the data have changed")
        if self.base != now.base:
            found.append("the base has changed, which the KL is measured to")
        return found

    def to_json(self) -> bytes:
        """For the disk."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Fingerprint:
        """What `to_json` wrote."""
        plain = json.loads(content)
        return cls(**{**plain, "files": {name: FileState(**state) for name, state in plain["files"].items()}})


def rows_digest(examples: Iterable[Example]) -> str:
    """Of all that an answer or a score can depend on."""
    return _digest([[e.row, e.prompt, e.reference, dict(e.columns)] for e in examples])


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
