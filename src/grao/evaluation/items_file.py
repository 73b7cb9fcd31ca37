"""Items as parquet: one row an answer, for pandas and for the evaluation that goes on from them."""

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
"""The fields of an item; after them come `score/{name}` and `reference_score/{name}`, and `extra/{name}`."""

SCORES = {"score/": "scores", "reference_score/": "reference_scores"}
EXTRA = "extra/"

Accounting = Mapping[str, Sequence[float]]
"""What scoring took, by name: a number each time that a reward logged one."""

_ACCOUNTING = b"grao.accounting"


def write_items(path: Path, items: Sequence[Item], accounting: Accounting | None = None) -> None:
    """Write the file whole or not at all; `accounting`, what scoring these items took, goes into its header."""
    _write(path, _table(items), accounting or {})


def read_items(path: Path) -> list[Item]:
    """The items of a file, conversations as the JSON text that they are stored as."""
    return [_item(row) for row in pq.read_table(path).to_pylist()]


def read_accounting(path: Path) -> dict[str, list[float]]:
    """What scoring the items of a file took."""
    return json.loads((pq.read_schema(path).metadata or {}).get(_ACCOUNTING, b"{}"))


def join_items(parts: Iterable[Path], path: Path) -> None:
    """One file with the items of several, in their order."""
    tables = [pq.read_table(part).replace_schema_metadata(None) for part in parts]
    mixed = _mixed_columns(tables)
    tables = [_as_text(table, mixed) for table in tables]
    _write(path, pa.concat_tables(tables, promote_options="permissive"), {})


def storable(text: str) -> str:
    r"""Text that UTF-8 can hold: half a surrogate pair, which it cannot, becomes its escape.

    >>> storable("a\ud800b"), storable("é\x00")
    ('a\\ud800b', 'é\x00')
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _write(path: Path, table: pa.Table, accounting: Accounting) -> None:
    if accounting:
        table = table.replace_schema_metadata({_ACCOUNTING: json.dumps(accounting, sort_keys=True).encode()})
    with explain_disk_full(path, lambda: "every part that is stored"):
        make_atomically(path, lambda beside: pq.write_table(table, beside))


def _table(items: Sequence[Item]) -> pa.Table:
    columns = {name: pa.array([_flat(getattr(item, name)) for item in items], kind) for name, kind in COLUMNS.items()}
    for prefix, field in SCORES.items():
        for name in dict.fromkeys(name for item in items for name in getattr(item, field)):
            columns[prefix + name] = pa.array([getattr(item, field).get(name) for item in items], pa.float64())
    for name in dict.fromkeys(name for item in items for name in item.extras):
        columns[EXTRA + name] = _extra([item.extras.get(name) for item in items])
    return pa.table({storable(name): column for name, column in columns.items()})


def _extra(values: list[Any]) -> pa.Array:
    """Numbers as numbers; everything else as text, what is nested as JSON."""
    if all(value is None or isinstance(value, int | float) for value in values):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([value if value is None else _flat(value, text=True) for value in values], pa.string())


def _flat(value: Any, *, text: bool = False) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list | tuple | Mapping) or text:
        return storable(json.dumps(value, ensure_ascii=False, default=str))
    return value


def _mixed_columns(tables: Sequence[pa.Table]) -> set[str]:
    """Extra columns that are numbers in one part and text in another."""
    kinds: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for field in table.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    return {name for name, found in kinds.items() if len(found) > 1}


def _as_text(table: pa.Table, names: set[str]) -> pa.Table:
    for name in names & set(table.column_names):
        place = table.column_names.index(name)
        table = table.set_column(place, name, table[name].cast(pa.string()))
    return table


def _item(row: Mapping[str, Any]) -> Item:
    fields = {name: row[name] for name in COLUMNS}
    for prefix, field in {**SCORES, EXTRA: "extras"}.items():
        fields[field] = {name.removeprefix(prefix): v for name, v in row.items() if name.startswith(prefix)}
    return Item(**fields)
