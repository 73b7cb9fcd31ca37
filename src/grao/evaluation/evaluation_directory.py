"""The directory of an evaluation, written part by part: a kill costs at most one part of one model.

evaluation/
  config.yaml                       the resolved configuration
  environment.json                  versions
  items/base/made_from.json         the model, hashes of its files and of the rows
  items/base/part_00000.parquet     answers to `batch` prompts and their scores
  items/base.parquet                all parts of a model, once all are stored
  evaluation.json                   every metric
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grao.evaluation.fingerprint import Fingerprint
from grao.records import RunDirectory
from grao.records.config_file import load_yaml
from grao.records.durable import explain_disk_full, write_atomically
from grao.records.run_directory import MARK

MAY_CHANGE = frozenset({"models", "k", "verifiable", "device", "output_dir", "engine.max_rows"})
"""Keys that may differ from the stored configuration: models are checked one by one, metrics are computed again from
the stored scores, and the device and the batch size change no draw but by rounding."""


@dataclass(frozen=True, slots=True)
class EvaluationDirectory:
    """The files of an evaluation. `EvaluationDirectory(path)` only names them; `open` makes or continues one."""

    path: Path

    @classmethod
    def open(cls, path: str | Path, config: Mapping[str, Any], *, overwrite: bool = False) -> EvaluationDirectory:
        """Make the directory, or continue the evaluation in it.

        Raises:
            ValueError: it holds something else, or an evaluation of another configuration, key by key.
            OSError: not a directory, not writable, or the disk is full.
        """
        run = RunDirectory(Path(path))
        exists = run.config_file.is_file()
        if exists and "models" not in load_yaml(run.config_file):
            raise ValueError(
                f"{run.path} holds a training run, not an evaluation. Choose another output_dir, such as "
                f"{run.path / 'evaluation'}"
            )
        if not exists and run.path.is_dir():
            _remove_incomplete_creation(run)
            if any(run.path.iterdir()):
                raise ValueError(f"{run.path} is not empty and holds no evaluation. Choose another output_dir")
        RunDirectory.create(path, config, overwrite=overwrite, resume=exists and not overwrite, allow=MAY_CHANGE)
        return cls(Path(path))

    @property
    def metrics_file(self) -> Path:
        """Every metric, as JSON."""
        return self.path / "evaluation.json"

    def items_file(self, model: str) -> Path:
        """All items of a model."""
        return self.path / "items" / f"{model}.parquet"

    def part(self, model: str, index: int) -> Path:
        """The items of one part; the file exists once the part is done."""
        return self.path / "items" / model / f"part_{index:05d}.parquet"

    def fingerprint(self, model: str) -> Fingerprint | None:
        """Read what the stored answers of a model were made from; None if there are none."""
        file = self._fingerprint_file(model)
        return Fingerprint.from_json(file.read_bytes()) if file.is_file() else None

    def begin(self, model: str, now: Fingerprint) -> None:
        """Prepare to store a model's answers, or to continue with them.

        Raises:
            ValueError: the stored answers were made from something else.
        """
        before, folder = self.fingerprint(model), self.part(model, 0).parent
        if before is not None and any(folder.glob("part_*.parquet")) and (changes := before.differences(now)):
            raise ValueError(
                f"{self.path} holds answers of a model named {model!r} that were made from something else:\n"
                + "\n".join(f"  {change}" for change in changes)
                + "\nRename the model, choose another output_dir, or start over with --overwrite"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.write(self._fingerprint_file(model), now.to_json())

    def write(self, path: Path, content: bytes) -> None:
        """Write a file whole or not at all."""
        with explain_disk_full(path, lambda: "every part that is stored"):
            write_atomically(path, content)

    def _fingerprint_file(self, model: str) -> Path:
        return self.part(model, 0).with_name("made_from.json")


def _remove_incomplete_creation(run: RunDirectory) -> None:
    """Empty a directory that was killed before its configuration was written: it would look like someone else's."""
    names = {MARK, run.environment_file.name, run.config_file.name}
    entries = {entry.name: entry for entry in run.path.iterdir()}
    marked = MARK in entries or f".{MARK}.tmp" in entries
    if marked and entries.keys() <= names | {f".{name}.tmp" for name in names}:
        for entry in entries.values():
            entry.unlink()
