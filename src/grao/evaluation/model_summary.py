"""All figures of one model, from the answers that it gave: against the references, against the base, by category."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from grao.evaluation.accuracy import Accuracy, MajorityTies, accuracy
from grao.evaluation.distinct_ngrams import distinct
from grao.evaluation.evaluation_metric import Bootstrap, Metric, proportion
from grao.evaluation.items import Item
from grao.evaluation.model_comparison import Counts, against_base, against_references, difference
from grao.evaluation.prompts import ItemsByPrompt, ValuesByPrompt, finite, group_by_prompt, read, score_reader
from grao.evaluation.refusals import refuses

DISTINCT = (1, 2)
"""n of distinct-n."""
NO_CATEGORY = "(none)"
"""The category of prompts without one, where others have one."""
NO_ANSWERS = "no answers"


@dataclass(frozen=True, slots=True)
class Distribution:
    """One number an answer: its mean, and how it spreads over the answers."""

    mean: Metric
    variance: float | None
    """Over the answers that have the number; None without any."""
    quartiles: tuple[float, float, float] | None
    """25 %, 50 % and 75 % of the answers lie at or below; linear between answers."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the answers are."""

    tokens: Distribution
    limited: Metric
    """Share of answers that met the length limit."""
    characters: Metric
    """Characters of the answers for each one of their references'."""
    words: Metric
    """The same in words (separated by white space)."""


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """All figures of one model over some prompts; docs/evaluation.md defines each."""

    prompts: int
    answers: int
    unscored: int
    """Answers without a (finite) reward."""
    reward: Distribution
    scores: Mapping[str, Distribution]
    """By scorer, unweighted."""
    counts: Counts
    ras: Metric
    ras_ties_half: Metric
    nag: Metric
    nag_win: Metric
    gain: Metric
    """How much more reward than the base's answers to the same prompts: paired."""
    accuracy: Mapping[str, Accuracy]
    """By verifiable scorer."""
    kl: Metric
    """Nats an answer, to the base."""
    lengths: Lengths
    distinct: Mapping[int, Metric]
    """By n: different n-grams of words for each word, over all answers."""
    refusals: Metric


@dataclass(frozen=True, slots=True)
class Summary:
    """One model: all prompts, and the prompts of each category (none where the data has no categories)."""

    all: ModelMetrics
    by_category: Mapping[str, ModelMetrics]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: nested dictionaries, a figure as its fields, None where something is missing."""
        return _with_text_keys(asdict(self))


def summarise(
    items: Sequence[Item],
    base: Sequence[Item] | None = None,
    *,
    verifiable: Collection[str] = (),
    k: Sequence[int] = (1,),
    majority_ties: MajorityTies = "expectation",
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
        majority_ties: which answer is the majority's where several have the most votes.
        resamples: of every bootstrap.
        seed: of every bootstrap; the same data and seed give the same intervals.

    Raises:
        ValueError: an answer (row, sample) is there twice, or k is below 1.
    """
    bootstrap = Bootstrap(resamples, seed)
    prompts, others = group_by_prompt(items), None if base is None else group_by_prompt(base)

    def figures(some: ItemsByPrompt) -> ModelMetrics:
        to_references = against_references(some, bootstrap)
        to_base = against_base(some, others, bootstrap)
        return ModelMetrics(
            prompts=len(some),
            answers=sum(len(own) for own in some.values()),
            unscored=read(some, score_reader(None)).missing,
            reward=_distribution(read(some, score_reader(None)), bootstrap, "no answer has a reward"),
            scores={
                name: _distribution(read(some, score_reader(name)), bootstrap, f"no answer is scored by {name}")
                for name in _scorers(prompts)
            },
            counts=to_references.counts,
            ras=to_references.ras,
            ras_ties_half=to_references.ras_ties_half,
            nag=to_base.nag,
            nag_win=to_base.nag_win,
            gain=to_base.gain,
            accuracy={name: accuracy(some, name, k, majority_ties) for name in verifiable},
            kl=_kl(some, bootstrap),
            lengths=_lengths(some, bootstrap),
            distinct={n: distinct(some, n) for n in DISTINCT},
            refusals=_share(some, lambda item: refuses(item.answer)),
        )

    return Summary(figures(prompts), {name: figures(some) for name, some in _categories(prompts).items()})


