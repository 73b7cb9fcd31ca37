"""Errors of a run, each with the checkpoint that is safe to resume from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from grao.records import latest_good_checkpoint
from grao.rewards import RewardError
from grao.rollout import EngineError


class NotFiniteError(FloatingPointError):
    """A loss or gradient that is not finite; raised before the optimiser sees it."""


def not_finite(found: str, step: int, rows: Sequence[int], output_dir: str | Path) -> NotFiniteError:
    """Return the error for a loss or gradient that is not finite.

    Args:
        found: What is not finite, with its value.
        step: The step that failed, counted from 1.
        rows: Rows of the batch.
        output_dir: The run directory.
    """
    return NotFiniteError(
        f"Step {step}: {found}. Rows of this batch: {list(rows)}. No update was made; {last_good(output_dir)}. "
        "Usual causes: a learning rate that is too high, a reward of extreme size, or half precision without bf16."
    )


def last_good(output_dir: str | Path) -> str:
    """Name the checkpoint to resume from, or say that there is none."""
    good = latest_good_checkpoint(Path(output_dir)).path
    return f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"


def how_to_resume(output_dir: str | Path) -> str:
    """Tell the user where ``--resume`` continues."""
    good = latest_good_checkpoint(Path(output_dir)).path
    return f"Resume from {good} with --resume (resume=True)." if good else "No checkpoint yet: --resume starts over."


def add_remark(error: RewardError | EngineError, remark: str) -> None:
    """Append a sentence to the message of an error; its class stays."""
    error.args = (f"{error} {remark}" if str(error).endswith(".") else f"{error}. {remark}",)


@contextmanager
def explain_failed_write(written: str, step: int, output_dir: str | Path) -> Iterator[None]:
    """Turn a failed write into an OSError that names the last good checkpoint.

    A full disk is a RuntimeError in torch and an exception of its own in safetensors.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise OSError(
            f"Step {step}: cannot write the {written} ({error}); {last_good(output_dir)}. "
            "If the disk is full, free some space, then resume this run."
        ) from error
