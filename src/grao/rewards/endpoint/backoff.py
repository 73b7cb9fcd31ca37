"""How long to wait before a request is sent again."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def wait_before(attempt: int, *, base: float, longest: float, key: str, retry_after: float | None = None) -> float:
    """Seconds before attempt 2, 3, …: exponential backoff with full jitter.

        w = u · min(longest, base · 2ᵏ⁻¹),  k = attempt − 1 failures so far, u in [0, 1) keyed by question and attempt

    An endpoint that says when to come back (`retry_after`, in seconds) is believed, up to `longest`; the jitter then
    comes on top, so that those who were told the same do not all come at once.

    Source: full jitter as in M. Brooker, "Exponential Backoff And Jitter" (2015).
    """
    drawn = _uniform(f"{key}:{attempt}")
    if retry_after is not None:
        return min(retry_after, longest) + drawn * base
    return drawn * min(longest, base * 2.0 ** (attempt - 2))


def read_retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds from a Retry-After header (RFC 9110 10.2.3), which holds seconds or a date; None where it holds neither.

    >>> read_retry_after("120"), read_retry_after("soon")
    (120.0, None)
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        return _until(header, now or datetime.now(UTC))
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _until(header: str, now: datetime) -> float | None:
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return max((when - now).total_seconds(), 0.0)


def _uniform(key: str) -> float:
    """In [0, 1), the same for the same key: nothing here may touch the global generator."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2.0**64
