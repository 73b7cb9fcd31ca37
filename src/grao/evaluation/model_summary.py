"""All metrics of one model, from its answers: against the references, against the base, by category."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from grao.evaluation.accuracy import Accuracy, MajorityTies, accuracy
from grao.evaluation.distinct_ngrams import distinct
from grao.evaluation.evaluation_metric import Bootstrap, Metric, proportion
from grao.evaluation.items import Item, ItemsByPrompt, ValuesByPrompt, finite, group_by_prompt, score_reader
from grao.evaluation.model_comparison import against_base, against_references, difference
from grao.evaluation.ras_nag import WinTieLoss
from grao.evaluation.refusals import refuses

DISTINCT = (1, 2)
"""n of distinct-n."""
NO_CATEGORY = "(none)"
"""Category of prompts without one, if others have one."""
NO_ANSWERS = "no answers"


@dataclass(frozen=True, slots=True)
class Distribution:
    """One number per answer: its mean and its spread over the answers."""

    mean: Metric
    variance: float | None
    """Over the answers that have the number; None without any."""
    quartiles: tuple[float, float, float] | None
    """25, 50 and 75 % of the answers, linear between answers."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the answers are."""

    tokens: Distribution
    limited: Metric
    """Share of answers that reached the length limit."""
    characters: Metric
    """Characters of the answers per character of their references."""
    words: Metric
    """The same in words (separated by white space)."""


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """All metrics of one model over some prompts; docs/evaluation.md defines each."""

    prompts: int
    answers: int
    unscored: int
    """Answers without a (finite) reward."""
    reward: Distribution
    scores: Mapping[str, Distribution]
    """By scorer, unweighted."""
    counts: WinTieLoss
    ras: Metric
    ras_ties_half: Metric
    nag: Metric
    nag_win: Metric
    gain: Metric
    """Mean reward minus that of the base's answers to the same prompts: paired."""
    accuracy: Mapping[str, Accuracy]
    """By verifiable scorer."""
    kl: Metric
    """To the base, in nats per answer."""
    lengths: Lengths
    distinct: Mapping[int, Metric]
    """By n: different n-grams of words per word, over all answers."""
    refusals: Metric


@dataclass(frozen=True, slots=True)
class Summary:
    """Metrics of one model: over all prompts, and over the prompts of each category if the data has categories."""

    all: ModelMetrics
    by_category: Mapping[str, ModelMetrics]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: nested dictionaries with text keys, None for missing values."""
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
    """Compute all metrics of one model.

    A metric that cannot be computed has no value and says why. Nothing is raised for scores that are missing, not
    finite or out of range.

    Args:
        items: the model's answers, one or several per prompt (`Item.row`).
        base: the base model's answers to the same rows, for NAG and the gain; None for the base itself.
        verifiable: names of scorers with scores 1 (right) and 0 (wrong), for pass@k and maj@k.
        k: tries for pass@k and maj@k.
        majority_ties: which answer wins if several have the most votes.
        resamples: of every bootstrap.
        seed: of every bootstrap; the same data and seed give the same intervals.

    Raises:
        ValueError: an answer (row, sample) appears twice, or k is below 1.
    """
    bootstrap = Bootstrap(resamples, seed)
    prompts, others = group_by_prompt(items), None if base is None else group_by_prompt(base)
    scorers = dict.fromkeys(name for own in prompts.values() for item in own for name in item.scores)

    def metrics(some: ItemsByPrompt) -> ModelMetrics:
        counts, ras, ras_ties_half = against_references(some, bootstrap)
        nag, nag_win, gain = against_base(some, others, bootstrap)
        rewards = ValuesByPrompt.read(some, score_reader())
        scores = {name: ValuesByPrompt.read(some, score_reader(name)) for name in scorers}
        return ModelMetrics(
            prompts=len(some),
            answers=sum(len(own) for own in some.values()),
            unscored=rewards.missing,
            reward=_distribution(rewards, bootstrap, "no answer has a reward"),
            scores={n: _distribution(own, bootstrap, f"no answer is scored by {n}") for n, own in scores.items()},
            counts=counts,
            ras=ras,
            ras_ties_half=ras_ties_half,
            nag=nag,
            nag_win=nag_win,
            gain=gain,
            accuracy={name: accuracy(some, name, k, majority_ties) for name in verifiable},
            kl=_kl(some, bootstrap),
            lengths=Lengths(
                tokens=_distribution(ValuesByPrompt.read(some, lambda i: float(i.tokens)), bootstrap, NO_ANSWERS),
                limited=_share(some, lambda item: item.finish == "length"),
                characters=_relative_length(some, len, bootstrap),
                words=_relative_length(some, lambda text: len(text.split()), bootstrap),
            ),
            distinct={n: distinct(some, n) for n in DISTINCT},
            refusals=_share(some, lambda item: refuses(item.answer)),
        )

    return Summary(metrics(prompts), {name: metrics(some) for name, some in _categories(prompts).items()})


def differences(
    models: Mapping[str, Sequence[Item]], *, scorer: str | None = None, resamples: int = 2000, seed: int = 0
) -> dict[tuple[str, str], Metric]:
    """Return how much higher the mean reward of the first model of each pair is, on the same prompts.

    The mean over prompts of (mean over the first's answers − mean over the second's), with a bootstrap interval over
    prompts. The intervals are 95 % each, not adjusted for their number.

    Args:
        models: answers by model; pairs are (later, earlier) in this order, so put the base first.
        scorer: compare the scores of this scorer instead of rewards.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    values = {name: ValuesByPrompt.read(group_by_prompt(own), score_reader(scorer)) for name, own in models.items()}
    return {
        (later, earlier): difference(values[later], values[earlier], Bootstrap(resamples, seed))
        for index, later in enumerate(values)
        for earlier in list(values)[:index]
    }


