"""Data in a page: JSON that a browser cannot read as markup."""

from __future__ import annotations

import json
import math
from typing import Any

from markupsafe import Markup

_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}
DIGITS = 6
"""Significant digits of an embedded number."""


def embedded_json(value: Any) -> Markup:
    """Return JSON for `<script type="application/json">`.

    `<`, `>`, `&`, U+2028 and U+2029 are escaped, so neither `</script>` nor `<!--` can occur. All other characters
    outside ASCII are escaped too, as UTF-8 has no half surrogate pairs. Numbers that are not finite become null.

    >>> embedded_json(["</script>", float("nan"), 1 / 3])
    Markup('["\\\\u003c/script\\\\u003e",null,0.333333]')
    """
    return Markup(json.dumps(plain(value), allow_nan=False, separators=(",", ":")).translate(_ESCAPES))


def plain(value: Any) -> Any:
    """Return the value with finite numbers, rounded to DIGITS significant digits."""
    if isinstance(value, bool) or value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        rounded = float(f"{value:.{DIGITS}g}")
        return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value)
