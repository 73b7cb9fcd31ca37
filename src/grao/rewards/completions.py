"""The two shapes in which a reward function sees a completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grao.groups import Prompt

Completion = str | Sequence[dict[str, Any]]
"""Text, or ``[{"role": "assistant", "content": text}]`` when the prompt is a conversation."""


def as_completion(text: str, prompt: Prompt) -> Completion:
    """The text in the shape that goes with its prompt."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


def completion_text(completion: Completion) -> str:
    """The text of a completion of either shape; in a conversation, the content of its last turn.

    >>> completion_text("7"), completion_text([{"role": "assistant", "content": "7"}])
    ('7', '7')
    """
    return completion if isinstance(completion, str) else str(completion[-1]["content"])
