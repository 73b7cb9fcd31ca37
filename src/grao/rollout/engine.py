"""The contract between the trainer, which asks for samples, and the engine that draws them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from grao.groups import Member


@dataclass(frozen=True)
class SamplingParams:
    """How to sample completions. Applied in the order temperature, top-k, top-p, min-p."""

    max_new_tokens: int = 256
    """Longest completion, in tokens; one that reaches it without a stop token is truncated."""
    temperature: float = 1.0
    """Logits are divided by it; 0 = greedy."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 = all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose total probability reaches p; 1 = all."""
    min_p: float = 0.0
    """Drop tokens less likely than min_p times the likeliest; 0 = none."""
    stop: tuple[str, ...] = ()
    """A completion ends after the token that completes one of these strings."""
    stop_token_ids: tuple[int, ...] = ()
    """Ids that end a completion, in addition to the end-of-sequence ids of model and tokenizer."""

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
    """One prompt, with a seed per completion."""

    prompt_ids: tuple[int, ...]
    seeds: tuple[int, ...]


class EngineError(RuntimeError):
    """The engine failed for a reason outside of the request: a lost server, a reply that is not usable."""


class Engine(Protocol):
    """Samples completions. The trainer knows nothing about how or where.

    Every engine promises the following; `tests/rollout/engine_conformance.py` checks it.

    **Life cycle.** `open`, then `sync` before the first `sample` and after every change of the weights, then `close`.
    `open` and `close` may be called twice. `sample` after `close` raises `EngineError`, until the engine is opened and
    synced again. `version` names the weights in messages and logs.

    **Order.** `sample` returns one tuple per request, in order, with one `Member` per seed, in order.

    **Seeds.** Different seeds are independent draws. With an `exact` engine, the same prompt, seed, parameters and
    weights give the same completion, whatever else is in the batch.

    **Ids.** `Member.ids` is what the model generated, the end-of-sequence or stop token included, padding excluded;
    at least one and at most `max_new_tokens` ids. Ids that the tokenizer does not know are never sampled.

    **Finish.** `stop`: the last id is an end-of-sequence id or in `stop_token_ids`, or completes a string of `stop`.
    `length`: `max_new_tokens` was reached before that. A completion that an engine aborts is neither: it raises.

    **Log-probs.** One per id: log softmax(ℓ/τ) over the full vocabulary, before top-k, top-p and min-p. At
    temperature 0, of temperature 1.

    **Text.** The decoded ids without special tokens, up to the end of the first stop string.

    **Refusals.** `ValueError` for an empty prompt, and for a prompt that with `max_new_tokens` exceeds the model's
    positions; nothing is sampled then. `FloatingPointError` where logits are not finite. `EngineError` for failures
    that are not the request's. An engine never returns fewer completions than seeds.
    """

    @property
    def exact(self) -> bool:
        """Whether log-probs are those of the synced weights, up to rounding in their dtype.

        If not, objectives correct for the difference by truncated importance sampling (`grao.objectives.ratio`).
        """
        ...

    def open(self) -> None:
        """Acquire what sampling needs, such as connections."""
        ...

    def sync(self, model: Any, version: str) -> None:
        """Sample from these weights, named `version`, from now on; cheap if it already does."""
        ...

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[tuple[Member, ...]]:
        """Sample one `Member` per seed of each request."""
        ...

    def close(self) -> None:
        """Release what `open` acquired."""
        ...


def check_lengths(requests: Sequence[SampleRequest], max_new_tokens: int, limit: int | None) -> None:
    """Refuse empty prompts, and prompts that with their new tokens exceed the model's positions.

    Args:
        requests: Prompts with seeds.
        max_new_tokens: Longest completion.
        limit: The model's positions; None = unlimited.

    Raises:
        ValueError: The first such request.
    """
    for i, request in enumerate(requests):
        length = len(request.prompt_ids)
        if not length:
            raise ValueError(
                f"Request {i} has an empty prompt. Give at least one token, such as the beginning-of-sequence id."
            )
        if limit is not None and length + max_new_tokens > limit:
            raise ValueError(
                f"Request {i} has a prompt of {length} tokens; with max_new_tokens={max_new_tokens} that is "
                f"{length + max_new_tokens}, and the model has {limit} positions. "
                "Lower max_new_tokens, shorten or drop the prompt, or use a model with a longer context."
            )


def draw_seed(run_seed: int, step: int, row: int, member: int) -> int:
    """Return the seed of one draw: hash(run seed, step, prompt row, member).

    A resumed run samples the same without saved state. The batch, the micro-batch size, the number of processes and
    the engine do not enter. 63 bits, so that it fits a signed integer.

    >>> draw_seed(0, 0, 17, 3) == draw_seed(0, 0, 17, 3)
    True
    """
    key = f"{run_seed}/{step}/{row}/{member}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1
