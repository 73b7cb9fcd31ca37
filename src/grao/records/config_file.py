"""YAML as this library reads and writes it: YAML 1.1, with two differences that spare users a surprise.

- A key that occurs twice in a section is an error; YAML 1.1 readers silently keep the last.
- ``1e-6`` is a number; YAML 1.1 reads it as text because it has no dot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_NUMBER = re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: not YAML, a repeated key, or not a mapping; with file and line.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; name the YAML file in it")
    if not path.exists():
        raise FileNotFoundError(f"there is no config file {path}")
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise ValueError(f"{path} holds {found}; a config is a mapping of keys to values (`key: value` lines)")
    return content


def parse_yaml(text: str) -> Any:
    """The value that a YAML text stands for.

    Raises:
        yaml.YAMLError: not YAML, or a repeated key.
    """
    return yaml.load(text, Loader=_Loader)


def format_yaml(content: Mapping[str, Any]) -> str:
    """A mapping as YAML, keys in their order; `parse_yaml` gives the same mapping back."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Where the text is read, before merge keys (`<<`) bring in keys that may rightly repeat."""
        node = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            first = seen.setdefault((key.tag, key.value), key)
            if first is not key:
                raise yaml.MarkedYAMLError(
                    f"the key {key.value!r} is given twice, first in line {first.start_mark.line + 1}",
                    problem="and again here; keep one of them",
                    problem_mark=key.start_mark,
                )
        return node


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """A value used twice is written twice: anchors are hard to read and to edit."""
        return True


for _class in (_Loader, _Dumper):  # the writer must know it too, to put quotes around the text "1e-6"
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789"))
