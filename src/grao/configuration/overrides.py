"""Dotted overrides of a configuration: ``--objective.beta 0.3``, ``--objective.beta=0.3``, ``objective.beta=0.3``."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from grao.records.config_file import parse_yaml


def apply_overrides(mapping: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """Return a copy of the mapping with these keys set. The last override of a key is used.

    Values are YAML: ``0.3``, ``true``, ``null``, ``[1, 2]``, text. A number in a key is a list index, from 0:
    ``rewards.0.weight=2``. `schema.build` later checks that each key exists and fits.

    Raises:
        ValueError: An argument is not an override, a key has no value, or its parent is not a section.
    """
    return with_values(mapping, _parsed(arguments))


def with_values(mapping: Mapping[str, Any], values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return a copy of the mapping with these dotted keys set in order.

    >>> with_values({"rewards": [{"weight": 1}]}, [("rewards.0.weight", 2), ("objective.beta", 0.3)])
    {'rewards': [{'weight': 2}], 'objective': {'beta': 0.3}}

    Raises:
        ValueError: The parent of a key is not a section, or a list has no such index.
    """
    result: dict[str, Any] = copy.deepcopy(dict(mapping))
    for key, value in values:
        _set(result, key, copy.deepcopy(value))
    return result


def _parsed(arguments: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the key and value of each override."""
    rest = iter(range(len(arguments)))
    for index in rest:
        argument = arguments[index]
        key, equals, text = argument.removeprefix("--").partition("=")
        if not key or not all(key.split(".")) or not (equals or argument.startswith("--")):
            raise ValueError(f"expected --key value or key=value with a dotted key, found {argument!r}")
        if not equals:
            if index + 1 == len(arguments) or arguments[index + 1].startswith("--"):
                raise ValueError(f"--{key} has no value. Write --{key} VALUE (for a switch --{key} true)")
            text = arguments[next(rest)]
        try:
            value = parse_yaml(text)
        except yaml.YAMLError as error:
            raise ValueError(f"--{key}: {text!r} is not valid YAML. Quote text with special characters") from error
        yield key, value


def _set(node: Any, key: str, value: Any) -> None:
    """Set the dotted `key` below `node`, creating missing sections."""
    path = key.split(".")
    for depth, name in enumerate(path):
        where = ".".join(path[:depth])
        place: str | int = name
        if isinstance(node, list):
            if not name.isdecimal() or int(name) >= len(node):
                raise ValueError(f"cannot set {key}: {where} is a list of {len(node)} items without index {name!r}")
            place = int(name)
        elif not isinstance(node, dict):
            raise ValueError(f"cannot set {key}: {where} is {node!r}, which has no keys")
        if depth == len(path) - 1:
            node[place] = value
        elif isinstance(node, dict) and node.get(place) is None:
            node[place] = {}
        node = node[place]
