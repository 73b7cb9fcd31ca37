"""Configuration as frozen dataclasses: read strictly from YAML, written back to YAML, and described to users.

A config class is declared once. Its annotations are the types, its defaults the defaults, and the text under each
field its documentation::

    @dataclass(frozen=True)
    class Rollout:
        max_new_tokens: int = 256
        '''Longest completion, in tokens.'''
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from grao.records.config_file import format_yaml, to_plain
from grao.spelling import nearest

T = TypeVar("T")


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()
"""The default of a key without one."""

_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
"""A number like 1e-6, which YAML 1.1 readers return as text."""
_QUOTE_BOOLEANS = "; YAML reads yes, no, on and off as booleans: put the word in quotes"


# --- mapping -> dataclass -------------------------------------------------------------------------------------------


def build(cls: type[T], mapping: Any, where: str = "") -> T:
    """Return an instance of the dataclass `cls` from a mapping, with nested dataclasses from nested mappings.

    Args:
        cls: A dataclass with fields of int, float, bool, str, None, Literal, Enum, list, tuple, dict, dataclasses,
            and unions of these.
        mapping: The values as YAML gives them. An int or text like "1e-6" is accepted for a float; a bool is not
            accepted for a number.
        where: The dotted key of this section, for messages.

    Raises:
        ValueError: An unknown key (with the nearest known one), a missing key, a value of another type, or an error
            of the dataclass itself. Starts with the dotted key.
    """
    hints, known = get_type_hints(cls), _fields(cls)
    if not isinstance(mapping, Mapping):
        keys = ", ".join(known)
        raise ValueError(f"{_section(where)}: expected a section with keys ({keys}), found {_show(mapping)}")
    unknown = [str(key) for key in mapping if key not in known]
    if unknown:
        lines = [f"{_below(where, key)}: unknown key{_suggestion(cls, key, where)}" for key in unknown]
        raise ValueError("\n".join([*lines, f"known keys of {_section(where)}: {', '.join(known)}"]))
    missing = [name for name, field in known.items() if _default(field) is REQUIRED and name not in mapping]
    if missing:
        lines = [f"{_below(where, name)}: missing, and required ({type_name(hints[name])})" for name in missing]
        raise ValueError("\n".join(lines))
    values = {name: _convert(value, hints[name], _below(where, name)) for name, value in mapping.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{_section(where)}: {error}") from error


def _suggestion(cls: type, key: str, where: str) -> str:
    """Suggest the new place of a moved key, a similar key of this section, or the same key in a section below."""
    moved = getattr(cls, "moved_keys", {})
    if key in moved:
        return f"; it is now {moved[key]}"
    below = (found.name for found in describe(cls) if found.name.split(".")[-1] == key)
    meant = nearest(key, _fields(cls)) or next(below, None)
    return "" if meant is None else f"; did you mean {_below(where, meant)}?"


def _convert(value: Any, hint: Any, where: str) -> Any:
    """Return `value` as the type `hint`."""
    container, arguments = get_origin(hint) or hint, get_args(hint)
    if hint is Any:
        return value
    if container in (Union, types.UnionType):
        return _convert_union(value, arguments, where, hint)
    if container is Literal:
        return _convert_choice(value, arguments, where)
    if is_dataclass(hint):
        assert isinstance(hint, type)
        return value if isinstance(value, hint) else build(hint, value, where)
    if container in (list, tuple, Sequence):
        return _convert_sequence(value, container, arguments, where, hint)
    if container in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: expected {type_name(hint)}, found {_show(value)}")
        key_hint, item_hint = arguments or (Any, Any)
        return {
            _convert(key, key_hint, f"{where}: the key {key!r}"): _convert(item, item_hint, _below(where, str(key)))
            for key, item in value.items()
        }
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(_convert_choice(value, tuple(choice.value for choice in hint), where))
    return _convert_scalar(value, hint, where)


def _convert_scalar(value: Any, hint: Any, where: str) -> Any:
    boolean = isinstance(value, bool)
    number = isinstance(value, int) or (isinstance(value, str) and _EXPONENT.fullmatch(value.strip()))
    if hint is float and number and not boolean:
        return float(value)
    expected = type(None) if hint is None else hint
    assert isinstance(expected, type), f"schema does not know the type {hint!r} of {where}"
    if isinstance(value, expected) and not (boolean and expected in (int, float)):
        return value
    remedy = ""
    if expected is str and boolean:
        remedy = _QUOTE_BOOLEANS
    elif expected is str and isinstance(value, int | float):
        remedy = "; put it in quotes"
    elif expected is bool and isinstance(value, str | int):
        remedy = "; write true or false"
    elif expected is int and isinstance(value, float) and value.is_integer():
        remedy = f"; write {int(value)}"
    elif expected in (int, float) and isinstance(value, str):
        remedy = "; write it as a number, without quotes"
    raise ValueError(f"{where}: expected {type_name(hint)}, found {_show(value)}{remedy}")


def _convert_union(value: Any, members: tuple[Any, ...], where: str, hint: Any) -> Any:
    """Convert to the member of the value's own type, or else to the first member that accepts it."""
    if value is None and type(None) in members:
        return None
    sections = [member for member in members if is_dataclass(member)]
    if isinstance(value, Mapping) and len(sections) == 1:
        return _convert(value, sections[0], where)  # the only possible member, so raise its own error
    others = [member for member in members if member is not type(None)]
    if len(others) == 1 and value is not None:
        return _convert(value, others[0], where)
    for member in sorted(others, key=lambda member: type(value) is not member):
        try:
            return _convert(value, member, where)
        except ValueError:
            continue  # the error below names all members
    raise ValueError(f"{where}: expected {type_name(hint)}, found {_show(value)}")


