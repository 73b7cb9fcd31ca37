"""A minimal reward function: any function with this signature works."""

from __future__ import annotations

import re

DECLINES = re.compile(r"\b(sorry|can't|cannot|won't|not sure|shouldn't|don't think)\b", re.IGNORECASE)
CARES = re.compile(r"\b(help|talk|understand|care|safe|please|thank)\w*\b", re.IGNORECASE)


def courteous(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """0.5 for declining and 0.5 for caring words, each counted once; 0 for an empty answer.

    A toy without a model; use a reward model or a judge for real alignment.
    """
    return [0.5 * bool(DECLINES.search(text)) + 0.5 * bool(CARES.search(text)) for text in completions]
