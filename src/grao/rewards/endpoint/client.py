"""Asking an OpenAI-compatible endpoint until there is an answer that can be read, or no hope of one.

question ─▶ the same under way? ─▶ cache ─▶ request ⟲ fault, pause ─▶ cache ─▶ read ⟲ unusable: asked anew
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
from grao.rewards.endpoint.chat_body import Fault, cut, read_body, stated
from grao.rewards.endpoint.reply_cache import Reply, ReplyCache, question_key
from grao.rewards.endpoint.usage import Usage
from grao.rewards.errors import EndpointDownError, EndpointRefusedError

logger = logging.getLogger(__name__)

OPENAI = "https://api.openai.com/v1"
NO_KEY = "none"
"""Sent to servers that want no key, as the client must send something."""
SECRET = 8
"""Characters from which on a key is one, and is never shown or stored."""
FORM = 1
"""How a question is turned into a request; to be raised with every change of it, as it is part of the cache's keys."""

PROBES = 3
"""Requests for the list of models, none of which is answered where an endpoint has gone away."""
_ASKED_AGAIN = frozenset({408, 409, 425, 429})
"""Statuses below 500 that may pass."""
_REFUSED = frozenset({401, 402, 403, 404})
"""Statuses that no other question would escape."""

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
    api_key_env: str | None = None
    """The environment variable that holds the key: keys come from nowhere else. Null = `OPENAI_API_KEY` for OpenAI's
    own endpoint, and no key for any other: whoever serves that one should not be sent it."""
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

    def __post_init__(self) -> None:
        for name in ("max_concurrency", "max_attempts", "max_reply_attempts", "down_requests"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        for name in ("timeout", "longest_wait", "down_after"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number of seconds above 0")
        if not self.backoff >= 0:
            raise ValueError(f"backoff is {self.backoff}; give a number of seconds")
        url = urlsplit(self.base_url or OPENAI)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"base_url is {self.base_url!r}; give an address such as http://localhost:8000/v1")
        if url.username or url.password or url.query:
            raise ValueError(
                f"base_url holds a user name, a password or a query (host {url.hostname}): keys come from the "
                "environment only. Leave them out, and name the variable that holds the key in api_key_env"
            )

    @property
    def url(self) -> str:
        """`base_url`, or OpenAI's own."""
        return (self.base_url or OPENAI).rstrip("/")

    @property
    def key_variable(self) -> str | None:
        """The environment variable that is read; None = no key is sent."""
        return self.api_key_env or ("OPENAI_API_KEY" if self.url == OPENAI else None)


@dataclass(frozen=True, slots=True)
class Asked(Generic[T]):
    """What came of a question."""

    value: T | None
    """What `read` made of the reply; None = unscored."""
    reason: str | None = None
    """Why there is no value: ``"unparsable"``, ``"rejected by the endpoint: 400 …"``, ``"gave up after 6 …"``."""
    cached: bool = False
    """No request was sent for it."""


@dataclass(frozen=True, slots=True)
class _Status:
    """An answer whose status says that the same request would fare no better."""

    code: int
    said: str


@dataclass(slots=True)
class _Line:
    """What belongs to one event loop: connections and locks cannot be shared by two. Closed when nobody asks there."""

    client: openai.AsyncOpenAI
    create: Callable[..., Any]
    """The client's method for one completion; got once, as the client imports half of itself for it."""
    places: asyncio.Semaphore
    """For the requests under way at once."""
    probe: asyncio.Lock
    """Held by whoever tries whether a suspicious endpoint is there."""
    users: int = 0


class Endpoint:
    """Asks questions, many at once, and counts what that takes. May be used from several event loops and threads.

    Example::

        endpoint = Endpoint(EndpointConfig("judge", base_url="http://localhost:8000/v1", cache="replies.sqlite"))
        asked = await endpoint.ask([{"role": "user", "content": "1 or 2?"}], read=int)
    """

    def __init__(self, config: EndpointConfig) -> None:
        """Nothing is asked yet.

        Raises:
            ValueError: OpenAI's own endpoint without a key in the environment, a key that cannot be one, or a cache
                that cannot be used.
        """
        self.config = config
        self._key()
        self._cache = None if config.cache is None else ReplyCache(config.cache)
        self._breaker = Breaker(config.down_requests, config.down_after)
        self._lock = threading.Lock()
        self._lines: dict[asyncio.AbstractEventLoop, _Line] = {}
        self._under_way: dict[str, Future[Reply | str | None]] = {}
        self._counts: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._told: set[str] = set()

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
            EndpointDownError: it is down.
            ReplyCacheError: the cache is damaged or cannot be written. All three stop a run whatever `on_error` says.
        """
        all_cached, reason = True, ""
        with self._breaker.asking():
            for attempt in range(self.config.max_reply_attempts):
                reply, cached = await self._reply(messages if attempt == 0 else retry_messages or messages, attempt)
                if isinstance(reply, str):
                    return Asked(None, reply)
                all_cached = all_cached and cached
                try:
                    return Asked(read(reply.text), None, all_cached)
                except UnusableReplyError as error:
                    reason = "unparsable" + (" (cut off at max_tokens)" if reply.finish == "length" else "")
                    self._count(unusable=1)
                    self._tell("unusable", f"a reply cannot be used ({error}); such questions are asked anew")
        return Asked(None, reason, all_cached)

    @property
    def usage(self) -> Usage:
        """What was asked, answered and paid up to now; subtract two of them for what lies between."""
        prices = self.config.price_per_million_input, self.config.price_per_million_output
        with self._lock:
            counts, faults = dict(self._counts), dict(self._faults)
        tokens = counts.get("prompt_tokens", 0), counts.get("completion_tokens", 0)
        known = None not in prices
        cost = sum(n * (price or 0.0) / 1e6 for n, price in zip(tokens, prices, strict=True)) if known else None
        return Usage(**counts, cost=cost, faults=faults)

    # ------------------------------------------------------------------ one reply

    async def _reply(self, messages: Messages, attempt: int) -> tuple[Reply | str, bool]:
        """The reply to a question, or why there is none; and whether nothing was sent for it."""
        body = self._body(messages, attempt)
        key = question_key({"form": FORM, "base_url": self.config.url, "attempt": attempt, "request": body})
        while (other := self._claim(key)) is not None:
            found = await asyncio.shield(asyncio.wrap_future(other))
            if found is not None:  # else whoever asked was cancelled or stopped
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
                claimed = self._under_way.pop(key)
            claimed.set_result(reply)

    def _claim(self, key: str) -> Future[Reply | str | None] | None:
        """The future of whoever asks this already; None where it is ours to ask."""
        with self._lock:
            other = self._under_way.get(key)
            if other is None:
                self._under_way[key] = Future()
        return other

    def _body(self, messages: Messages, attempt: int) -> dict[str, Any]:
        """What is sent."""
        config = self.config
        sampling = {
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "seed": None if config.seed is None else config.seed + attempt,
        }
        return {
            "model": config.model,
            "messages": [{name: _sendable(text) for name, text in message.items()} for message in messages],
            **{name: value for name, value in sampling.items() if value is not None},
            **({"extra_body": dict(config.extra_body)} if config.extra_body else {}),
        }

    async def _request(self, key: str, body: dict[str, Any]) -> Reply | str:
        """Send until there is a reply, which is on the disk before anybody sees it; or say why there will be none."""
        attempt = 0
        async with self._line() as line, line.places:
            while True:
                attempt += 1
                async with self._turn(line):
                    self._stop_if_down()
                    self._count(requests=1, retries=attempt > 1)
                    got = await self._send(line, body)
                    if isinstance(got, Reply):
                        return self._keep(key, got)
                    if isinstance(got, _Status):
                        return await self._rejected(line.client, got)
                    last = attempt == self.config.max_attempts
                    self._note(key, got, last=last)
                    if last:
                        return await self._given_up(line.client, got)
                    await asyncio.sleep(self._pause(key, attempt + 1, got))

    @asynccontextmanager
    async def _turn(self, line: _Line) -> AsyncIterator[None]:
        """At once; but while the endpoint is suspicious, one request at a time, its pause included.

        So an outage costs all who wait few of their attempts, and it is over as soon as one of them is answered.
        """
        if self._breaker.suspicious:
            async with line.probe:
                if self._breaker.suspicious:
                    yield
                    return
        yield

    async def _send(self, line: _Line, body: dict[str, Any]) -> Reply | Fault | _Status:
        """One request. Errors become values here: nothing of a request, its key above all, goes up in a traceback."""
        try:
            async with asyncio.timeout(self.config.timeout):
                response = await line.create(**body)
        except TimeoutError:
            return Fault("timeout", f"no answer within {self.config.timeout:g} s")
        except openai.APIConnectionError as error:
            return Fault("connection", self._quoted(error.__cause__ or error) or "the connection was closed")
        except openai.APIStatusError as error:
            code, said = error.status_code, self._quoted(error.body or error.message)
            if _may_pass(code):
                wanted = read_retry_after(error.response.headers.get("retry-after"))
                return Fault(f"status {code}", f"{code} {said}", wanted)
            return _Status(code, said)
        got = read_body(response.content)
        if isinstance(got, Fault):
            return replace(got, detail=cut(self._without_key(got.detail)))
        return replace(got, text=self._without_key(got.text))

    def _keep(self, key: str, reply: Reply) -> Reply:
        self._count(answered=1, prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
        self._breaker.answered()
        return reply if self._cache is None else self._cache.put(key, reply, self.config.model)

    def _note(self, key: str, fault: Fault, *, last: bool) -> None:
        with self._lock:
            self._faults[fault.kind] += 1
        self._tell(fault.kind, f"{fault.detail}; such requests are sent again after a pause")
        self._breaker.failed(key, fault.detail, last=last)

    def _pause(self, key: str, attempt: int, fault: Fault) -> float:
        config = self.config
        return wait_before(
            attempt, base=config.backoff, longest=config.longest_wait, key=key, retry_after=fault.retry_after
        )

    async def _given_up(self, client: openai.AsyncOpenAI, fault: Fault) -> str:
        """Why this question stays unscored; or the end, where the endpoint answers nothing at all.

        Where an endpoint goes away, the last question of a batch fails alone, and others may just have been answered;
        its list of models tells. Left unscored, the question would make the run another one than if it had stayed.
        """
        self._stop_if_down()
        if not await self._is_there(client):
            self._breaker.gone(fault.detail)
            self._stop_if_down()
        self._count(given_up=1)
        return f"gave up after {self.config.max_attempts} attempts: {fault.detail}"

    # ------------------------------------------------------------------ when it will not go on

    async def _rejected(self, client: openai.AsyncOpenAI, status: _Status) -> str:
        """Why this question stays unscored; or the end, where no other would fare better."""
        if status.code in _REFUSED:
            raise EndpointRefusedError(await self._refusal(client, status))
        self._breaker.answered()
        self._count(rejected=1)
        with self._lock:
            rejected, answered = self._counts["rejected"], self._counts["answered"]
        found = f"rejected by the endpoint: {status.code} {status.said}"
        if answered == 0 and rejected >= self.config.down_requests:
            raise EndpointRefusedError(
                f"{self._named} rejected the first {rejected} questions and answered none, the last with "
                f"{status.code}: {status.said}. Change what is sent (temperature, max_tokens, seed, extra_body), or "
                "shorten the texts"
            )
        self._tell("rejected", f"{found}; such questions stay unscored")
        return found

    async def _refusal(self, client: openai.AsyncOpenAI, status: _Status) -> str:
        said = f"{self._named} refused with {status.code}: {status.said}. "
        if status.code == 404:
            return said + await self._models(client)
        name = self.config.key_variable
        if name is None:
            return said + "No key was sent: name the environment variable that holds one in api_key_env"
        return said + f"The key was read from the environment variable {name}"

    async def _is_there(self, client: openai.AsyncOpenAI) -> bool:
        """Whether it answers another question of the simplest kind; that it has no such page is an answer too."""
        for _ in range(PROBES):
            try:
                async with asyncio.timeout(self.config.timeout):
                    await client.models.list()
                return True
            except (TimeoutError, openai.APIConnectionError):
                pass
            except openai.APIStatusError as error:
                if not _may_pass(error.status_code):
                    return True
            except (openai.OpenAIError, TypeError, AttributeError, ValueError):
                return True  # what it lists is of no interest
            await asyncio.sleep(self.config.backoff)
        return False

    async def _models(self, client: openai.AsyncOpenAI) -> str:
        """What the endpoint has instead of what it could not find."""
        try:
            async with asyncio.timeout(self.config.timeout):
                page = await client.models.list()
            names = [model.id for model in page.data]
        except (TimeoutError, openai.OpenAIError, TypeError, AttributeError):
            return "It lists no models either: see whether base_url is right; it mostly ends in /v1"
        return f"Its models are: {', '.join(names[:20]) or 'none'}. Set `model` to one of them"

    def _stop_if_down(self) -> None:
        outage = self._breaker.down
        if outage is None:
            return
        kept = "no `cache` is set, so what this step asked will be asked again"
        if self.config.cache is not None:
            kept = f"answers so far are in the cache {self.config.cache}"
        raise EndpointDownError(
            f"{self._named} is down: {outage.faults} requests in a row failed within {outage.seconds:.0f} s, the last "
            f"with: {outage.last_fault}. The run stops here, and can go on with --resume (resume=True) when it is "
            f"back; {kept}"
        )

    # ------------------------------------------------------------------ keys, counts, loops

    @property
    def _named(self) -> str:
        return f"the endpoint {self.config.url} (model {self.config.model})"

    def _key(self) -> str:
        """Read anew each time, so that no object of ours holds it."""
        name = self.config.key_variable
        if name is None:
            return NO_KEY
        key = os.environ.get(name, "").strip()
        if not key:
            raise ValueError(
                f"the environment variable {name}, which is to hold the key for {self.config.url}, is not set. "
                "Set it, or name another one in api_key_env; for an endpoint that wants no key give a base_url alone"
            )
        if not (key.isascii() and key.isprintable()):
            raise ValueError(f"the environment variable {name} holds characters that no key has; set it anew")
        return key

    def _without_key(self, text: str) -> str:
        """What an endpoint says may be the key that it was sent. Placeholders like "EMPTY" are only words."""
        key = self._key()
        return text if len(key) < SECRET else text.replace(key, f"<{self.config.key_variable}>")

    def _quoted(self, said: Any) -> str:
        return cut(self._without_key(stated(said)))

    def _count(self, **counts: int) -> None:
        with self._lock:
            self._counts.update({name: int(n) for name, n in counts.items()})

    def _tell(self, kind: str, text: str) -> None:
        """A warning the first time, not once a request; all are counted in `usage`."""
        with self._lock:
            new = kind not in self._told
            self._told.add(kind)
        if new:
            logger.warning("%s: %s. Further ones are counted, not shown", self._named, text)

    @asynccontextmanager
    async def _line(self) -> AsyncIterator[_Line]:
        """This event loop's connections, for as long as somebody asks on it: a client must not outlive its loop."""
        loop = asyncio.get_running_loop()  # whose entry is touched by its own thread alone
        line = self._lines.get(loop) or self._connect()
        self._lines[loop] = line
        line.users += 1
        try:
            yield line
        finally:
            line.users -= 1
            if line.users == 0:
                del self._lines[loop]
                await line.client.close()

    def _connect(self) -> _Line:
        # Faults and time are counted here, so the client has no retries and no limit of its own.
        client = openai.AsyncOpenAI(base_url=self.config.url, api_key=self._key(), max_retries=0, timeout=None)
        create = client.chat.completions.with_raw_response.create
        return _Line(client, create, asyncio.Semaphore(self.config.max_concurrency), asyncio.Lock())


def _may_pass(status: int) -> bool:
    """Whether the same request may fare better later."""
    return status in _ASKED_AGAIN or status >= 500


def _sendable(text: str) -> str:
    """Half a character, as tokens cut anywhere may leave, cannot be sent as UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")
