"""completions/completions_{step:05d}.parquet: completions and their scores, one row per completion."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from grao.records.durable import write_atomically

FILE_NAME = re.compile(r"completions_(\d{5,})\.parquet")


def write_completions(folder: Path, step: int, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the completions of one step, replacing earlier ones of that step.

    The columns are `step`, then the keys of all rows in order of appearance; a missing key becomes null.
    Conversations (lists of ``{role, content}``) and other nested values become JSON strings, so that a column has one
    type for text and conversations.

    Raises:
        ValueError: No rows, or a column with mixed types.
    """
    if not rows:
        raise ValueError(f"no completions to write at step {step}")
    names = dict.fromkeys(["step", *(name for row in rows for name in row)])
    columns = {name: _column(name, [row.get(name) for row in rows]) for name in names if name != "step"}
    table = pa.table({"step": pa.array([step] * len(rows), pa.int64()), **columns})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    path = folder / f"completions_{step:05d}.parquet"
    write_atomically(path, sink.getvalue().to_pybytes())
    return path


def completion_files(folder: Path) -> dict[int, Path]:
    """Return the file of each step, in order of the step."""
    named = ((FILE_NAME.fullmatch(path.name), path) for path in folder.glob("completions_*.parquet"))
    return dict(sorted((int(match[1]), path) for match, path in named if match))


def read_completions(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Yield the rows of these files, opening each file when its first row is needed."""
    for path in paths:
        yield from pq.read_table(path).to_pylist()


def drop_completions_after(folder: Path, step: int) -> None:
    """Delete the files of later steps."""
    for later, path in completion_files(folder).items():
        if later > step:
            path.unlink()


def _column(name: str, values: list[Any]) -> pa.Array:
    """Return one column, with nested values as JSON."""
    try:
        return pa.array([_flat(value) for value in values], from_pandas=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        types = ", ".join(sorted({type(value).__name__ for value in values}))
        raise ValueError(f"the completions column {name!r} mixes {types} ({error}). Give it one type") from error


def _flat(value: Any) -> Any:
    nested = isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value)
    return json.dumps(value, ensure_ascii=False) if nested or isinstance(value, Mapping) else value
