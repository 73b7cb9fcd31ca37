"""Answers against their references, and two models against each other, prompt by prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grao.evaluation.evaluation_metric import Bootstrap, Metric, proportion
from grao.evaluation.paired import compare, compare_all
from grao.evaluation.prompts import ItemsByPrompt, ValuesByPrompt, finite, read, score_reader
from grao.evaluation.ras_nag import half_tie_shares, net_shares, win_shares

NO_BASE = "no base to compare with"
NOTHING_SHARED = "no prompt is scored for both models"


@dataclass(frozen=True, slots=True)
class Counts:
    """Pairs of answer and reference by who is rewarded more."""

    wins: int
    ties: int
    losses: int
    unscored: int
    """Answers that are in none of them: their reward, or their reference's, is missing."""


@dataclass(frozen=True, slots=True)
class AgainstReferences:
    """How often answers are rewarded above their references."""

    counts: Counts
    ras: Metric
    ras_ties_half: Metric


@dataclass(frozen=True, slots=True)
class AgainstBase:
    """How answers compare with the base model's to the same prompts."""

    nag: Metric
    nag_win: Metric
    gain: Metric


def against_references(prompts: ItemsByPrompt, bootstrap: Bootstrap) -> AgainstReferences:
    """Counts, and RAS in both readings (`grao.evaluation.ras_nag`), from each answer's pair with its reference.

    A prompt's value is the mean over its answers, and prompts weigh alike.
    """
    pairs = [
        compare([finite(item.reward) for item in items], [finite(item.reference_reward) for item in items])
        for items in prompts.values()
    ]
    compared = [own for own in pairs if own.n]
    wins, ties, losses = (sum(column) for column in zip(*compared, strict=True)) if compared else (0, 0, 0)
    units = wins + ties + losses
    unscored = sum(len(items) for items in prompts.values()) - units
    empty = "no answer and its reference are both scored"
    return AgainstReferences(
        Counts(wins, ties, losses, unscored),
        proportion(win_shares(compared), units=units, unscored=unscored, empty=empty),
        bootstrap.mean(half_tie_shares(compared), unscored=unscored, empty=empty),
    )


def against_base(prompts: ItemsByPrompt, base: ItemsByPrompt | None, bootstrap: Bootstrap) -> AgainstBase:
    """NAG in both readings, and the difference of mean rewards, over the prompts that are scored for both models.

    A prompt's value is the mean over all pairs of an answer of the one model and one of the other; prompts weigh
    alike.
    """
    if base is None:
        none = Metric.missing(NO_BASE)
        return AgainstBase(none, none, none)
    own = read(prompts, score_reader(None))
    others = read({row: items for row, items in base.items() if row in prompts}, score_reader(None))
    shared, unscored = _shared(own, others), _unpaired(own, others)
    pairs = [compare_all(own.by_row[row], others.by_row[row]) for row in shared]
    units = sum(len(own.by_row[row]) for row in shared)
    return AgainstBase(
        bootstrap.mean(net_shares(pairs), unscored=unscored, empty=NOTHING_SHARED),
        proportion(win_shares(pairs), units=units, unscored=unscored, empty=NOTHING_SHARED),
        difference(own, others, bootstrap),
    )


def difference(a: ValuesByPrompt, b: ValuesByPrompt, bootstrap: Bootstrap) -> Metric:
    """Mean over shared prompts of (mean of a's numbers − mean of b's): paired by prompt."""
    gains = [float(np.mean(a.by_row[row]) - np.mean(b.by_row[row])) for row in _shared(a, b)]
    return bootstrap.mean(gains, unscored=_unpaired(a, b), empty=NOTHING_SHARED)


def _shared(a: ValuesByPrompt, b: ValuesByPrompt) -> list[int]:
    """Rows that both sides have a number for."""
    return [row for row in a.by_row if row in b.by_row]


def _unpaired(a: ValuesByPrompt, b: ValuesByPrompt) -> int:
    """Answers of either side without a number, or without an answer of the other side to be compared with."""
    shared = set(_shared(a, b))
    alone = sum(len(values) for side in (a, b) for row, values in side.by_row.items() if row not in shared)
    return a.missing + b.missing + alone
