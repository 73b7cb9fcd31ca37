"""Conversations: lists of ``{"role": ..., "content": ...}`` messages, checked, and written by a chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from grao.data.example import RowError, describe_value

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("system", "developer", "user", "assistant", "tool")
"""Roles that chat templates know."""

Messages = list[dict[str, str]]

PROBE = "probe-answer"


def read_messages(value: Any, name: str) -> Messages:
    """Return the conversation in column `name`, without the null-valued keys that tables add.

    Raises:
        RowError: The value is not a conversation.
    """
    if not isinstance(value, list | tuple):
        raise RowError(f"{name} must be text or a list of {{role, content}} messages, found {describe_value(value)}")
    if not value:
        raise RowError(f"{name} is an empty list of messages")
    for index, message in enumerate(value):
        where = f"{name}, message {index}"
        if not isinstance(message, Mapping):
            raise RowError(f"{where}: expected {{role, content}}, found {describe_value(message)}")
        missing = [key for key in ("role", "content") if message.get(key) is None]
        if missing:
            keys = ", ".join(map(str, message)) or "none"
            raise RowError(f"{where}: no {' and no '.join(missing)}, found the keys {keys}")
        if message["role"] not in ROLES:
            raise RowError(f"{where}: unknown role {message['role']!r}. Use one of {', '.join(ROLES)}")
        if not isinstance(message["content"], str):
            raise RowError(f"{where}: content must be text, found {describe_value(message['content'])}")
    return [{key: item for key, item in message.items() if item is not None} for message in value]


def split_answer(value: Any, name: str) -> tuple[Messages, str]:
    """Return the messages before the answer (none if the column is text), and the answer's text.

    >>> split_answer("It is 7.", "reference")
    ([], 'It is 7.')
    >>> split_answer([{"role": "user", "content": "3 + 4?"}, {"role": "assistant", "content": "7"}], "chosen")
    ([{'role': 'user', 'content': '3 + 4?'}], '7')
    """
    if isinstance(value, str):
        return [], value
    messages = read_messages(value, name)
    if messages[-1]["role"] != "assistant":
        raise RowError(f"the last message of {name} must have role 'assistant', found {messages[-1]['role']!r}")
    return messages[:-1], messages[-1]["content"]


def render(tokenizer: PreTrainedTokenizerBase, messages: Messages, *, for_answer: bool) -> str:
    """Return a conversation as the chat template writes it; `for_answer` adds the generation prompt.

    Raises:
        ValueError: The template rejects the conversation.
    """
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=for_answer))
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise ValueError(
            f"the chat template rejects a conversation with roles {roles}: {error}. "
            "Change the conversation or set another tokenizer.chat_template"
        ) from error


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what the chat template writes after an answer, such as ``"<|im_end|>"``, without white space."""
    messages = [{"role": "user", "content": "probe-question"}, {"role": "assistant", "content": PROBE}]
    return render(tokenizer, messages, for_answer=False).rpartition(PROBE)[2].strip()


def templated_answer(
    tokenizer: PreTrainedTokenizerBase, prompt: Messages, answer: str, end: str
) -> tuple[str, str | None]:
    """Return the whole templated conversation, and the part that the answer adds to the templated prompt.

    White space after `end`, the end of the turn, is left out: it belongs to the next turn, and a completion stops
    before it. The second value is None if the template writes an answered prompt differently (some templates open a
    thinking block for the answer and remove it from past turns), so that the answer does not continue the prompt.
    """
    whole = render(tokenizer, [*prompt, {"role": "assistant", "content": answer}], for_answer=False)
    if end:
        whole = whole.rstrip()
    opened = render(tokenizer, prompt, for_answer=True)
    return whole, whole[len(opened) :] if whole.startswith(opened) else None


def transcript(messages: Messages) -> str:
    r"""Return a conversation without a chat template, ending where the assistant answers.

    >>> transcript([{"role": "user", "content": "3 + 4?"}])
    'User: 3 + 4?\n\nAssistant:'
    """
    turns = [f"{message['role'].capitalize()}: {message['content']}" for message in messages]
    return "\n\n".join([*turns, "Assistant:"])
