"""A local endpoint that speaks the chat completions of OpenAI, with every fault that real ones have.

It counts the requests and the *paid* answers (complete, valid, status 200) by question, so that tests can ask the
endpoint itself what a client cost.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = (
    *("close", "hang", "429", "429-seconds", "429-date", "500", "502", "503", "truncated", "cut-off"),
    *("invalid", "no-choices", "null-content", "not-utf8"),
)
"""What keeps an answer away: the request must be sent again."""
ODD_REPLIES = ("explained", "foreign")
"""Complete answers, which are paid for, but in which the verdict is wrapped up, or in another language."""
STATUSES = {"429": 429, "429-seconds": 429, "429-date": 429, "500": 500, "502": 502, "503": 503}
STATUSES |= {"400": 400, "401": 401, "403": 403, "404": 404}


class FaultyEndpoint:
    """Serves at `url` from entering the context to leaving it.

    Args:
        judge: the reply to a conversation.
        rate: of requests that meet a fault (0.3 = 30 %), drawn from `faults` by a hash of seed, question and how often
            the question was sent: the same in every order of requests.
        faults: names from `FAULTS` and `ODD_REPLIES`.
        seed: of the faults.
        models: what it lists and answers for.
        key: what it wants in the Authorization header; None = anything.
        delay: seconds before each answer.
        port: to come back at, after having been away.
    """

    def __init__(
        self,
        judge: Callable[[list[dict[str, str]]], str],
        *,
        rate: float = 0.0,
        faults: Iterable[str] = FAULTS,
        seed: int = 0,
        models: Iterable[str] = ("judge",),
        key: str | None = None,
        delay: float = 0.0,
        port: int = 0,
    ) -> None:
        self.judge, self.rate, self.faults, self.seed = judge, rate, tuple(faults), seed
        self.models, self.key, self.delay = tuple(models), key, delay
        self.always: str | None = None
        """A fault or status for every request, until it is set to None again."""
        self.away = False
        """Answers everything with status 503, also who asks for its models."""
        self.next: deque[str | None] = deque()
        """Faults for the next requests, before any other."""
        self.rejects: Callable[[list[dict[str, str]]], bool] = lambda messages: False
        """Conversations that are answered with status 400."""
        self.requests: Counter[str] = Counter()
        """By question: the whole request as canonical JSON."""
        self.paid: Counter[str] = Counter()
        self.played: Counter[str] = Counter()
        """Faults by name."""
        self.times: list[float] = []
        """Of each request's arrival, by the monotonic clock."""
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        handler = type("Handler", (_Handler,), {"endpoint": self})
        self._server = _Server(("127.0.0.1", port), handler)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> FaultyEndpoint:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    # ------------------------------------------------------------------ what the handler asks

    def arrived(self, question: str) -> str | None:
        """Count a request; the fault it is to meet."""
        with self._lock:
            self.requests[question] += 1
            self.times.append(time.monotonic())
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            fault = self._fault(question, self.requests[question])
            if fault is not None:
                self.played[fault] += 1
            return fault

    def left(self, question: str, *, paid: bool) -> None:
        with self._lock:
            self._at_once -= 1
            self.paid[question] += paid

    def _fault(self, question: str, times: int) -> str | None:
        if self.away:
            return "503"
        if self.always is not None:
            return self.always
        if self.next:
            return self.next.popleft()
        digest = hashlib.sha256(f"{self.seed}:{times}:{question}".encode()).digest()
        if int.from_bytes(digest[:8]) / 2**64 >= self.rate:
            return None
        return self.faults[int.from_bytes(digest[8:16]) % len(self.faults)]

    def hang(self) -> None:
        """Longer than any client here waits, but not beyond the server's own end."""
        self._closing.wait(30)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # of 5, the default, the sixth of several connections at once waits a second


class _Handler(BaseHTTPRequestHandler):
    endpoint: FaultyEndpoint
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.endpoint.away:
            self._answer(503, _error("away"))
        elif self.endpoint.always is not None or self.path != "/v1/models":
            self._answer(404, _error("no such page"))
        else:
            self._answer(200, {"object": "list", "data": [{"id": m, "object": "model"} for m in self.endpoint.models]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = json.dumps(request, sort_keys=True)
        fault, paid = self.endpoint.arrived(question), False
        try:
            time.sleep(self.endpoint.delay)
            paid = self._complete(request, fault)
        except OSError:  # the client has gone
            self.close_connection = True
        finally:
            self.endpoint.left(question, paid=paid)

    def _complete(self, request: dict[str, Any], fault: str | None) -> bool:
        """Answer, or fail as told; whether the answer is one to pay for."""
        of, given = self.endpoint, self.headers["Authorization"]
        if of.key is not None and given != f"Bearer {of.key}":
            return self._answer(401, _error(f"Incorrect API key provided: {given}"))
        if request["model"] not in of.models:
            return self._answer(404, _error(f"The model {request['model']!r} does not exist"))
        if of.rejects(request["messages"]):
            return self._answer(400, _error("This model's maximum context length is 64 tokens"))
        if fault in ("close", "hang"):
            if fault == "hang":
                of.hang()
            self.close_connection = True
            return False
        if fault in STATUSES:
            headers = {"429-seconds": "0.05", "429-date": formatdate(time.time() + 1, usegmt=True)}
            retry_after = {"Retry-After": headers[fault]} if fault in headers else {}
            return self._answer(STATUSES[fault], _error(f"told to fail with {fault}"), **retry_after)
        text = of.judge(request["messages"])
        body = json.dumps(_completion(request, text, fault)).encode()
        if fault == "cut-off":
            self._send(200, body[:20], length=len(body))
            self.close_connection = True
            return False
        mangled = {
            "truncated": body[:-30],
            "invalid": b"<html>busy</html>",
            "not-utf8": body.replace(b'": ', b'": \xff\xfe'),
        }
        self._send(200, mangled.get(fault or "", body))
        return fault is None or fault in ODD_REPLIES

    def _answer(self, status: int, body: dict[str, Any], **headers: str) -> bool:
        self._send(status, json.dumps(body).encode(), **headers)
        return False

    def _send(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _completion(request: dict[str, Any], text: str, fault: str | None) -> dict[str, Any]:
    odd = {
        "explained": f"Well, let me explain at length. {text} That is why.",
        "foreign": "Die erste Antwort ist besser.",
    }
    message = {"role": "assistant", "content": None if fault == "null-content" else odd.get(fault or "", text)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    asked = sum(len(turn["content"].split()) for turn in request["messages"])
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [] if fault == "no-choices" else [choice],
        "usage": {"prompt_tokens": asked, "completion_tokens": len(text.split()), "total_tokens": 0},
    }


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
