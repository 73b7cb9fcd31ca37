"""What asking an endpoint took: requests, faults, tokens, cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts so far; subtract two of them for what happened in between.

    Example::

        before = endpoint.usage
        ...
        (endpoint.usage - before).metrics()["cost"]
    """

    requests: int = 0
    """Requests sent."""
    answered: int = 0
    """Requests with a complete reply: what is paid for."""
    cached: int = 0
    """Replies without a request: from the cache, or shared with the same question in progress."""
    retries: int = 0
    """Requests after the first for the same reply."""
    unusable: int = 0
    """Replies that could not be read as a verdict."""
    rejected: int = 0
    """Questions that the endpoint rejected (400)."""
    given_up: int = 0
    """Questions that used up their attempts."""
    prompt_tokens: int = 0
    """As the endpoint counts them."""
    completion_tokens: int = 0
    cost: float | None = None
    """USD, for both kinds of tokens; None if the prices are unknown."""
    faults: Mapping[str, int] = field(default_factory=dict)
    """Failed requests by kind: ``{"timeout": 2, "status 503": 1}``."""

    def __sub__(self, earlier: Usage) -> Usage:
        counts = {name: getattr(self, name) - getattr(earlier, name) for name in _COUNTS}
        faults = Counter(self.faults)
        faults.subtract(earlier.faults)
        cost = None if self.cost is None or earlier.cost is None else self.cost - earlier.cost
        return Usage(**counts, cost=cost, faults={kind: n for kind, n in faults.items() if n})

    def metrics(self) -> dict[str, float]:
        """Return the counts, the cost if it is known, and ``faults/{kind}``."""
        found = {name: float(getattr(self, name)) for name in _COUNTS}
        if self.cost is not None:
            found["cost"] = self.cost
        return found | {f"faults/{kind}": float(n) for kind, n in self.faults.items()}


_COUNTS = tuple(f.name for f in fields(Usage) if f.name not in ("cost", "faults"))
