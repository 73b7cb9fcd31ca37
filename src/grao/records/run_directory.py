"""The directory of one run: made once, written to by the main process only, resumed without leaving a seam."""

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
from grao.records.completions import keep_completions_until, write_completions
from grao.records.config_file import format_yaml, load_yaml
from grao.records.differences import differences, shown
from grao.records.durable import explain_disk_full, fsync_path, whole_lines, write_atomically
from grao.records.environment import environment
from grao.records.metrics import append_metrics, keep_metrics_until

MARK = ".grao-run"


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Where a run writes. `RunDirectory(path)` only names the places; `create` makes or resumes one.

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
        """Make the directory and write `config` and the environment into it; or reopen one.

        Args:
            path: the directory; its parents are made.
            config: the resolved configuration: mappings, lists, numbers, strings, booleans, None.
            overwrite: delete the run that is there. Only a directory made by this function is ever deleted.
            resume: go on with the run that is there; its configuration must be this one.
            allow: dotted keys that may differ on resume; a key stands for all below it.

        Raises:
            FileExistsError: something is there, and neither `overwrite` nor `resume` was asked for.
            FileNotFoundError: there is nothing to resume.
            ValueError: not a run directory of ours, or a configuration that differs, key by key.
            OSError: not a directory, not writable, or the disk is full.
        """
        if overwrite and resume:
            raise ValueError("a run is either overwritten or resumed: choose one of overwrite and resume")
        run = cls(Path(path))
        plain = _plain(config)
        if resume:
            run._resume(plain, allow)
            return run
        _make_directory(run.path)
        occupied = any(run.path.iterdir())
        if occupied and not overwrite:
            raise FileExistsError(
                f"{run.path} is not empty. Resume the run in it (resume=True, --resume), replace it "
                "(overwrite=True, --overwrite), or choose another directory"
            )
        if occupied:
            run._delete_contents()
        with explain_disk_full(run.path, lambda: "nothing yet"):
            write_atomically(run.path / MARK, b"A run directory of grao, format 1.\n")
            run._write_environment()
            # The config goes last: a directory with a config is a whole one.
            write_atomically(run.config_file, format_yaml(plain).encode())
        return run

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def environment_file(self) -> Path:
        """Versions and platform; under `before`, those of earlier parts of a resumed run where they differed."""
        return self.path / "environment.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def completions_folder(self) -> Path:
        """One parquet file a logged step."""
        return self.path / "completions"

    @property
    def held_out_folder(self) -> Path:
        """Answers to held-out prompts: one parquet file an evaluation, named as in `completions_folder`."""
        return self.path / "held_out"

    @property
    def model_folder(self) -> Path:
        """The trained model, at the end."""
        return self.path / "model"

    def append_metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl; NaN and infinity are written as null. See `metrics.append_metrics`."""
        with explain_disk_full(self.metrics_file, self._safe_so_far):
            append_metrics(self.metrics_file, step, values)

    def write_completions(self, step: int, rows: Sequence[Mapping[str, Any]], *, held_out: bool = False) -> Path:
        """Write one step's completions, whole or not at all; `held_out`: those of an evaluation.

        See `completions.write_completions`.
        """
        folder = self.held_out_folder if held_out else self.completions_folder
        with explain_disk_full(folder, self._safe_so_far):
            folder.mkdir(exist_ok=True)
            return write_completions(folder, step, rows)

    def sync(self) -> None:
        """Wait until the metrics are on the disk; called with every checkpoint, so that neither outruns the other."""
        if self.metrics_file.exists():
            with explain_disk_full(self.metrics_file, self._safe_so_far):
                fsync_path(self.metrics_file)

    def truncate_after(self, step: int) -> None:
        """Forget everything after `step`, which a run resumed there will write again; −1 forgets all of it.

        Drops later metric lines, a torn last line, and later completions. Later checkpoints lose their seal: they
        belong to a history that is being rewritten, and must not be resumed from.
        """
        with explain_disk_full(self.metrics_file, self._safe_so_far):
            keep_metrics_until(self.metrics_file, step)
        for folder in (self.completions_folder, self.held_out_folder):
            keep_completions_until(folder, step)
        for later, checkpoint in checkpoints(self.path):
            if later > step:
                break_seal(checkpoint)

    def _resume(self, config: dict[str, Any], allow: AbstractSet[str]) -> None:
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            raise FileNotFoundError(f"{self.path} holds no run to resume; start one without resume")
        if not _is_ours(self.path):
            raise ValueError(
                f"{self.path} is not a run directory ({MARK} or config.yaml is missing): nothing to resume"
            )
        saved = load_yaml(self.config_file)
        differing = [
            f"  {key}: {shown(old)} in the run, {shown(new)} now"
            for key, old, new in differences(saved, config)
            if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in allow)
        ]
        if differing:
            raise ValueError(
                f"cannot resume {self.path}: its configuration differs.\n"
                + "\n".join(differing)
                + "\nSet these back, or start a new run in another directory"
            )
        _make_directory(self.path)
        with explain_disk_full(self.path, self._safe_so_far):
            write_atomically(self.config_file, format_yaml(config).encode())
            self._write_environment()

    def _write_environment(self) -> None:
        """This process's environment, with the earlier ones of a resumed run where they were different."""
        record = environment()
        if self.environment_file.exists():
            earlier = json.loads(self.environment_file.read_bytes())
            before = earlier.pop("before", [])
            before += [earlier] if earlier != record else []
            record |= {"before": before} if before else {}
        write_atomically(self.environment_file, json.dumps(record, indent=1).encode())

    def _delete_contents(self) -> None:
        """Empty the directory; what proves it ours goes last, so that a deletion cut short can be repeated."""
        if not _is_ours(self.path):
            raise ValueError(
                f"{self.path} is not a run directory ({MARK} or config.yaml is missing) and is not overwritten. "
                "Choose another directory, or empty this one yourself"
            )
        proofs = [self.config_file, self.path / MARK]
        for entry in [entry for entry in self.path.iterdir() if entry not in proofs] + proofs:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def _safe_so_far(self) -> str:
        """What a user can rely on after a failed write."""
        lines = whole_lines(self.metrics_file)
        metrics = f"metrics up to step {json.loads(lines[-1])['step']}" if lines else "no metrics"
        latest = latest_good_checkpoint(self.path)
        return f"{metrics}, {latest.path.name if latest.path else 'no checkpoint'}"


def _is_ours(path: Path) -> bool:
    return (path / MARK).is_file() and (path / "config.yaml").is_file()


def _make_directory(path: Path) -> None:
    """Make the directory, or say in the user's terms why it cannot be one."""
    try:
        with explain_disk_full(path, lambda: "what was there before"):
            path.mkdir(parents=True, exist_ok=True)
            probe = path / ".writable"
            probe.touch()
            probe.unlink()
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"{path}: {error.filename or path} is a file, and a run needs a directory; choose another path"
        ) from error
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        raise PermissionError(
            f"{path} cannot be written ({error.strerror}); choose a directory that you may write to"
        ) from error


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy made of dicts and lists only, as reading it back from YAML would give."""

    def convert(value: Any, where: str) -> Any:
        if isinstance(value, Mapping):
            return {str(key): convert(item, f"{where}.{key}" if where else str(key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [convert(item, f"{where}[{index}]") for index, item in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise ValueError(
            f"{where} is a {type(value).__name__}, which a config.yaml cannot hold: "
            "resolve it to numbers, strings, booleans, lists or mappings first"
        )

    converted = convert(config, "")
    assert isinstance(converted, dict)
    return converted