def _convert_choice(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    for choice in choices:
        if choice == value and type(choice) is type(value):
            return choice
    near = nearest(str(value), map(str, choices))
    remedy = "" if near is None else f"; did you mean {near!r}?"
    if isinstance(value, bool) and any(isinstance(choice, str) for choice in choices):
        remedy = _QUOTE_BOOLEANS
    names = ", ".join(repr(choice) for choice in choices)
    raise ValueError(f"{where}: expected one of {names}, found {_show(value)}{remedy}")


def _convert_sequence(value: Any, container: Any, arguments: tuple[Any, ...], where: str, hint: Any) -> Any:
    if not isinstance(value, list | tuple):
        remedy = "" if isinstance(value, Mapping) else f"; write [{value}] for a list of one"
        raise ValueError(f"{where}: expected {type_name(hint)}, found {_show(value)}{remedy}")
    item_hints: Sequence[Any] = [arguments[0] if arguments else Any] * len(value)
    if container is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(arguments) != len(value):
            raise ValueError(f"{where}: expected {len(arguments)} values ({type_name(hint)}), found {len(value)}")
        item_hints = arguments
    items = [_convert(item, item_hints[index], f"{where}[{index}]") for index, item in enumerate(value)]
    return tuple(items) if container is tuple else items


# --- dataclass -> mapping -------------------------------------------------------------------------------------------


def to_mapping(instance: Any) -> dict[str, Any]:
    """Return the dataclass as dicts, lists and scalars, so that ``build(type(x), to_mapping(x)) == x``.

    Raises:
        ValueError: YAML cannot store a value.
    """
    plain = to_plain(instance)
    assert isinstance(plain, dict)
    return plain


def dump_yaml(config: Any) -> str:
    """Return a config, or a mapping, as YAML, with keys in the order of declaration."""
    return format_yaml(config if isinstance(config, Mapping) else to_mapping(config))


# --- dataclass -> its documentation ---------------------------------------------------------------------------------


class Key(NamedTuple):
    """One key of a configuration, as users see it."""

    name: str
    """Dotted; ``rewards[].weight`` is a key of every item of a list."""
    type: str
    default: Any
    """`REQUIRED` if there is none."""
    doc: str
    """The text under the field, on one line."""


def describe(cls: type) -> list[Key]:
    """Return every key of a config class, including those of its sections, in order of declaration."""
    return list(_describe(cls, "", None))


def _describe(cls: type, where: str, instance: Any) -> Iterator[Key]:
    """Yield the keys of one section. `instance`, if any, gives the defaults."""
    hints, docs = get_type_hints(cls), _field_docs(cls)
    for name, field in _fields(cls).items():
        hint, key = hints[name], _below(where, name)
        default = _default(field) if instance is None else getattr(instance, name)
        if is_dataclass(hint):
            yield from _describe(hint, key, None if default is REQUIRED else default)  # type: ignore[arg-type]
            continue
        yield Key(key, type_name(hint), default, docs.get(name, ""))
        for inner, suffix in _sections_within(hint):
            yield from _describe(inner, key + suffix, None)


def _sections_within(hint: Any) -> Iterator[tuple[type, str]]:
    """Yield the dataclasses inside a union, list, tuple or dict, and what each adds to the key."""
    suffix = {list: "[]", tuple: "[]", Sequence: "[]", dict: ".*", Mapping: ".*"}.get(get_origin(hint), "")
    for argument in dict.fromkeys(get_args(hint)):
        if is_dataclass(argument):
            yield argument, suffix  # type: ignore[misc]
        elif get_origin(argument) is not Literal:
            yield from ((inner, suffix + deeper) for inner, deeper in _sections_within(argument))


def _field_docs(cls: type) -> dict[str, str]:
    """Return the string under each field, on one line, read from the class that declares the field."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not is_dataclass(base):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):
            continue  # a class made at run time has no source
        body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
        for field, below in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                documented = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                docs[field.target.id] = " ".join(str(below.value.value).split()) if documented else ""
    return docs


# --- words ----------------------------------------------------------------------------------------------------------


def type_name(hint: Any) -> str:
    """Return a type as users read it.

    >>> type_name(tuple[str, ...]), type_name(Literal["keep", "clamp"]), type_name(float | None)
    ('list[str]', "'keep' | 'clamp'", 'float | null')
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in (None, type(None)):
        return "null"
    if origin in (Union, types.UnionType):
        return " | ".join(type_name(member) for member in arguments)
    if origin is Literal:
        return " | ".join(repr(choice) for choice in arguments)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " | ".join(repr(choice.value) for choice in hint)
    container = origin or hint
    renamed = {tuple: "list", Sequence: "list", Mapping: "dict"}
    name = renamed[container] if container in renamed else str(getattr(container, "__name__", container))
    inner = [type_name(argument) for argument in arguments if argument is not Ellipsis]
    return f"{name}[{', '.join(inner)}]" if inner else name


def _show(value: Any) -> str:
    """Return a value with its type, shortened for an error message."""
    if value is None:
        return "null"
    text = repr(value)
    kind = "mapping" if isinstance(value, Mapping) else type(value).__name__
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({kind})"


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _section(where: str) -> str:
    return where or "the configuration"


def _fields(cls: type) -> dict[str, Field[Any]]:
    """Return the fields that a configuration sets."""
    assert is_dataclass(cls), f"{cls!r} is not a dataclass"
    return {field.name: field for field in fields(cls) if field.init}


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return REQUIRED if field.default is MISSING else field.default