def _distribution(values: ValuesByPrompt, bootstrap: Bootstrap, empty: str) -> Distribution:
    mean = bootstrap.mean(values.sums, values.sizes, unscored=values.missing, empty=empty)
    if not values.by_row:
        return Distribution(mean, None, None)
    low, middle, high = np.quantile(values.flat, [0.25, 0.5, 0.75]).tolist()
    return Distribution(mean, float(np.var(values.flat)), (low, middle, high))


def _kl(prompts: ItemsByPrompt, bootstrap: Bootstrap) -> Metric:
    """Average one number per prompt. Only sample 0 has a KL, so `unscored` counts prompts, not answers."""
    values = ValuesByPrompt.read(prompts, lambda item: finite(item.kl))
    missing = len(prompts) - len(values.by_row)
    return bootstrap.mean(values.sums, values.sizes, unscored=missing, empty="the KL was not measured")


def _relative_length(prompts: ItemsByPrompt, length: Callable[[str], int], bootstrap: Bootstrap) -> Metric:
    """Return Σ length of the answers / Σ length of their references, over answers with a non-empty reference."""
    pairs = [
        [(length(item.answer), length(item.reference)) for item in items if item.reference and length(item.reference)]
        for items in prompts.values()
    ]
    left_out = sum(len(items) for items in prompts.values()) - sum(len(own) for own in pairs)
    return bootstrap.mean(
        [sum(answer for answer, _ in own) for own in pairs if own],
        [sum(reference for _, reference in own) for own in pairs if own],
        unscored=left_out,
        empty="no answer has a reference to be measured by",
    )


def _share(prompts: ItemsByPrompt, holds: Callable[[Item], bool]) -> Metric:
    """Return the share of all answers for which `holds` is true."""
    values = ValuesByPrompt.read(prompts, lambda item: float(holds(item)))
    return proportion(values.sums, values.sizes, empty=NO_ANSWERS)


def _categories(prompts: ItemsByPrompt) -> dict[str, ItemsByPrompt]:
    """Group prompts by category, sorted by name; empty if no prompt has a category."""
    found: dict[str, dict[int, Sequence[Item]]] = {}
    for row, items in prompts.items():
        found.setdefault(items[0].category or NO_CATEGORY, {})[row] = items
    return {} if list(found) in ([], [NO_CATEGORY]) else {name: found[name] for name in sorted(found)}


def _with_text_keys(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _with_text_keys(value) for key, value in data.items()}
    return data
