"""A penalty for completions that are too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Length:
    """A penalty that starts above `target` tokens and reaches −1 at `maximum`.

        R(y) = −min(1, max(0, |y| − target) / (maximum − target))

    |y| counts token ids, the end-of-sequence token included. With maximum = L_max and target = L_max − L_cache it is
    the soft overlong punishment of DAPO (arXiv 2503.14476, equation 13).
    """

    target: int
    """No penalty up to this many tokens."""
    maximum: int
    """−1 from this many tokens on."""

    def __post_init__(self) -> None:
        if not 0 <= self.target < self.maximum:
            raise ValueError(f"found target {self.target}, maximum {self.maximum}. Give 0 ≤ target < maximum.")

    def __call__(self, completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        """Score each completion by its number of tokens."""
        span = self.maximum - self.target
        excess = (max(0, len(ids) - self.target) for ids in completion_ids)
        return [-min(1.0, tokens / span) if tokens else 0.0 for tokens in excess]
