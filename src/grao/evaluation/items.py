"""Items: one answer of a model with everything measured on it. All metrics are computed from items, by prompt."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grao.groups import Finish, Group, Prompt

MAX_SCORE = 1e140
"""Larger numbers count as missing: their squares, added up, would overflow."""


@dataclass(frozen=True, slots=True)
class Item:
    """One answer. Several samples of a prompt are several items of the same `row`.

    Example::

        Item(row=17, sample=0, prompt="3 + 4 =", answer=" 7", reference=" 7", category="sums", tokens=2,
             finish="stop", scores={"math": 1.0}, reference_scores={"math": 1.0}, reward=1.0, reference_reward=1.0)
    """

    row: int
    """Row of the data set."""
    sample: int
    """0, 1, … among the answers to this prompt."""
    prompt: Prompt
    answer: str
    reference: str | None
    category: str | None
    """Category of the prompt, if the data has a column for it."""
    tokens: int
    """Length of the answer, end-of-sequence included."""
    finish: Finish
    """``"stop"``, or ``"length"`` if the answer reached the length limit."""
    reward: float | None = None
    """Weighted sum over the scorers; None = unscored."""
    reference_reward: float | None = None
    """Reward of the reference answer; 0 by definition if every scorer compares with it."""
    scores: Mapping[str, float | None] = field(default_factory=dict)
    """Score of each scorer by name, unweighted."""
    reference_scores: Mapping[str, float | None] = field(default_factory=dict)
    kl: float | None = None
    """Σ_t k3 of the model against the base on an answer drawn at temperature 1, in nats; only on sample 0."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """What scorers logged beside the score (`log_extra`), by column."""


def items_of(
    groups: Sequence[Group], *, category_column: str | None = None, kl: Sequence[float] | None = None
) -> list[Item]:
    """Return one item per sample, in order.

    Args:
        groups: scored; each prompt with its samples and its reference.
        category_column: column with the category of the prompt; None = no categories.
        kl: one number per group, for its first sample.
    """
    return [
        Item(
            row=group.row,
            sample=number,
            prompt=group.prompt,
            answer=sample.text,
            reference=None if group.reference is None else group.reference.text,
            category=_category(group, category_column),
            tokens=sample.length,
            finish=sample.finish,
            reward=sample.reward,
            reference_reward=None if group.reference is None else group.reference.reward,
            scores=sample.rewards,
            reference_scores={} if group.reference is None else group.reference.rewards,
            kl=None if kl is None or number > 0 else kl[index],
            extras=sample.extras,
        )
        for index, group in enumerate(groups)
        for number, sample in enumerate(group.samples)
    ]


def _category(group: Group, column: str | None) -> str | None:
    value = None if column is None else group.columns.get(column)
    return None if value is None else str(value)


ItemsByPrompt = Mapping[int, Sequence[Item]]
"""The answers to each prompt by its row, in order of rows and samples: metrics do not depend on the items' order."""


def group_by_prompt(items: Iterable[Item]) -> ItemsByPrompt:
    """Group items by row.

    Raises:
        ValueError: the same (row, sample) appears twice and would count twice.
    """
    prompts: dict[int, list[Item]] = {}
    for item in sorted(items, key=lambda item: (item.row, item.sample)):
        answers = prompts.setdefault(item.row, [])
        if answers and answers[-1].sample == item.sample:
            raise ValueError(f"sample {item.sample} of row {item.row} appears twice; give every answer once")
        answers.append(item)
    return prompts


def finite(value: float | None) -> float | None:
    """Return the number, or None if it is missing, NaN, ±∞ or beyond `MAX_SCORE`."""
    return value if value is not None and abs(value) < MAX_SCORE else None


def score_reader(scorer: str | None = None) -> Callable[[Item], float | None]:
    """Return a function that reads a scorer's score of an answer, or its reward if `scorer` is None."""
    return lambda item: finite(item.reward if scorer is None else item.scores.get(scorer))


@dataclass(frozen=True, slots=True)
class ValuesByPrompt:
    """One number per answer, grouped by prompt."""

    by_row: Mapping[int, Sequence[float]]
    """Prompts with at least one number."""
    missing: int
    """Answers without a number."""

    @classmethod
    def read(cls, prompts: ItemsByPrompt, value_of: Callable[[Item], float | None]) -> ValuesByPrompt:
        """Read one number of every answer; None counts as missing."""
        found = {row: [v for item in items if (v := value_of(item)) is not None] for row, items in prompts.items()}
        missing = sum(len(prompts[row]) - len(values) for row, values in found.items())
        return cls({row: values for row, values in found.items() if values}, missing)

    @property
    def flat(self) -> list[float]:
        """The numbers of all answers."""
        return [value for values in self.by_row.values() for value in values]

    @property
    def sums(self) -> list[float]:
        """Sum per prompt."""
        return [math.fsum(values) for values in self.by_row.values()]

    @property
    def sizes(self) -> list[int]:
        """Number of values per prompt."""
        return [len(values) for values in self.by_row.values()]
