"""Where two configurations differ, key by key."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

ABSENT = object()
"""The value of a key that one of the two lacks."""


def differences(old: Any, new: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys at which two configurations differ, with both values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            below = f"{where}.{key}" if where else str(key)
            yield from differences(old.get(key, ABSENT), new.get(key, ABSENT), below)
    elif not _same(old, new):
        yield where, old, new


def _same(old: Any, new: Any) -> bool:
    """Equality of leaves, in which true is not 1, and NaN is NaN."""
    if isinstance(old, float) and isinstance(new, float) and math.isnan(old) and math.isnan(new):
        return True
    return isinstance(old, bool) == isinstance(new, bool) and bool(old == new)


def shown(value: Any) -> str:
    """A value for a message."""
    return "absent" if value is ABSENT else repr(value)
