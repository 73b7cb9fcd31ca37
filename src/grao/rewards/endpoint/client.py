"""Ask an OpenAI-compatible endpoint until there is a readable answer, or no hope of one.

question ─▶ same one in progress? ─▶ cache ─▶ request ⟲ fault: wait, retry ─▶ cache ─▶ read ⟲ unusable: ask again
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import openai

from grao.rewards.endpoint.backoff import read_retry_after, wait_before
from grao.rewards.endpoint.breaker import Breaker
from grao.rewards.endpoint.chat_body import Fault, encodable, error_message, read_body, shortened
from grao.rewards.endpoint.reply_cache import Reply, ReplyCache, question_key
from grao.rewards.endpoint.usage import Usage
from grao.rewards.errors import EndpointDownError, EndpointRefusedError

logger = logging.getLogger(__name__)

OPENAI = "https://api.openai.com/v1"
NO_KEY = "none"
"""Sent to servers without a key, because the client requires one."""
MIN_SECRET_CHARACTERS = 8
"""Shorter keys are placeholders ("EMPTY"); longer ones are never shown or stored."""
REQUEST_FORM = 1
"""Part of the cache's keys; raise it with every change of how a question becomes a request."""
PROBES = 3
"""Requests for the list of models without an answer, after which an endpoint counts as gone."""
_RETRIED = frozenset({408, 409, 425, 429})
"""Statuses below 500 that may pass."""
_REFUSED = frozenset({401, 402, 403, 404})
"""Statuses that every question would get."""

T = TypeVar("T")

Messages = Sequence[Mapping[str, str]]
"""A conversation: ``[{"role": "system", "content": ...}, {"role": "user", "content": ...}]``."""


class UnusableReplyError(ValueError):
    """A reply is not a valid verdict; the message says why. Raised by the `read` given to `Endpoint.ask`."""


@dataclass(frozen=True)
class EndpointConfig:
    """An endpoint, how to ask it, and what to do when it does not answer."""

    model: str
    """The endpoint's name of the model."""
    base_url: str | None = None
    """Address, such as `http://localhost:8000/v1`; null = OpenAI's."""
    api_key_env: str | None = None
    """The environment variable that holds the key; keys are read from nowhere else. Null = `OPENAI_API_KEY` for
    OpenAI's own endpoint, and no key for any other, which must not receive OpenAI's key."""
    temperature: float | None = 0.0
    """Null = not sent, for models that refuse it."""
    max_tokens: int | None = 1024
    """Longest reply; null = not sent. Models that refuse it take `max_completion_tokens` in `extra_body`."""
    seed: int | None = 0
    """Seed of the endpoint's sampling; a repeated question uses the next one. Null = not sent."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """More fields of the request, such as `{reasoning_effort: low}`."""
    max_concurrency: int = 16
    """Concurrent requests."""
    timeout: float = 60.0
    """Seconds per request, from connecting to the last byte."""
    max_attempts: int = 6
    """Requests per reply if connection or server fail; a question that used them up is unscored."""
    max_reply_attempts: int = 2
    """Replies per question; if none of them can be read, it is unscored."""
    backoff: float = 1.0
    """Seconds: the wait before attempt k + 1 is a random part of backoff · 2ᵏ⁻¹, at most `longest_wait`."""
    longest_wait: float = 60.0
    """Seconds; also the limit for an endpoint's Retry-After."""
    down_requests: int = 5
    """Questions in a row that used up their attempts, after which the endpoint is down."""
    down_after: float = 300.0
    """Seconds without any answer while several questions wait, after which the endpoint is down."""
    cache: str | None = None
    """An SQLite file that stores every reply, so that each is paid for once; null = no cache."""
    price_per_million_input: float | None = None
    """USD per million tokens of questions; null = unknown."""
    price_per_million_output: float | None = None
    """USD per million tokens of replies; null = unknown."""

    def __post_init__(self) -> None:
        for name in ("max_concurrency", "max_attempts", "max_reply_attempts", "down_requests"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}. Give 1 or more.")
        for name in ("timeout", "longest_wait", "down_after"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}. Give a number of seconds above 0.")
        if not self.backoff >= 0:
            raise ValueError(f"backoff is {self.backoff}. Give a number of seconds.")
        url = urlsplit(self.base_url or OPENAI)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"base_url is {self.base_url!r}. Give an address such as http://localhost:8000/v1.")
        if url.username or url.password or url.query:
            raise ValueError(
                f"base_url contains a user name, a password or a query (host {url.hostname}). Leave them out, and "
                "name the environment variable that holds the key in api_key_env."
            )

    @property
    def url(self) -> str:
        """`base_url`, or OpenAI's."""
        return (self.base_url or OPENAI).rstrip("/")

    @property
    def key_variable(self) -> str | None:
        """The environment variable with the key; None = no key is sent."""
        return self.api_key_env or ("OPENAI_API_KEY" if self.url == OPENAI else None)


