"""Answers compared with their references, and two models compared on the same prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from grao.evaluation.evaluation_metric import Bootstrap, Metric, proportion
from grao.evaluation.items import ItemsByPrompt, ValuesByPrompt, finite, score_reader
from grao.evaluation.ras_nag import WinTieLoss, compare

NO_BASE = "no base to compare with"
NOTHING_SHARED = "no prompt is scored for both models"


class AgainstReferences(NamedTuple):
    """How often answers have a higher reward than their references."""

    counts: WinTieLoss
    ras: Metric
    ras_ties_half: Metric


class AgainstBase(NamedTuple):
    """How answers compare with the base model's answers to the same prompts."""

    nag: Metric
    nag_win: Metric
    gain: Metric


def against_references(prompts: ItemsByPrompt, bootstrap: Bootstrap) -> AgainstReferences:
    """Compare each answer with its reference: counts, and RAS in both readings (`grao.evaluation.ras_nag`).

    The value of a prompt is the mean over its answers; all prompts have the same weight.
    """
    pairs = [
        compare([finite(item.reward) for item in items], [finite(item.reference_reward) for item in items])
        for items in prompts.values()
    ]
    compared = [own for own in pairs if own.n]
    total = WinTieLoss(*(sum(getattr(own, name) for own in compared) for name in ("wins", "ties", "losses")))
    unscored = sum(len(items) for items in prompts.values()) - total.n
    empty = "no answer and its reference are both scored"
    return AgainstReferences(
        replace(total, unscored=unscored),
        proportion([own.win_share for own in compared], units=total.n, unscored=unscored, empty=empty),
        bootstrap.mean([own.half_tie_share for own in compared], unscored=unscored, empty=empty),
    )


def against_base(prompts: ItemsByPrompt, base: ItemsByPrompt | None, bootstrap: Bootstrap) -> AgainstBase:
    """Return NAG in both readings and the difference in mean reward, over the prompts scored for both models.

    The value of a prompt is the mean over all pairs of an answer of one model and an answer of the other; all prompts
    have the same weight.
    """
    if base is None:
        return AgainstBase(*[Metric.missing(NO_BASE)] * 3)
    own = ValuesByPrompt.read(prompts, score_reader())
    others = ValuesByPrompt.read({row: items for row, items in base.items() if row in prompts}, score_reader())
    shared, unscored = _shared(own, others), _unpaired(own, others)
    pairs = [WinTieLoss.count([(a, b) for a in own.by_row[row] for b in others.by_row[row]]) for row in shared]
    units = sum(len(own.by_row[row]) for row in shared)
    return AgainstBase(
        bootstrap.mean([prompt.net_share for prompt in pairs], unscored=unscored, empty=NOTHING_SHARED),
        proportion([prompt.win_share for prompt in pairs], units=units, unscored=unscored, empty=NOTHING_SHARED),
        difference(own, others, bootstrap),
    )


def difference(a: ValuesByPrompt, b: ValuesByPrompt, bootstrap: Bootstrap) -> Metric:
    """Return the mean over shared prompts of (mean of a's numbers − mean of b's): paired by prompt."""
    gains = [float(np.mean(a.by_row[row]) - np.mean(b.by_row[row])) for row in _shared(a, b)]
    return bootstrap.mean(gains, unscored=_unpaired(a, b), empty=NOTHING_SHARED)


def _shared(a: ValuesByPrompt, b: ValuesByPrompt) -> list[int]:
    return [row for row in a.by_row if row in b.by_row]


def _unpaired(a: ValuesByPrompt, b: ValuesByPrompt) -> int:
    """Count answers of either side that have no number, or no answer of the other side to compare with."""
    shared = set(_shared(a, b))
    alone = sum(len(values) for side in (a, b) for row, values in side.by_row.items() if row not in shared)
    return a.missing + b.missing + alone
