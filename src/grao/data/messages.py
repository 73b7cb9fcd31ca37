"""Conversations: lists of ``{"role": ..., "content": ...}`` turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grao.data.row import RowError, shown

ROLES = ("system", "developer", "user", "assistant", "tool")
"""Roles that chat templates know."""

Messages = list[dict[str, str]]


def read_messages(value: Any, name: str) -> Messages:
    """A conversation as a list of turns; keys without a value (as tables fill them in) are left out.

    Raises:
        RowError: says what is wrong with the conversation in column `name`.
    """
    problem = messages_problem(value, name)
    if problem is not None:
        raise RowError(problem)
    return [{key: item for key, item in turn.items() if item is not None} for turn in value]


def messages_problem(value: Any, name: str) -> str | None:
    """What is wrong with a conversation in column `name`; None where nothing is."""
    if not isinstance(value, list | tuple):
        return f"{name} must be text or a list of {{role, content}} messages, found {shown(value)}"
    if not value:
        return f"{name} is an empty list of messages"
    for place, turn in enumerate(value):
        problem = _turn_problem(turn)
        if problem is not None:
            return f"{name}, message {place}: {problem}"
    return None


def _turn_problem(turn: Any) -> str | None:
    if not isinstance(turn, Mapping):
        return f"expected {{role, content}}, found {shown(turn)}"
    missing = [key for key in ("role", "content") if turn.get(key) is None]
    if missing:
        return f"no {' and no '.join(missing)}; its keys are {', '.join(map(str, turn))}"
    if turn["role"] not in ROLES:
        return f"unknown role {turn['role']!r}; rename it to one of {', '.join(ROLES)}"
    if not isinstance(turn["content"], str):
        return f"content must be text, found {shown(turn['content'])}"
    return None


def split_answer(value: Any, name: str) -> tuple[Messages, str]:
    """An answer column as the turns before the last assistant turn (often none) and that turn's text.

    >>> split_answer("It is 7.", "reference")
    ([], 'It is 7.')
    >>> split_answer([{"role": "user", "content": "3 + 4?"}, {"role": "assistant", "content": "7"}], "chosen")
    ([{'role': 'user', 'content': '3 + 4?'}], '7')
    """
    if isinstance(value, str):
        return [], value
    messages = read_messages(value, name)
    if messages[-1]["role"] != "assistant":
        raise RowError(f"the last message of {name} must be the assistant's, found role {messages[-1]['role']!r}")
    return messages[:-1], messages[-1]["content"]
