"""The body of a chat completion: the reply in it, or what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from grao.rewards.endpoint.reply_cache import Reply

QUOTED = 300
"""Characters of what an endpoint says that a message quotes."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A request that failed for a reason that may pass: it is sent again."""

    kind: str
    """What it is counted under: ``"timeout"``, ``"connection"``, ``"status 503"``, ``"invalid JSON"``, …"""
    detail: str
    retry_after: float | None = None
    """Seconds, where the endpoint said when to come back."""


def read_body(content: bytes) -> Reply | Fault:
    """The first choice's reply, from an answer of status 200.

    A refusal counts as the reply's text. So does an empty one that was cut off or filtered: it would be no other the
    next time. An empty one without such a reason is a fault.
    """
    try:
        body = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Fault("not UTF-8", f"the answer is not UTF-8 ({error.reason} at byte {error.start} of {len(content)})")
    except (ValueError, RecursionError) as error:
        return Fault("invalid JSON", f"the answer, of {len(content)} bytes, is not JSON ({error})")
    choice = _first_choice(body)
    if choice is None:
        said = body.get("error") if isinstance(body, dict) else None
        return Fault("no choices", "the answer has no choices" + (f": {stated(said)}" if said else ""))
    finish, text = str(choice.get("finish_reason") or "stop"), _text(choice)
    if text is None and finish not in ("length", "content_filter"):
        return Fault("no content", "the answer's message has no content")
    usage = body.get("usage")
    return Reply(_storable(text or ""), finish, _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))


def stated(said: Any) -> str:
    """What an endpoint said, on one line: the message of an error's body, or all of it."""
    message = said.get("message") if isinstance(said, dict) else None
    return " ".join(str(message or said).split())


def cut(text: str) -> str:
    """The beginning of a text, as messages quote it."""
    return text if len(text) <= QUOTED else text[:QUOTED] + "…"


def _first_choice(body: Any) -> dict[str, Any] | None:
    choices = body.get("choices") if isinstance(body, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


def _text(choice: dict[str, Any]) -> str | None:
    message = choice.get("message")
    found = [message.get("content"), message.get("refusal")] if isinstance(message, dict) else []
    return next((text for text in found if isinstance(text, str)), None)


def _count(usage: Any, name: str) -> int:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if isinstance(found, int) else 0


def _storable(text: str) -> str:
    r"""JSON can spell half a character (``"\ud800"``), which UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
