"""Configuration as frozen dataclasses: strictly from YAML, back to YAML, and described to its users.

A config class is declared once. Its annotations are the types, its defaults the defaults, and the text under each
field its documentation::

    @dataclass(frozen=True)
    class Rollout:
        max_new_tokens: int = 256
        '''Longest completion, in tokens.'''

`build` reads a mapping into it and refuses what does not fit, naming the dotted key, what was found and what is known.
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

from grao.records.config_file import format_yaml
from grao.spelling import nearest

T = TypeVar("T")


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()
"""The default of a key that has none."""

_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
"""A number like 1e-6, which readers of YAML 1.1 hand on as text."""


# --- mapping -> dataclass -------------------------------------------------------------------------------------------


def build(cls: type[T], mapping: Any, where: str = "") -> T:
    """An instance of the dataclass `cls` from a mapping; nested dataclasses from nested mappings.

    Args:
        cls: a dataclass whose fields are int, float, bool, str, None, Literal, Enum, unions of those, list, tuple,
            dict or dataclasses.
        mapping: as YAML gives it. An int passes for a float, and so does text like "1e-6"; a bool passes for neither.
        where: the dotted key of this section, for messages.

    Raises:
        ValueError: an unknown key (with the nearest known one, and all of them), a missing one, a value of another
            type, or whatever the dataclass itself refuses; always after the dotted key.
    """
    hints, declared = get_type_hints(cls), _fields(cls)
    if not isinstance(mapping, Mapping):
        keys = ", ".join(declared)
        raise ValueError(f"{_place(where)}: expected a section with keys ({keys}), found {_show(mapping)}")
    _refuse_unknown(cls, mapping, where)
    missing = [name for name, field in declared.items() if _default(field) is REQUIRED and name not in mapping]
    if missing:
        lines = [f"{_below(where, name)}: missing, and required ({type_name(hints[name])})" for name in missing]
        raise ValueError("\n".join(lines))
    values = {name: _convert(value, hints[name], _below(where, name)) for name, value in mapping.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{_place(where)}: {error}") from error


def _refuse_unknown(cls: type, mapping: Mapping[Any, Any], where: str) -> None:
    known = list(_fields(cls))
    unknown = [str(key) for key in mapping if key not in known]
    if unknown:
        moved = getattr(cls, "moved_keys", {})  # a class may name where its former keys are now
        hints = [f"; it is now {moved[key]}" if key in moved else _nearest(cls, key, where) for key in unknown]
        lines = [f"{_below(where, key)}: unknown key{hint}" for key, hint in zip(unknown, hints, strict=True)]
        raise ValueError("\n".join([*lines, f"known keys of {_place(where)}: {', '.join(known)}"]))


def _nearest(cls: type, key: str, where: str) -> str:
    """The known key that was probably meant: a similar one in this section, or the same one in a section below."""
    below = (found.name for found in describe(cls) if found.name.split(".")[-1] == key)
    meant = nearest(key, _fields(cls)) or next(below, None)
    return "" if meant is None else f"; did you mean {_below(where, meant)}?"


def _convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type `hint` asks for."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments, where, hint)
    if origin is Literal:
        return _convert_choice(value, arguments, where)
    if is_dataclass(hint):
        assert isinstance(hint, type)
        return value if isinstance(value, hint) else build(hint, value, where)
    container = origin or hint
    if container in (list, tuple, Sequence):
        return _convert_sequence(value, container, arguments, where, hint)
    if container in (dict, Mapping):
        return _convert_mapping(value, arguments, where, hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        member = _convert_choice(value, tuple(choice.value for choice in hint), where)
        return hint(member)
    return _convert_scalar(value, hint, where)


def _convert_scalar(value: Any, hint: Any, where: str) -> Any:
    if hint is float and isinstance(value, str) and _EXPONENT.fullmatch(value.strip()):
        return float(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = type(None) if hint is None else hint
    assert isinstance(expected, type), f"schema does not know the type {hint!r} of {where}"
    if isinstance(value, expected) and not (isinstance(value, bool) and expected in (int, float)):
        return value
    raise ValueError(f"{where}: expected {type_name(hint)}, found {_show(value)}{_remedy(value, expected)}")


def _convert_union(value: Any, arms: tuple[Any, ...], where: str, hint: Any) -> Any:
    """The arm that is the value's own type, or else the first arm it converts to."""
    if value is None and type(None) in arms:
        return None
    sections = [arm for arm in arms if is_dataclass(arm)]
    if isinstance(value, Mapping) and len(sections) == 1:
        return _convert(value, sections[0], where)  # the only arm it can be: let its own message through
    others = [arm for arm in arms if arm is not type(None)]
    if len(others) == 1 and value is not None:
        return _convert(value, others[0], where)
    for arm in sorted(others, key=lambda arm: type(value) is not arm):
        try:
            return _convert(value, arm, where)
        except ValueError:
            continue  # the message below names all arms
    raise ValueError(f"{where}: expected {type_name(hint)}, found {_show(value)}")


