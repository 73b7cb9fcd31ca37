"""metrics.jsonl: one JSON object a line, `step` first."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grao.records.durable import append_line, whole_lines, write_atomically


def append_metrics(path: Path, step: int, values: Mapping[str, Any]) -> None:
    """Append a line with the step and these values.

    Values are numbers, booleans, strings or None; scalars of numpy or torch count as numbers. JSON has no NaN and no
    infinity: both become null, so that every reader of JSON can read every line.

    Raises:
        ValueError: a value of another type, or a `step` among the values that is another one.
    """
    if values.get("step", step) != step:
        raise ValueError(f"the metrics of step {step} hold another step: {values['step']!r}")
    plain = {name: _plain(name, value) for name, value in values.items() if name != "step"}
    append_line(path, json.dumps({"step": int(step), **plain}, allow_nan=False).encode())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every whole line, in order; a torn last line, of a run that was killed or is still writing, is left out.

    Raises:
        ValueError: a line that is no metrics line, by file and number.
    """
    return [_parse(path, number, line) for number, line in enumerate(whole_lines(path), start=1)]


def keep_metrics_until(path: Path, step: int) -> None:
    """Drop the lines of later steps, and a torn last line."""
    if path.exists():
        kept = [
            line
            for number, line in enumerate(whole_lines(path), start=1)
            if _parse(path, number, line)["step"] <= step
        ]
        write_atomically(path, b"".join(line + b"\n" for line in kept))


def _plain(name: str, value: Any) -> Any:
    """A value that JSON can hold."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # a scalar of numpy or torch
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(
        f"the metric {name!r} is a {type(value).__name__}; a metric is a number, a boolean, a string or None"
    )


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: not JSON ({error}); remove the line to read the rest") from error
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        raise ValueError(f"{path}, line {number}: not an object with a whole-numbered `step`; remove the line")
    return record
