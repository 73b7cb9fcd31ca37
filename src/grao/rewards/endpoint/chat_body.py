"""Read the body of a chat completion: the reply, or what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from grao.rewards.endpoint.reply_cache import Reply

QUOTED_CHARACTERS = 300
"""How much of an endpoint's message our messages quote."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A request that failed for a reason that may pass: it is retried."""

    kind: str
    """The name in the counts: ``"timeout"``, ``"connection"``, ``"status 503"``, ``"invalid JSON"``, …"""
    detail: str
    retry_after: float | None = None
    """Seconds, if the endpoint sent them."""


def read_body(content: bytes) -> Reply | Fault:
    """Return the first choice's reply from an answer of status 200.

    A refusal counts as the reply's text. So does an empty text that was cut off or filtered, because a retry would
    give the same. An empty text without such a reason is a fault.
    """
    try:
        body = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Fault("not UTF-8", f"the answer is not UTF-8 ({error.reason} at byte {error.start} of {len(content)})")
    except (ValueError, RecursionError) as error:
        return Fault("invalid JSON", f"the answer, of {len(content)} bytes, is not JSON ({error})")
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        why = body.get("error") if isinstance(body, dict) else None
        return Fault("no choices", "the answer has no choices" + (f": {error_message(why)}" if why else ""))
    message, finish = choice.get("message"), str(choice.get("finish_reason") or "stop")
    texts = [message.get("content"), message.get("refusal")] if isinstance(message, dict) else []
    text = next((text for text in texts if isinstance(text, str)), None)
    if text is None and finish not in ("length", "content_filter"):
        return Fault("no content", "the answer's message has no content")
    usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
    counts = (usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
    return Reply(encodable(text or ""), finish, *(n if isinstance(n, int) else 0 for n in counts))


def error_message(body: Any) -> str:
    """Return the message in an error's body, or all of it, on one line."""
    message = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(message or body).split())


def shortened(text: str) -> str:
    """Return the beginning of a text, for messages."""
    return text if len(text) <= QUOTED_CHARACTERS else text[:QUOTED_CHARACTERS] + "…"


def encodable(text: str) -> str:
    r"""Replace lone surrogates (``"\ud800"``), which JSON can spell and UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
