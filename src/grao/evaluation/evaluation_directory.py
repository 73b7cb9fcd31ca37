"""The directory of an evaluation: written part by part, so that a kill costs one part of one model.

evaluation/
  config.yaml                       the resolved configuration
  environment.json                  versions
  items/base/made_from.json         the model, its files' hashes, the rows
  items/base/part_00000.parquet     the answers to `batch` prompts and their scores
  items/base.parquet                all parts of a model, once it has answered everything
  evaluation.json                   every figure
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

MAY_CHANGE = frozenset({"models", "k", "verifiable", "device", "output_dir", "sampling.max_rows"})
"""Keys that may differ from what is stored. Models are looked at one by one; the figures are computed anew from the
stored scores; where and in how large batches a model answers changes no draw but by rounding."""


@dataclass(frozen=True, slots=True)
class EvaluationDirectory:
    """Where an evaluation writes. `EvaluationDirectory(path)` only names the places; `open` makes or continues one."""

    path: Path

    @classmethod
    def open(cls, path: str | Path, config: Mapping[str, Any], *, overwrite: bool = False) -> EvaluationDirectory:
        """Make the directory, or go on with the evaluation in it.

        Raises:
            ValueError: it holds something else, or an evaluation of another configuration, key by key.
            OSError: not a directory, not writable, or the disk is full.
        """
        run = RunDirectory(Path(path))
        there = run.config_file.is_file()
        if there and "models" not in load_yaml(run.config_file):
            raise ValueError(
                f"{run.path} holds a training run, not an evaluation; choose another output_dir, such as "
                f"{run.path / 'evaluation'}"
            )
        _clear_a_creation_cut_short(run)
        foreign = not there and run.path.is_dir() and any(run.path.iterdir())
        if foreign:
            raise ValueError(f"{run.path} is not empty and holds no evaluation; choose another output_dir")
        RunDirectory.create(path, config, overwrite=overwrite, resume=there and not overwrite, allow=MAY_CHANGE)
        return cls(Path(path))

    @property
    def figures_file(self) -> Path:
        """Every figure, as JSON."""
        return self.path / "evaluation.json"

    def items_file(self, model: str) -> Path:
        """All items of a model."""
        return self.path / "items" / f"{model}.parquet"

    def part(self, model: str, index: int) -> Path:
        """The items of one part; there when it is done."""
        return self.path / "items" / model / f"part_{index:05d}.parquet"

    def stored(self, model: str, parts: int) -> int:
        """How many of a model's parts are done."""
        return sum(self.part(model, index).is_file() for index in range(parts))

    def provenance(self, model: str) -> Fingerprint | None:
        """What the stored answers of a model were made from; None where there are none."""
        file = self._provenance_file(model)
        return Fingerprint.from_json(file.read_bytes()) if file.is_file() else None

    def begin(self, model: str, now: Fingerprint) -> None:
        """Make room for a model's answers, or go on with them.

        Raises:
            ValueError: the stored ones were made from something else.
        """
        before = self.provenance(model)
        answered = any(self.part(model, 0).parent.glob("part_*.parquet"))
        if answered and before is not None and (changes := before.differences(now)):
            raise ValueError(
                f"{self.path} holds answers of a model named {model!r} that were made from something else:\n"
                + "\n".join(f"  {change}" for change in changes)
                + "\nGive the model another name, or begin anew with --overwrite or in another output_dir"
            )
        self.part(model, 0).parent.mkdir(parents=True, exist_ok=True)
        self.write(self._provenance_file(model), now.to_json())

    def write(self, path: Path, content: bytes) -> None:
        """Write a file whole or not at all."""
        with explain_disk_full(path, lambda: "every part that is stored"):
            write_atomically(path, content)

    def _provenance_file(self, model: str) -> Path:
        return self.part(model, 0).with_name("made_from.json")


def _clear_a_creation_cut_short(run: RunDirectory) -> None:
    """Killed before its configuration was there, a directory holds nothing yet, but would look like another's."""
    if not run.path.is_dir() or run.config_file.exists():
        return
    entries = list(run.path.iterdir())
    ours = (MARK, run.environment_file.name, run.config_file.name)
    if any(entry.name == MARK or entry.name == f".{MARK}.tmp" for entry in entries) and all(
        entry.name in ours or entry.name in [f".{name}.tmp" for name in ours] for entry in entries
    ):
        for entry in entries:
            entry.unlink()
