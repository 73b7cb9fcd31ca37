"""The directory of one run: created once, written by the main process only, resumed without gaps or repeats."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grao.records.checkpoints import break_seal, checkpoints, latest_good_checkpoint
from grao.records.completions import drop_completions_after, write_completions
from grao.records.config_file import config_differences, format_yaml, load_yaml, to_plain
from grao.records.durable import explain_disk_full, fsync_path, whole_lines, write_atomically
from grao.records.environment import environment
from grao.records.metrics import append_metrics, drop_metrics_after

MARK = ".grao-run"


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The directory that a run writes to. `RunDirectory(path)` only names the files; `create` makes or resumes it.

    Example::

        run = RunDirectory.create("runs/first", config)
        run.append_metrics(1, {"reward": 0.25, "kl": 0.0})
        run.write_completions(1, [{"prompt": "3 + 4 =", "completion": "7", "advantage": 1.0}])
    """

    path: Path

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        *,
        overwrite: bool = False,
        resume: bool = False,
        allow: AbstractSet[str] = frozenset(),
    ) -> RunDirectory:
        """Create or reopen the directory, and write `config` and the environment into it.

        Args:
            path: The directory. Its parents are created.
            config: The resolved configuration: mappings, lists, numbers, strings, booleans, None.
            overwrite: Delete the existing run. Only a directory made by this function is ever deleted.
            resume: Continue the existing run, whose configuration must be the same.
            allow: Dotted keys that may differ on resume, including all keys below them.

        Raises:
            FileExistsError: The directory is not empty, and neither `overwrite` nor `resume` is set.
            FileNotFoundError: There is no run to resume.
            ValueError: Not a run directory, or the configuration differs. Lists each key.
            OSError: Not a directory, not writable, or the disk is full.
        """
        if overwrite and resume:
            raise ValueError("cannot both overwrite and resume a run. Choose one of overwrite and resume")
        run = cls(Path(path))
        plain = to_plain(config)
        if resume:
            run._check_resume(plain, allow)
        _make_directory(run.path)
        if not resume and any(run.path.iterdir()):
            if not overwrite:
                raise FileExistsError(
                    f"{run.path} is not empty. Resume its run (resume=True, --resume), replace it "
                    "(overwrite=True, --overwrite), or choose another directory"
                )
            run._delete_contents()
        with explain_disk_full(run.path, run._saved):
            if not resume:
                write_atomically(run.path / MARK, b"A run directory of grao, format 1.\n")
            run._write_environment()
            # The config goes last: a directory with a config is complete.
            write_atomically(run.config_file, format_yaml(plain).encode())
        return run

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def environment_file(self) -> Path:
        """Versions and platform. `before` lists different ones from before the run was resumed."""
        return self.path / "environment.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object per line."""
        return self.path / "metrics.jsonl"

    def folder(self, held_out: bool) -> Path:
        """Return the folder of completions: one parquet file per logged step, or per evaluation (`held_out`)."""
        return self.path / ("held_out" if held_out else "completions")

    @property
    def model_folder(self) -> Path:
        """The trained model, at the end."""
        return self.path / "model"

    def append_metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl. See `metrics.append_metrics`."""
        with explain_disk_full(self.metrics_file, self._saved):
            append_metrics(self.metrics_file, step, values)

    def write_completions(self, step: int, rows: Sequence[Mapping[str, Any]], *, held_out: bool = False) -> Path:
        """Write the completions of one step, or of an evaluation (`held_out`). See `completions.write_completions`."""
        folder = self.folder(held_out)
        with explain_disk_full(folder, self._saved):
            folder.mkdir(exist_ok=True)
            return write_completions(folder, step, rows)

    def sync(self) -> None:
        """Wait until the metrics are on disk. Called with every checkpoint, so that they match."""
        if self.metrics_file.exists():
            with explain_disk_full(self.metrics_file, self._saved):
                fsync_path(self.metrics_file)

    def truncate_after(self, step: int) -> None:
        """Remove everything after `step`, where a resumed run will continue; −1 removes everything.

        Drops later metrics and completions, and an incomplete last line of metrics. Later checkpoints lose their seal,
        because they no longer belong to this run.
        """
        with explain_disk_full(self.metrics_file, self._saved):
            drop_metrics_after(self.metrics_file, step)
        for held_out in (False, True):
            drop_completions_after(self.folder(held_out), step)
        for later, checkpoint in checkpoints(self.path):
            if later > step:
                break_seal(checkpoint)

    def _check_resume(self, config: dict[str, Any], allow: AbstractSet[str]) -> None:
        """Raise unless there is a run with this configuration, except for the keys in `allow`."""
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            raise FileNotFoundError(f"{self.path} has no run to resume. Start one without resume")
        self._check_ours("Resume another directory")
        differing = [
            f"  {key}: {old!r} in the run, {new!r} now"
            for key, old, new in config_differences(load_yaml(self.config_file), config)
            if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in allow)
        ]
        if differing:
            raise ValueError(
                f"cannot resume {self.path}: its configuration differs.\n"
                + "\n".join(differing)
                + "\nRestore these values, or start a new run in another directory"
            )

    def _check_ours(self, remedy: str) -> None:
        if not ((self.path / MARK).is_file() and self.config_file.is_file()):
            raise ValueError(f"{self.path} is not a run directory ({MARK} or config.yaml is missing). {remedy}")

    def _write_environment(self) -> None:
        """Write this process's environment, and the different earlier ones of a resumed run."""
        record = environment()
        if self.environment_file.exists():
            earlier = json.loads(self.environment_file.read_bytes())
            before = earlier.pop("before", [])
            before += [earlier] if earlier != record else []
            record |= {"before": before} if before else {}
        write_atomically(self.environment_file, json.dumps(record, indent=1).encode())

    def _delete_contents(self) -> None:
        """Empty the directory, deleting the mark and config last, so that an interrupted deletion can be repeated."""
        self._check_ours("Choose another directory, or empty this one yourself")
        last = [self.config_file, self.path / MARK]
        for entry in [entry for entry in self.path.iterdir() if entry not in last] + last:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def _saved(self) -> str:
        """Return what is on disk after a failed write, for an error message."""
        lines = whole_lines(self.metrics_file)
        metrics = f"metrics up to step {json.loads(lines[-1])['step']}" if lines else "no metrics"
        latest = latest_good_checkpoint(self.path)
        return f"{metrics}, {latest.path.name if latest.path else 'no checkpoint'}"


def _make_directory(path: Path) -> None:
    """Create the directory and check that it is writable."""
    try:
        with explain_disk_full(path, lambda: "the earlier content"):
            path.mkdir(parents=True, exist_ok=True)
            probe = path / ".writable"
            probe.touch()
            probe.unlink()
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"cannot create the directory {path}: a file is in the way. Choose another path"
        ) from error
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        raise PermissionError(f"cannot write to {path} ({error.strerror}). Choose another directory") from error
