"""Dotted overrides of a configuration: ``--objective.beta 0.3``, ``--objective.beta=0.3``, ``objective.beta=0.3``."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from grao.records.config_file import parse_yaml


def apply_overrides(mapping: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """A copy of the mapping with these keys set; the last of two overrides of one key holds.

    Values are YAML: ``0.3``, ``true``, ``null``, ``[1, 2]``, text. A number in a key counts into a list, from 0:
    ``rewards.0.weight=2``. Whether a key exists and fits is asked later, by `schema.build`, which knows the keys.

    Raises:
        ValueError: an argument that is no override, a key without a value, or a key below what is no section.
    """
    return with_values(mapping, [(key, _parsed(key, text)) for key, text in _pairs(arguments)])


def with_values(mapping: Mapping[str, Any], values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A copy of the mapping with these dotted keys set, one after the other; the last of two for one key holds.

    >>> with_values({"rewards": [{"weight": 1}]}, [("rewards.0.weight", 2), ("objective.beta", 0.3)])
    {'rewards': [{'weight': 2}], 'objective': {'beta': 0.3}}

    Raises:
        ValueError: a key below what is no section, or that counts past the end of a list.
    """
    result: dict[str, Any] = copy.deepcopy(dict(mapping))
    for key, value in values:
        _set(result, key.split("."), copy.deepcopy(value), key)
    return result


def _parsed(key: str, text: str) -> Any:
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        raise ValueError(
            f"--{key}: {text!r} is not a YAML value; put text with special characters in quotes"
        ) from error


def _pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Key and value texts."""
    rest = iter(range(len(arguments)))
    for index in rest:
        argument = arguments[index]
        key, equals, text = argument.removeprefix("--").partition("=")
        flagged = argument.startswith("--")
        if not key or not all(key.split(".")) or not (equals or flagged):
            raise ValueError(f"expected --key value or key=value with a dotted key, found {argument!r}")
        if not equals:
            if index + 1 == len(arguments) or arguments[index + 1].startswith("--"):
                raise ValueError(f"--{key} has no value; write --{key} VALUE (a switch: --{key} true)")
            text = arguments[next(rest)]
        yield key, text


def _set(node: Any, path: list[str], value: Any, key: str) -> None:
    """Set `value` at `path` below `node`, making the sections that are missing."""
    done: list[str] = []
    for name, following in zip(path, [*path[1:], None], strict=True):
        place = _place(node, name, ".".join(done), key)
        done.append(name)
        if following is None:
            node[place] = value
        else:
            if isinstance(node, dict) and node.get(place) is None:
                node[place] = {}
            node = node[place]


def _place(node: Any, name: str, where: str, key: str) -> str | int:
    """What `name` stands for in this node: a key of a mapping, an index of a list."""
    if isinstance(node, dict):
        return name
    if not isinstance(node, list):
        raise ValueError(f"cannot set {key}: {where} is {node!r}, not a section with keys of its own")
    if not name.isdecimal() or int(name) >= len(node):
        raise ValueError(
            f"cannot set {key}: {where} is a list of {len(node)}, and {name!r} is no place in it (from 0)"
        )
    return int(name)
