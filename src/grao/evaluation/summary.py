"""All figures of one model, from the answers that it gave: against the references, against the base, by category."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from grao.evaluation.figure import Figure
from grao.evaluation.items import Item


@dataclass(frozen=True, slots=True)
class Distribution:
    """One number an answer: its mean, and how it spreads over the answers."""

    mean: Figure
    variance: float | None
    """Over the answers that have the number; None without any."""
    quartiles: tuple[float, float, float] | None
    """25 %, 50 % and 75 % of the answers lie at or below; linear between answers."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Pairs of answer and reference by who is rewarded more."""

    wins: int
    ties: int
    losses: int
    unscored: int
    """Answers that have a reference, one of the two without a reward."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a verifiable scorer finds answers right, by the number of tries."""

    pass_at: Mapping[int, Figure]
    """By k: the probability that one of k answers is right."""
    majority_at: Mapping[int, Figure]
    """By k: the probability that the most frequent final answer of k is right."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the answers are."""

    tokens: Distribution
    limited: Figure
    """Share of answers that met the length limit."""
    characters: Figure
    """Characters of the answers for each one of their references'."""
    words: Figure
    """The same in words (separated by white space)."""


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of one model over some prompts; docs/evaluation.md defines each."""

    prompts: int
    answers: int
    unscored: int
    """Answers without a (finite) reward."""
    reward: Distribution
    scores: Mapping[str, Distribution]
    """By scorer, unweighted."""
    counts: Counts
    ras: Figure
    ras_ties_half: Figure
    nag: Figure
    nag_win: Figure
    gain: Figure
    """How much more reward than the base's answers to the same prompts: paired."""
    accuracy: Mapping[str, Accuracy]
    """By verifiable scorer."""
    kl: Figure
    """Nats an answer, to the base."""
    lengths: Lengths
    distinct: Mapping[int, Figure]
    """By n: different n-grams of words for each word, over all answers."""
    refusals: Figure


@dataclass(frozen=True, slots=True)
class Summary:
    """One model: all prompts, and the prompts of each category (none where the data has no categories)."""

    all: Figures
    by_category: Mapping[str, Figures]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: nested dictionaries, a figure as its fields, None where something is missing."""
        return _with_text_keys(asdict(self))


def summarise(
    items: Sequence[Item],
    base: Sequence[Item] | None = None,
    *,
    verifiable: Collection[str] = (),
    k: Sequence[int] = (1,),
    resamples: int = 2000,
    seed: int = 0,
) -> Summary:
    """All figures of one model.

    What cannot be computed is a figure without a value that says why; nothing is raised for scores that are missing,
    not finite or out of range.

    Args:
        items: the model's answers, one or several a prompt (`Item.row`).
        base: the base model's answers to the same rows, for NAG and the gain; None where there is no base, or for the
            base itself.
        verifiable: names of the scorers that say right (1) or wrong (0), for pass@k and maj@k.
        k: tries for pass@k and maj@k.
        resamples: of every bootstrap.
        seed: of every bootstrap; the same data and seed give the same intervals.

    Raises:
        ValueError: an answer (row, sample) is there twice, or k is below 1.
    """
    raise NotImplementedError


def differences(
    models: Mapping[str, Sequence[Item]], *, scorer: str | None = None, resamples: int = 2000, seed: int = 0
) -> dict[tuple[str, str], Figure]:
    """How much more the first model of each pair is rewarded than the second on the same prompts.

    The mean over prompts of (mean over the first's answers − mean over the second's), its interval a bootstrap over
    prompts. The intervals are 95 % each, not adjusted for their number.

    Args:
        models: answers by model; pairs are (later, earlier) in this order, so that a base goes first.
        scorer: compare this scorer's scores in place of the rewards.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    raise NotImplementedError


def _with_text_keys(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _with_text_keys(value) for key, value in data.items()}
    return data
