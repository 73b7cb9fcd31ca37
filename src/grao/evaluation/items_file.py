"""Items as parquet: one row per answer, for pandas and for resuming an evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from grao.evaluation.items import Item
from grao.records.durable import explain_disk_full, make_atomically

COLUMNS = {
    "row": pa.int64(),
    "sample": pa.int64(),
    "prompt": pa.string(),
    "reference": pa.string(),
    "answer": pa.string(),
    "category": pa.string(),
    "tokens": pa.int64(),
    "finish": pa.string(),
    "reward": pa.float64(),
    "reference_reward": pa.float64(),
    "kl": pa.float64(),
}
"""The fields of an item; after them come `score/{name}`, `reference_score/{name}` and `extra/{name}`."""

PREFIXES = {"score/": "scores", "reference_score/": "reference_scores", "extra/": "extras"}
"""Columns of the mappings of an item."""

Accounting = Mapping[str, Sequence[float]]
"""What rewards logged while scoring, by name: one number per call."""

_ACCOUNTING = b"grao.accounting"


def write_items(path: Path, items: Sequence[Item], accounting: Accounting | None = None) -> None:
    """Write the file whole or not at all, with `accounting` in its header."""
    columns = {name: pa.array([_flat(getattr(item, name)) for item in items], kind) for name, kind in COLUMNS.items()}
    for prefix, field in PREFIXES.items():
        for name in dict.fromkeys(name for item in items for name in getattr(item, field)):
            values = [getattr(item, field).get(name) for item in items]
            columns[storable(prefix + name)] = _extra(values) if field == "extras" else pa.array(values, pa.float64())
    table = pa.table(columns)
    if accounting:
        table = table.replace_schema_metadata({_ACCOUNTING: json.dumps(accounting, sort_keys=True).encode()})
    _write(path, table)


def read_items(path: Path) -> list[Item]:
    """Read the items of a file; conversations stay JSON text."""
    return [_item(row) for row in pq.read_table(path).to_pylist()]


def read_accounting(path: Path) -> dict[str, list[float]]:
    """Read what rewards logged while scoring the items of a file."""
    return json.loads((pq.read_schema(path).metadata or {}).get(_ACCOUNTING, b"{}"))


def join_items(parts: Iterable[Path], path: Path) -> None:
    """Write one file with the items of several, in order. A column that is text in one part is text in all."""
    tables = [pq.read_table(part).replace_schema_metadata(None) for part in parts]
    kinds: dict[str, set[pa.DataType]] = {}
    for field in (field for table in tables for field in table.schema):
        kinds.setdefault(field.name, set()).add(field.type)
    for name in (name for name, found in kinds.items() if len(found) > 1):
        tables = [_with_text(table, name) for table in tables]
    _write(path, pa.concat_tables(tables, promote_options="permissive"))


def storable(text: str) -> str:
    r"""Return text that UTF-8 can hold: half a surrogate pair, which it cannot, becomes its escape.

    >>> storable("a\ud800b"), storable("é\x00")
    ('a\\ud800b', 'é\x00')
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _write(path: Path, table: pa.Table) -> None:
    with explain_disk_full(path, lambda: "every part that is stored"):
        make_atomically(path, lambda beside: pq.write_table(table, beside))


def _extra(values: list[Any]) -> pa.Array:
    """Store numbers as numbers and everything else as text, nested values as JSON."""
    if all(value is None or isinstance(value, int | float) for value in values):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([value if value is None else _flat(value, text=True) for value in values], pa.string())


def _flat(value: Any, *, text: bool = False) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list | tuple | Mapping) or text:
        return storable(json.dumps(value, ensure_ascii=False, default=str))
    return value


def _with_text(table: pa.Table, name: str) -> pa.Table:
    if name not in table.column_names:
        return table
    return table.set_column(table.column_names.index(name), name, table[name].cast(pa.string()))


def _item(row: Mapping[str, Any]) -> Item:
    fields = {name: row[name] for name in COLUMNS}
    for prefix, field in PREFIXES.items():
        fields[field] = {name.removeprefix(prefix): v for name, v in row.items() if name.startswith(prefix)}
    return Item(**fields)
