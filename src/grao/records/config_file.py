"""Configuration files: YAML 1.1 with two changes, and the differences between two configurations.

- A key that occurs twice in a section is an error. YAML 1.1 readers silently keep the last.
- ``1e-6`` is a number. YAML 1.1 reads it as text because it has no dot.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

_NUMBER = re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()
"""The value of a key that only the other configuration has."""


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        FileNotFoundError, IsADirectoryError: There is no such file.
        ValueError: Not YAML, a repeated key, or not a mapping. Names the file and line.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory. Pass the YAML file in it")
    if not path.exists():
        raise FileNotFoundError(f"there is no config file {path}")
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise ValueError(f"{path} contains {found}. Write a mapping (`key: value` lines)")
    return content


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text. Raise `yaml.YAMLError` for invalid YAML or a repeated key."""
    return yaml.load(text, Loader=_Loader)


def format_yaml(content: Mapping[str, Any]) -> str:
    """Return a mapping as YAML that `parse_yaml` reads back, keeping the order of keys."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def to_plain(value: Any, where: str = "") -> Any:
    """Return a value as YAML would read it back: dataclasses and mappings as dicts, enums by value, tuples as lists.

    Raises:
        ValueError: YAML cannot store a value. Names its dotted key, below `where`.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
    if isinstance(value, Mapping):
        return {key: to_plain(item, f"{where}.{key}" if where else str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(
        f"{where} is a {type(value).__name__}, which YAML cannot store. "
        "Use numbers, strings, booleans, lists or mappings"
    )


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Reject repeated keys here, before merge keys (`<<`) add keys that may repeat."""
        node = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            first = seen.setdefault((key.tag, key.value), key)
            if first is not key:
                raise yaml.MarkedYAMLError(
                    f"the key {key.value!r} is given twice, first in line {first.start_mark.line + 1}",
                    problem="and again here. Keep one of them",
                    problem_mark=key.start_mark,
                )
        return node


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Write a repeated value twice, because anchors are hard to read and edit."""
        return True


for _class in (_Loader, _Dumper):  # the writer must know it too, to quote the text "1e-6"
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789"))


def config_differences(old: Any, new: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted keys at which two configurations differ, with both values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            below = f"{where}.{key}" if where else str(key)
            yield from config_differences(old.get(key, ABSENT), new.get(key, ABSENT), below)
    elif not _same(old, new):
        yield where, old, new


def _same(old: Any, new: Any) -> bool:
    """Return whether two values are equal, where true is not 1 and NaN is NaN."""
    if isinstance(old, float) and isinstance(new, float) and math.isnan(old) and math.isnan(new):
        return True
    return isinstance(old, bool) == isinstance(new, bool) and bool(old == new)
