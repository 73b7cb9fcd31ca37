"""completions/completions_{step:05d}.parquet: what was sampled and how it scored, one row a completion."""

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


def completions_file(folder: Path, step: int) -> Path:
    """Where the completions of a step lie."""
    return folder / f"completions_{step:05d}.parquet"


def write_completions(folder: Path, step: int, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write one step's completions, replacing what that step had.

    The columns are `step`, then every key of every row in order of appearance; a row without a key holds null there.
    Conversations (lists of ``{role, content}``) and other nested values become JSON strings, so that a column has one
    type whether a prompt is text or a conversation.

    Raises:
        ValueError: no rows, or a column that mixes types.
    """
    if not rows:
        raise ValueError(f"no completions to write at step {step}; skip the call")
    names = dict.fromkeys(["step", *(name for row in rows for name in row)])
    columns = {name: _column(name, [row.get(name) for row in rows]) for name in names if name != "step"}
    table = pa.table({"step": pa.array([step] * len(rows), pa.int64()), **columns})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    path = completions_file(folder, step)
    write_atomically(path, sink.getvalue().to_pybytes())
    return path


def completion_files(folder: Path) -> list[tuple[int, Path]]:
    """Steps and files, in order of the step."""
    named = ((FILE_NAME.fullmatch(path.name), path) for path in folder.glob("completions_*.parquet"))
    return sorted((int(match[1]), path) for match, path in named if match)


def read_completions(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The rows of these files, one after another; a file is read when its first row is asked for."""
    for path in paths:
        yield from pq.read_table(path).to_pylist()


def keep_completions_until(folder: Path, step: int) -> None:
    """Delete the files of later steps."""
    for later, path in completion_files(folder):
        if later > step:
            path.unlink()


def _column(name: str, values: list[Any]) -> pa.Array:
    """One column, with nested values as JSON."""
    try:
        return pa.array([_flat(value) for value in values], from_pandas=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        kinds = ", ".join(sorted({type(value).__name__ for value in values}))
        raise ValueError(
            f"the column {name!r} of the completions holds {kinds}; give it one type ({error})"
        ) from error


def _flat(value: Any) -> Any:
    if isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value)
    ):
        return json.dumps(value, ensure_ascii=False)
    return value