def differences(
    models: Mapping[str, Sequence[Item]], *, scorer: str | None = None, resamples: int = 2000, seed: int = 0
) -> dict[tuple[str, str], Metric]:
    """How much more the first model of each pair is rewarded than the second on the same prompts.

    The mean over prompts of (mean over the first's answers − mean over the second's), its interval a bootstrap over
    prompts. The intervals are 95 % each, not adjusted for their number.

    Args:
        models: answers by model; pairs are (later, earlier) in this order, so that a base goes first.
        scorer: compare this scorer's scores in place of the rewards.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    bootstrap, number = Bootstrap(resamples, seed), score_reader(scorer)
    values = {name: read(group_by_prompt(items), number) for name, items in models.items()}
    names = list(values)
    return {
        (later, earlier): difference(values[later], values[earlier], bootstrap)
        for place, later in enumerate(names)
        for earlier in names[:place]
    }


def _distribution(values: ValuesByPrompt, bootstrap: Bootstrap, empty: str) -> Distribution:
    mean = bootstrap.mean(values.sums, values.sizes, unscored=values.missing, empty=empty)
    if not values.by_row:
        return Distribution(mean, None, None)
    low, middle, high = np.quantile(values.flat, [0.25, 0.5, 0.75]).tolist()
    return Distribution(mean, float(np.var(values.flat)), (low, middle, high))


def _kl(prompts: ItemsByPrompt, bootstrap: Bootstrap) -> Metric:
    """One number a prompt; a prompt without one counts as unscored, its other samples never have one."""
    values = read(prompts, lambda item: finite(item.kl))
    return bootstrap.mean(
        values.sums, values.sizes, unscored=len(prompts) - len(values.by_row), empty="the KL was not measured"
    )


def _lengths(prompts: ItemsByPrompt, bootstrap: Bootstrap) -> Lengths:
    return Lengths(
        tokens=_distribution(read(prompts, lambda item: float(item.tokens)), bootstrap, NO_ANSWERS),
        limited=_share(prompts, lambda item: item.finish == "length"),
        characters=_relative_length(prompts, len, bootstrap),
        words=_relative_length(prompts, lambda text: len(text.split()), bootstrap),
    )


def _relative_length(prompts: ItemsByPrompt, length: Callable[[str], int], bootstrap: Bootstrap) -> Metric:
    """Σ length of the answers / Σ length of their references, where a reference has any length."""
    pairs = [
        [(length(item.answer), length(item.reference)) for item in items if item.reference and length(item.reference)]
        for items in prompts.values()
    ]
    totals = [tuple(map(sum, zip(*own, strict=True))) for own in pairs if own]
    left_out = sum(len(items) for items in prompts.values()) - sum(len(own) for own in pairs)
    return bootstrap.mean(
        [answers for answers, _ in totals],
        [references for _, references in totals],
        unscored=left_out,
        empty="no answer has a reference to be measured by",
    )


def _share(prompts: ItemsByPrompt, holds: Callable[[Item], bool]) -> Metric:
    """Share of all answers of which something holds."""
    values = read(prompts, lambda item: float(holds(item)))
    return proportion(values.sums, values.sizes, empty=NO_ANSWERS)


def _scorers(prompts: ItemsByPrompt) -> list[str]:
    """Names of all scorers, in order of appearance."""
    return list(dict.fromkeys(name for items in prompts.values() for item in items for name in item.scores))


def _categories(prompts: ItemsByPrompt) -> dict[str, ItemsByPrompt]:
    """Prompts by category, in the order of the names; none where no prompt has one."""
    found: dict[str, dict[int, Sequence[Item]]] = {}
    for row, items in prompts.items():
        found.setdefault(items[0].category or NO_CATEGORY, {})[row] = items
    return {} if list(found) in ([], [NO_CATEGORY]) else {name: found[name] for name in sorted(found)}


def _with_text_keys(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _with_text_keys(value) for key, value in data.items()}
    return data
