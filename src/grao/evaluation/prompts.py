"""Answers by prompt: prompts are drawn independently, the answers to one are not, so prompts carry the intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from grao.evaluation.items import Item

ItemsByPrompt = Mapping[int, Sequence[Item]]
"""The answers to each prompt by its row, in order of rows and samples: figures do not depend on the items' order."""

LARGEST = 1e140
"""Numbers from here on are not scores: their squares, added up, would overflow."""


def group_by_prompt(items: Iterable[Item]) -> ItemsByPrompt:
    """Items by row.

    Raises:
        ValueError: an answer (row, sample) is there twice, so that it would count twice.
    """
    prompts: dict[int, list[Item]] = {}
    last: tuple[int, int] | None = None
    for item in sorted(items, key=lambda item: (item.row, item.sample)):
        if (item.row, item.sample) == last:
            raise ValueError(f"sample {item.sample} of row {item.row} is there twice; give every answer once")
        last = item.row, item.sample
        prompts.setdefault(item.row, []).append(item)
    return prompts


def finite(value: float | None) -> float | None:
    """The number, or None where there is none: NaN and ±∞ say as little as a missing score, and so does what is so
    large that no variance could be computed from it."""
    return value if value is not None and abs(value) < LARGEST else None


def score_reader(scorer: str | None) -> Callable[[Item], float | None]:
    """Reads what a scorer said of an answer; its reward if None."""
    return lambda item: finite(item.reward if scorer is None else item.scores.get(scorer))


@dataclass(frozen=True, slots=True)
class ValuesByPrompt:
    """One number an answer, by prompt."""

    by_row: Mapping[int, Sequence[float]]
    """Prompts with at least one number."""
    missing: int
    """Answers without one."""

    @property
    def flat(self) -> list[float]:
        """The numbers of all answers."""
        return [value for values in self.by_row.values() for value in values]

    @property
    def sums(self) -> list[float]:
        """Of each prompt."""
        return [math.fsum(values) for values in self.by_row.values()]

    @property
    def sizes(self) -> list[int]:
        """Numbers of each prompt."""
        return [len(values) for values in self.by_row.values()]


def read(prompts: ItemsByPrompt, number: Callable[[Item], float | None]) -> ValuesByPrompt:
    """One number of every answer, those left out and counted that have none."""
    every = {row: [number(item) for item in items] for row, items in prompts.items()}
    found = {row: [value for value in values if value is not None] for row, values in every.items()}
    answers = sum(len(values) for values in every.values())
    return ValuesByPrompt(
        {row: values for row, values in found.items() if values},
        answers - sum(len(values) for values in found.values()),
    )
