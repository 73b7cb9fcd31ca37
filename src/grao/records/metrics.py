"""metrics.jsonl: one JSON object per line, `step` first."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grao.records.durable import append_line, whole_lines, write_atomically


def append_metrics(path: Path, step: int, values: Mapping[str, Any]) -> None:
    """Append a line with the step and these values.

    Values are numbers (including scalars of numpy or torch), booleans, strings or None. NaN and infinity become null,
    because JSON has neither.

    Raises:
        ValueError: A value of another type, or another `step` among the values.
    """
    if values.get("step", step) != step:
        raise ValueError(f"the metrics of step {step} contain another step, {values['step']!r}")
    plain = {name: _plain(name, value) for name, value in values.items() if name != "step"}
    append_line(path, json.dumps({"step": int(step), **plain}, allow_nan=False).encode())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return every line in order, without an incomplete last line.

    Raises:
        ValueError: A line is not a metrics line. Names the file and line.
    """
    return [_parse(path, number, line) for number, line in enumerate(whole_lines(path), start=1)]


def drop_metrics_after(path: Path, step: int) -> None:
    """Remove the lines of later steps, and an incomplete last line."""
    if path.exists():
        lines = zip(whole_lines(path), read_metrics(path), strict=True)
        write_atomically(path, b"".join(line + b"\n" for line, record in lines if record["step"] <= step))


def _plain(name: str, value: Any) -> Any:
    """Return a value that JSON can hold."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # a scalar of numpy or torch
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"the metric {name!r} is a {type(value).__name__}. Log a number, a boolean, a string or None")


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: not JSON ({error}). Remove the line to read the rest") from error
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        raise ValueError(f"{path}, line {number}: not an object with an integer `step`. Remove the line")
    return record
