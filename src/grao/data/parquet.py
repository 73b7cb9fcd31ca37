"""Rows of a Parquet file; the one place that imports pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from grao.data.row import Record


def read_parquet(path: Path) -> Iterator[Record]:
    """The rows of a Parquet file, as Python values.

    Raises:
        ValueError: the file is damaged or cut short.
    """
    place = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for fields in batch.to_pylist():
                    yield Record(f"{path.name}, row {place}", fields)
                    place += 1
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path}, row {place}: damaged Parquet file ({_first_line(error)}): download or write it again"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
