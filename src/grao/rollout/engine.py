"""The seam between who asks for samples and who draws them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from grao.groups import Member


@dataclass(frozen=True)
class SamplingParams:
    """How completions are drawn. The truncations apply in the order temperature, top-k, top-p, min-p."""

    max_new_tokens: int = 256
    """A completion that reaches it without an end is truncated."""
    temperature: float = 1.0
    """Logits are divided by it; 0 = greedy."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 = all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches p; 1 = all."""
    min_p: float = 0.0
    """Drop tokens less likely than min_p times the likeliest; 0 = none."""
    stop: tuple[str, ...] = ()
    """A completion ends after the token that completes one of these strings."""
    stop_token_ids: tuple[int, ...] = ()
    """Further ids that end a completion, beside the end-of-sequence ids of model and tokenizer."""

    def __post_init__(self) -> None:
        _check(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "at least 1")
        _check(0 <= self.temperature < math.inf, "temperature", self.temperature, "0 (greedy) or a positive number")
        _check(self.top_k >= 0, "top_k", self.top_k, "0 (all) or a number of tokens")
        _check(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1 (all)")
        _check(0 <= self.min_p <= 1, "min_p", self.min_p, "from 0 (all) to 1")
        listed = isinstance(self.stop, tuple) and all(isinstance(s, str) and s for s in self.stop)
        _check(listed, "stop", self.stop, "a tuple of strings, none of them empty")


def _check(right: bool, name: str, found: object, needed: str) -> None:
    if not right:
        raise ValueError(f"{name} is {found!r}; it must be {needed}.")


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One prompt and a seed for each completion to be drawn for it."""

    prompt_ids: tuple[int, ...]
    seeds: tuple[int, ...]


class Engine(Protocol):
    """Draws completions. Whoever asks does not know how, nor where."""

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[tuple[Member, ...]]:
        """For each request, one `Member` a seed, in order, with ids, text, finish and log-probs."""
        ...

    def sync(self, model: Any, version: str) -> None:
        """Make the engine draw from these weights, named `version`; cheap when it already does."""
        ...


def draw_seed(run_seed: int, step: int, row: int, member: int) -> int:
    """The seed of one draw, a pure function of where it belongs: hash(run seed, step, prompt row, member).

    Nothing has to be saved for a resumed run to draw the same samples, and neither the batch, the micro-batch size,
    the number of processes nor the engine enters. 63 bits, so that every engine takes it as a signed integer.

    >>> draw_seed(0, 0, 17, 3) == draw_seed(0, 0, 17, 3)
    True
    """
    key = f"{run_seed}/{step}/{row}/{member}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1
