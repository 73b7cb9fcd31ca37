"""How long to wait before a request is retried."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def wait_before(attempt: int, *, base: float, longest: float, key: str, retry_after: float | None = None) -> float:
    """Return the seconds to wait before attempt 2, 3, …: exponential backoff with full jitter.

        w = u · min(longest, base · 2ᵏ⁻¹),  k = attempt − 1 failures so far, u in [0, 1) keyed by `key` and attempt

    If the endpoint sent `retry_after` (seconds), it is followed up to `longest`, plus u · base, so that requests with
    the same `retry_after` are spread out. The global random generator is not used.

    Source: full jitter as in M. Brooker, "Exponential Backoff And Jitter" (2015).
    """
    u = int.from_bytes(hashlib.sha256(f"{key}:{attempt}".encode()).digest()[:8]) / 2.0**64
    if retry_after is not None:
        return min(retry_after, longest) + u * base
    return u * min(longest, base * 2.0 ** (attempt - 2))


def read_retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds in a Retry-After header (RFC 9110 10.2.3), a number or a date; None if it is neither.

    >>> read_retry_after("120"), read_retry_after("soon")
    (120.0, None)
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return None
        date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None
