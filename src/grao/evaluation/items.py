"""What one model answered to one prompt and everything measured on it: the row that every figure is computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grao.groups import Finish, Group, Prompt


@dataclass(frozen=True, slots=True)
class Item:
    """One answer. Several samples of a prompt are several items of the same `row`.

    Example::

        Item(row=17, sample=0, prompt="3 + 4 =", answer=" 7", reference=" 7", category="sums", tokens=2,
             finish="stop", scores={"math": 1.0}, reference_scores={"math": 1.0}, reward=1.0, reference_reward=1.0)
    """

    row: int
    """The row of the data set."""
    sample: int
    """0, 1, … among the answers to this prompt."""
    prompt: Prompt
    answer: str
    reference: str | None
    category: str | None
    """Of the prompt, where the data has a column for it."""
    tokens: int
    """Of the answer, its end included."""
    finish: Finish
    """``"stop"`` or, where the answer met the length limit, ``"length"``."""
    reward: float | None = None
    """Weighted sum over the scorers; None = unscored."""
    reference_reward: float | None = None
    """The same of the reference answer; 0 by definition where every scorer compares with it."""
    scores: Mapping[str, float | None] = field(default_factory=dict)
    """What each scorer said, by name, unweighted."""
    reference_scores: Mapping[str, float | None] = field(default_factory=dict)
    kl: float | None = None
    """Σ_t k3 of the model against the base on an answer drawn at temperature 1, in nats; one a prompt (sample 0)."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """What scorers noted beside the score (`log_extra`), by column."""


def items_of(
    groups: Sequence[Group], *, category_column: str | None = None, kl: Sequence[float | None] | None = None
) -> list[Item]:
    """One item a sample of these scored groups, in order.

    Args:
        groups: scored; each prompt with its samples and its reference.
        category_column: names the column that says what kind of prompt it is; None = no categories.
        kl: one number a group, for its first sample.
    """
    return [
        Item(
            row=group.row,
            sample=number,
            prompt=group.prompt,
            answer=sample.text,
            reference=None if group.reference is None else group.reference.text,
            category=_category(group, category_column),
            tokens=len(sample.ids),
            finish=sample.finish,
            reward=sample.reward,
            reference_reward=None if group.reference is None else group.reference.reward,
            scores=sample.rewards,
            reference_scores={} if group.reference is None else group.reference.rewards,
            kl=None if kl is None or number > 0 else kl[place],
            extras=sample.extras,
        )
        for place, group in enumerate(groups)
        for number, sample in enumerate(group.samples)
    ]


def _category(group: Group, column: str | None) -> str | None:
    value = None if column is None else group.columns.get(column)
    return None if value is None else str(value)