@dataclass(frozen=True, slots=True)
class AskResult(Generic[T]):
    """The result of a question."""

    value: T | None
    """The reply as `read` returned it; None = unscored."""
    reason: str | None = None
    """Why there is no value: ``"unparsable"``, ``"rejected by the endpoint: 400 …"``, ``"gave up after 6 …"``."""
    cached: bool = False
    """No request was sent."""


@dataclass(frozen=True, slots=True)
class _Rejection:
    """A status that the same request would get again."""

    code: int
    message: str


@dataclass(slots=True)
class _Connection:
    """What belongs to one event loop, because connections and locks cannot be shared. Closed when no longer used."""

    client: openai.AsyncOpenAI
    create: Callable[..., Any]
    """The client's method for a completion; looked up once, because the lookup imports much of the client."""
    slots: asyncio.Semaphore
    """For concurrent requests."""
    probe: asyncio.Lock
    """Held by the one request that is sent to a suspicious endpoint."""
    users: int = 0


class Endpoint:
    """Asks many questions concurrently, and counts usage. Works from several event loops and threads.

    Example::

        endpoint = Endpoint(EndpointConfig("judge", base_url="http://localhost:8000/v1", cache="replies.sqlite"))
        result = await endpoint.ask([{"role": "user", "content": "1 or 2?"}], read=int)

    Raises:
        ValueError: The environment has no key, or an invalid one, though the endpoint needs it.
        ReplyCacheError: The cache cannot be used.
    """

    def __init__(self, config: EndpointConfig) -> None:
        self.config = config
        self._key()
        self._cache = None if config.cache is None else ReplyCache(config.cache)
        self._breaker = Breaker(config.down_requests, config.down_after)
        self._lock = threading.Lock()
        self._connections: dict[asyncio.AbstractEventLoop, _Connection] = {}
        self._in_progress: dict[str, Future[Reply | str | None]] = {}
        self._counts: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._warned: set[str] = set()

    async def ask(
        self, messages: Messages, read: Callable[[str], T], *, retry_messages: Messages | None = None
    ) -> AskResult[T]:
        """Ask, and read the reply.

        Args:
            messages: The question.
            read: Turns a reply (also a cached one) into a value, or raises `UnusableReplyError`.
            retry_messages: The question after a reply that could not be read, because a deterministic endpoint would
                repeat itself.

        Raises:
            EndpointRefusedError: The endpoint refuses the key, the model or the form of the request.
            EndpointDownError: The endpoint is down.
            ReplyCacheError: The cache is damaged or cannot be written. All three stop a run regardless of `on_error`.
        """
        all_cached, reason = True, ""
        with self._breaker.asking():
            for attempt in range(self.config.max_reply_attempts):
                reply, cached = await self._reply(messages if attempt == 0 else retry_messages or messages, attempt)
                if isinstance(reply, str):
                    return AskResult(None, reply)
                all_cached = all_cached and cached
                try:
                    return AskResult(read(reply.text), None, all_cached)
                except UnusableReplyError as error:
                    reason = "unparsable" + (" (cut off at max_tokens)" if reply.finish == "length" else "")
                    self._count(unusable=1)
                    self._warn_once("unusable", f"a reply cannot be used ({error}); such questions are asked again")
        return AskResult(None, reason, all_cached)

    @property
    def usage(self) -> Usage:
        """Usage so far; subtract two of them for what happened in between."""
        prices = self.config.price_per_million_input, self.config.price_per_million_output
        with self._lock:
            counts, faults = dict(self._counts), dict(self._faults)
        tokens = counts.get("prompt_tokens", 0), counts.get("completion_tokens", 0)
        known = None not in prices
        cost = sum(n * (price or 0.0) / 1e6 for n, price in zip(tokens, prices, strict=True)) if known else None
        return Usage(**counts, cost=cost, faults=faults)

    # ------------------------------------------------------------------ one reply

    async def _reply(self, messages: Messages, attempt: int) -> tuple[Reply | str, bool]:
        """Return the reply to a question, or why there is none; and whether it took no request."""
        body = self._body(messages, attempt)
        key = question_key({"form": REQUEST_FORM, "base_url": self.config.url, "attempt": attempt, "request": body})
        while True:
            with self._lock:
                other = self._in_progress.get(key)
                if other is None:
                    claimed = self._in_progress[key] = Future()
                    break
            found = await asyncio.shield(asyncio.wrap_future(other))
            if found is not None:  # otherwise the other one was cancelled or stopped
                self._count(cached=isinstance(found, Reply))
                return found, True
        reply: Reply | str | None = None
        try:
            reply = self._cache.get(key) if self._cache is not None else None
            if reply is not None:
                self._count(cached=1)
                return reply, True
            reply = await self._request(key, body)
            return reply, False
        finally:
            with self._lock:
                del self._in_progress[key]
            claimed.set_result(reply)

    def _body(self, messages: Messages, attempt: int) -> dict[str, Any]:
        """Return the fields of the request."""
        config = self.config
        sampling = {
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "seed": None if config.seed is None else config.seed + attempt,
        }
        return {
            "model": config.model,
            "messages": [{name: encodable(text) for name, text in message.items()} for message in messages],
            **{name: value for name, value in sampling.items() if value is not None},
            **({"extra_body": dict(config.extra_body)} if config.extra_body else {}),
        }

    async def _request(self, key: str, body: dict[str, Any]) -> Reply | str:
        """Send until there is a reply, which is cached before it is used; or return why there is none."""
        config, attempt = self.config, 0
        async with self._connected() as connection, connection.slots:
            while True:
                attempt += 1
                async with self._probing(connection):
                    self._stop_if_down()
                    self._count(requests=1, retries=attempt > 1)
                    got = await self._send(connection, body)
                    if isinstance(got, Reply):
                        self._count(
                            answered=1, prompt_tokens=got.prompt_tokens, completion_tokens=got.completion_tokens
                        )
                        self._breaker.answered()
                        return got if self._cache is None else self._cache.put(key, got, config.model)
                    if isinstance(got, _Rejection):
                        return await self._rejected(connection.client, got)
                    last = attempt == config.max_attempts
                    with self._lock:
                        self._faults[got.kind] += 1
                    self._warn_once(got.kind, f"{got.detail}; such requests are retried after a pause")
                    self._breaker.failed(key, got.detail, last=last)
                    if last:
                        return await self._give_up(connection.client, got)
                    wait = wait_before(
                        attempt + 1,
                        base=config.backoff,
                        longest=config.longest_wait,
                        key=key,
                        retry_after=got.retry_after,
                    )
                    await asyncio.sleep(wait)

    @asynccontextmanager
    async def _probing(self, connection: _Connection) -> AsyncIterator[None]:
        """While the endpoint is suspicious, send one request at a time, its pause included.

        So an outage costs waiting questions few of their attempts, and one answer ends it.
        """
        if self._breaker.suspicious:
            async with connection.probe:
                if self._breaker.suspicious:
                    yield
                    return
        yield

    async def _send(self, connection: _Connection, body: dict[str, Any]) -> Reply | Fault | _Rejection:
        """Send one request. Errors become values, so that no traceback contains a request or its key."""
        try:
            async with asyncio.timeout(self.config.timeout):
                response = await connection.create(**body)
        except TimeoutError:
            return Fault("timeout", f"no answer within {self.config.timeout:g} s")
        except openai.APIConnectionError as error:
            return Fault("connection", self._quote(error.__cause__ or error) or "the connection was closed")
        except openai.APIStatusError as error:
            code, message = error.status_code, self._quote(error.body or error.message)
            if _may_pass(code):
                wanted = read_retry_after(error.response.headers.get("retry-after"))
                return Fault(f"status {code}", f"{code} {message}", wanted)
            return _Rejection(code, message)
        got = read_body(response.content)
        if isinstance(got, Fault):
            return replace(got, detail=shortened(self._without_key(got.detail)))
        return replace(got, text=self._without_key(got.text))

    # ------------------------------------------------------------------ when there is no reply

    async def _give_up(self, client: openai.AsyncOpenAI, fault: Fault) -> str:
        """Return why this question stays unscored; or stop if the endpoint answers nothing at all.

        When an endpoint goes away, the last question of a batch may fail alone, just after others were answered. If
        it were left unscored, the run would differ from one whose endpoint stayed: so the list of models is tried.
        """
        self._stop_if_down()
        for _ in range(PROBES):
            if await self._models(client) is not None:
                break
            await asyncio.sleep(self.config.backoff)
        else:
            self._breaker.gone(fault.detail)
            self._stop_if_down()
        self._count(given_up=1)
        return f"gave up after {self.config.max_attempts} attempts: {fault.detail}"

    async def _rejected(self, client: openai.AsyncOpenAI, rejection: _Rejection) -> str:
        """Return why this question stays unscored; or stop if every other would be rejected too."""
        status = f"{rejection.code}: {rejection.message}"
        if rejection.code in _REFUSED:
            remedy = await self._remedy(client, rejection.code)
            raise EndpointRefusedError(f"{self._named} refused with {status}. {remedy}")
        self._breaker.answered()
        self._count(rejected=1)
        with self._lock:
            rejected, answered = self._counts["rejected"], self._counts["answered"]
        if answered == 0 and rejected >= self.config.down_requests:
            raise EndpointRefusedError(
                f"{self._named} rejected the first {rejected} questions, the last with {status}. Change temperature, "
                "max_tokens, seed or extra_body, or shorten the texts."
            )
        reason = f"rejected by the endpoint: {rejection.code} {rejection.message}"
        self._warn_once("rejected", f"{reason}; such questions stay unscored")
        return reason

    async def _remedy(self, client: openai.AsyncOpenAI, code: int) -> str:
        name = self.config.key_variable
        if code == 404:
            if names := await self._models(client):
                return f"Its models are: {', '.join(names[:20])}. Set `model` to one of them."
            return "It lists no models either: check base_url, which mostly ends in /v1."
        if name is None:
            return "No key was sent: name the environment variable that holds one in api_key_env."
        return f"Check the key in the environment variable {name}."

    async def _models(self, client: openai.AsyncOpenAI) -> list[str] | None:
        """Return the endpoint's models: none if it answers but lists none, None if it does not answer."""
        try:
            async with asyncio.timeout(self.config.timeout):
                return [model.id for model in (await client.models.list()).data]
        except (TimeoutError, openai.APIConnectionError):
            return None
        except openai.APIStatusError as error:
            return None if _may_pass(error.status_code) else []
        except (openai.OpenAIError, TypeError, AttributeError, ValueError):
            return []

    def _stop_if_down(self) -> None:
        if (outage := self._breaker.down) is None:
            return
        cached = "No `cache` is set: answers of this step are paid for again"
        if self.config.cache is not None:
            cached = f"Answers so far are in the cache {self.config.cache}"
        raise EndpointDownError(
            f"{self._named} is down: {outage.faults} requests in a row failed within {outage.seconds:.0f} s, the last "
            f"with: {outage.last_fault}. {cached}; continue with --resume (resume=True) when it is back."
        )

    # ------------------------------------------------------------------ keys, counts, connections

    @property
    def _named(self) -> str:
        return f"the endpoint {self.config.url} (model {self.config.model})"

    def _key(self) -> str:
        """Read the key from the environment each time, so that no object holds it."""
        name = self.config.key_variable
        if name is None:
            return NO_KEY
        key = os.environ.get(name, "").strip()
        if not key:
            raise ValueError(
                f"the environment variable {name} with the key for {self.config.url} is not set. Set it, or name "
                "another one in api_key_env (for an endpoint without a key leave api_key_env out)."
            )
        if not (key.isascii() and key.isprintable()):
            raise ValueError(f"the environment variable {name} contains characters that no key has. Set it again.")
        return key

    def _without_key(self, text: str) -> str:
        """Mask the key, which an endpoint may quote."""
        key = self._key()
        return text if len(key) < MIN_SECRET_CHARACTERS else text.replace(key, f"<{self.config.key_variable}>")

    def _quote(self, error: Any) -> str:
        return shortened(self._without_key(error_message(error)))

    def _count(self, **counts: int) -> None:
        with self._lock:
            self._counts.update({name: int(n) for name, n in counts.items()})

    def _warn_once(self, kind: str, text: str) -> None:
        """Log the first of a kind; `usage` counts all."""
        with self._lock:
            new = kind not in self._warned
            self._warned.add(kind)
        if new:
            logger.warning("%s: %s. Further ones are counted, not shown", self._named, text)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[_Connection]:
        """Yield this event loop's connection, and close it after the last use: a client must not outlive its loop."""
        loop = asyncio.get_running_loop()  # each entry is used by its loop's thread only
        connection = self._connections.get(loop)
        if connection is None:
            # Retries and time limits are this class's, so the client has none.
            client = openai.AsyncOpenAI(base_url=self.config.url, api_key=self._key(), max_retries=0, timeout=None)
            create = client.chat.completions.with_raw_response.create
            slots, probe = asyncio.Semaphore(self.config.max_concurrency), asyncio.Lock()
            connection = self._connections[loop] = _Connection(client, create, slots, probe)
        connection.users += 1
        try:
            yield connection
        finally:
            connection.users -= 1
            if connection.users == 0:
                del self._connections[loop]
                await connection.client.close()


def _may_pass(status: int) -> bool:
    """Return whether the same request may succeed later."""
    return status in _RETRIED or status >= 500