def _convert_choice(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    for choice in choices:
        if choice == value and type(choice) is type(value):
            return choice
    near = nearest(str(value), map(str, choices))
    hint = "" if near is None else f"; did you mean {near!r}?"
    if isinstance(value, bool) and any(isinstance(choice, str) for choice in choices):
        hint = "; YAML reads yes, no, on and off as booleans: put the word in quotes"
    names = ", ".join(repr(choice) for choice in choices)
    raise ValueError(f"{where}: expected one of {names}, found {_show(value)}{hint}")


def _convert_sequence(value: Any, container: Any, arguments: tuple[Any, ...], where: str, hint: Any) -> Any:
    if not isinstance(value, list | tuple):
        remedy = "" if isinstance(value, Mapping) else f"; write [{value}] for a list of one"
        raise ValueError(f"{where}: expected {type_name(hint)}, found {_show(value)}{remedy}")
    make = tuple if container is tuple else list
    if container is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(arguments) != len(value):
            raise ValueError(f"{where}: expected {len(arguments)} values ({type_name(hint)}), found {len(value)}")
        kinds: Sequence[Any] = arguments
    else:
        kinds = [arguments[0] if arguments else Any] * len(value)
    return make(_convert(item, kind, f"{where}[{i}]") for i, (item, kind) in enumerate(zip(value, kinds, strict=True)))


def _convert_mapping(value: Any, arguments: tuple[Any, ...], where: str, hint: Any) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected {type_name(hint)}, found {_show(value)}")
    key_hint, item_hint = arguments or (Any, Any)
    return {
        _convert(key, key_hint, f"{where}: the key {key!r}"): _convert(item, item_hint, _below(where, str(key)))
        for key, item in value.items()
    }


# --- dataclass -> mapping -------------------------------------------------------------------------------------------


def to_mapping(instance: Any) -> dict[str, Any]:
    """The dataclass as dicts, lists and scalars: ``build(type(x), to_mapping(x)) == x``.

    Raises:
        ValueError: a value that YAML cannot hold.
    """
    return {name: _to_plain(getattr(instance, name), name) for name in _fields(type(instance))}


def dump_yaml(config: Any) -> str:
    """A config, or a mapping, as YAML, keys in the order of declaration."""
    return format_yaml(config if isinstance(config, Mapping) else to_mapping(config))


def _to_plain(value: Any, where: str) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _to_plain(getattr(value, name), _below(where, name)) for name in _fields(type(value))}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _to_plain(item, _below(where, str(key))) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{where}: a {type(value).__name__} cannot be written to YAML")


# --- dataclass -> its documentation ---------------------------------------------------------------------------------


class Key(NamedTuple):
    """One key of a configuration, as its user sees it."""

    name: str
    """Dotted; ``rewards[].weight`` is a key of every item of a list."""
    type: str
    default: Any
    """`REQUIRED` where there is none."""
    doc: str
    """The text under the field, on one line."""


def describe(cls: type) -> list[Key]:
    """Every key of a config class, sections opened, in order of declaration."""
    return list(_describe(cls, "", None))


def _describe(cls: type, where: str, instance: Any) -> Iterator[Key]:
    """The keys of one section; `instance`, where there is one, holds the defaults."""
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
    """Dataclasses inside an optional, a list, a tuple or a dict, and what that adds to the key."""
    suffix = {list: "[]", tuple: "[]", Sequence: "[]", dict: ".*", Mapping: ".*"}.get(get_origin(hint), "")
    for argument in dict.fromkeys(get_args(hint)):
        if is_dataclass(argument):
            yield argument, suffix  # type: ignore[misc]
        elif get_origin(argument) is not Literal:
            yield from ((inner, suffix + deeper) for inner, deeper in _sections_within(argument))


def _field_docs(cls: type) -> dict[str, str]:
    """The string under each field, read from the source; inherited fields from the class that declares them."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not is_dataclass(base):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):
            continue  # made at run time: there is no source to read
        body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
        for statement, following in pairwise(body):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                docs[statement.target.id] = _text(following)
    return docs


def _text(statement: ast.stmt) -> str:
    """A string that stands alone, on one line; empty for any other statement."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(str(statement.value.value).split())
    return ""


# --- words ----------------------------------------------------------------------------------------------------------


def type_name(hint: Any) -> str:
    """A type as users read it.

    >>> type_name(tuple[str, ...]), type_name(Literal["keep", "clamp"]), type_name(float | None)
    ('list[str]', "'keep' | 'clamp'", 'float | null')
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in (None, type(None)):
        return "null"
    if origin in (Union, types.UnionType):
        return " | ".join(type_name(arm) for arm in arguments)
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
    """A value with its kind, cut where it is long."""
    if value is None:
        return "null"
    text = repr(value)
    kind = "mapping" if isinstance(value, Mapping) else type(value).__name__
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({kind})"


def _remedy(value: Any, expected: type) -> str:
    """What to write instead, for the slips that YAML invites."""
    if expected is str and isinstance(value, bool):
        return "; YAML reads yes, no, on and off as booleans: put the word in quotes"
    if expected is str and isinstance(value, int | float):
        return "; put it in quotes"
    if expected is bool and isinstance(value, str | int):
        return "; write true or false"
    if expected is int and isinstance(value, float) and value.is_integer():
        return f"; write {int(value)}"
    if expected in (int, float) and isinstance(value, str):
        return "; write it as a number, without quotes"
    return ""


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _place(where: str) -> str:
    return where or "the configuration"


def _fields(cls: type) -> dict[str, Field[Any]]:
    """The fields that a configuration sets."""
    assert is_dataclass(cls), f"{cls!r} is no dataclass"
    return {field.name: field for field in fields(cls) if field.init}


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return REQUIRED if field.default is MISSING else field.default
