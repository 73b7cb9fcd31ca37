"""Asking an OpenAI-compatible endpoint, and getting an answer in spite of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from grao.rewards.usage import Usage

T = TypeVar("T")

Messages = Sequence[Mapping[str, str]]
"""A conversation: ``[{"role": "system", "content": ...}, {"role": "user", "content": ...}]``."""


class UnusableReplyError(ValueError):
    """A reply is no valid verdict; the message says why. Raised by the `read` that `Endpoint.ask` is given."""


@dataclass(frozen=True)
class EndpointConfig:
    """An endpoint, how it is asked, and what is done when it does not answer."""

    model: str
    """As the endpoint names it."""
    base_url: str | None = None
    """Where it is, such as `http://localhost:8000/v1`; null = OpenAI's own."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key: keys come from nowhere else. A server of one's own, which wants
    none, works without it."""
    temperature: float | None = 0.0
    """Null = not sent, for models that refuse it."""
    max_tokens: int | None = 1024
    """Of a reply; null = not sent. Models that refuse it take `max_completion_tokens` in `extra_body`."""
    seed: int | None = 0
    """Of the endpoint's sampling; a question asked again has the next one. Null = not sent."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """More fields of the request, such as `{reasoning_effort: low}`."""
    max_concurrency: int = 16
    """Requests under way at once."""
    timeout: float = 60.0
    """Seconds a request may take, from connecting to the last byte."""
    max_attempts: int = 6
    """Requests for one reply, where connection or server fail; a question that used them up is unscored."""
    max_reply_attempts: int = 2
    """Replies to one question; when none of them can be read it is unscored."""
    backoff: float = 1.0
    """Seconds: before attempt k + 1 it waits a random part of backoff · 2ᵏ⁻¹, at most `longest_wait`."""
    longest_wait: float = 60.0
    """Seconds; also the most that an endpoint's Retry-After is followed."""
    down_requests: int = 5
    """Questions that used up their attempts, with no answer to any other in between, after which it is down."""
    down_after: float = 300.0
    """Seconds without any answer, while several questions wait, after which it is down."""
    cache: str | None = None
    """An SQLite file that keeps every reply, so that none is paid for twice; null = none is kept."""
    price_per_million_input: float | None = None
    """USD for a million tokens of questions; null = unknown."""
    price_per_million_output: float | None = None
    """USD for a million tokens of replies; null = unknown."""


@dataclass(frozen=True, slots=True)
class Asked(Generic[T]):
    """What came of a question."""

    value: T | None
    """What `read` made of the reply; None = unscored."""
    reason: str | None = None
    """Why there is no value: ``"unparsable"``, ``"rejected by the endpoint: 400 …"``, ``"gave up after 6 …"``."""
    cached: bool = False
    """No request was sent for it."""


class Endpoint:
    """Asks questions, many at once, each until there is an answer that can be read or no hope of one.

    Example::

        endpoint = Endpoint(EndpointConfig("judge", base_url="http://localhost:8000/v1", cache="replies.sqlite"))
        asked = await endpoint.ask([{"role": "user", "content": "1 or 2?"}], read=int)
    """

    def __init__(self, config: EndpointConfig) -> None:
        """Nothing is asked yet.

        Raises:
            ValueError: OpenAI's own endpoint without a key in the environment, or a setting out of its range.
        """
        self.config = config

    async def ask(
        self, messages: Messages, read: Callable[[str], T], *, retry_messages: Messages | None = None
    ) -> Asked[T]:
        """Ask, and read the reply.

        Args:
            messages: the question.
            read: turns a reply into a value, or raises `UnusableReplyError`. Also applied to replies in the cache.
            retry_messages: the question for the second time, after a reply that could not be read: an endpoint
                without chance would repeat itself.

        Raises:
            EndpointRefusedError: it wants another key, model or form of request.
            EndpointDownError: it is down. Both stop a run whatever `on_error` says.
        """
        raise NotImplementedError

    @property
    def usage(self) -> Usage:
        """What was asked, answered and paid up to now; subtract two of them for what lies between."""
        raise NotImplementedError
