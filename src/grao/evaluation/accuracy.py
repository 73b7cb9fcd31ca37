"""Accuracy by the number of tries: pass@k and maj@k of a scorer whose scores are 0 and 1."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from grao.evaluation.evaluation_metric import Metric, proportion
from grao.evaluation.items import Item, ItemsByPrompt, score_reader
from grao.rewards.final_answer import final_answer, plain, read_number

MajorityTies = Literal["expectation", "first"]
"""Which of several answers with the most votes wins: a random one (by its expectation, nothing is drawn), or the one
that came first."""

Scored = Sequence[tuple[Item, float]]
"""The scored answers to a prompt, in the order of the samples."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy of one verifiable scorer by the number of tries k."""

    pass_at: Mapping[int, Metric]
    """Probability that at least one of k answers is right."""
    majority_at: Mapping[int, Metric]
    """Probability that the most frequent final answer of k is right."""


def pass_at_k(n: int, c: int, k: int) -> float:
    """Estimate the probability that at least one of k answers is right, without bias, from n answers with c right.

        1 − C(n−c, k) / C(n, k)

    the share of subsets of k among the n that hold a right one (M. Chen et al., 2021, arXiv 2107.03374, Eq. 1).

    Raises:
        ValueError: not 1 ≤ k ≤ n or not 0 ≤ c ≤ n.
    """
    if not 1 <= k <= n or not 0 <= c <= n:
        raise ValueError(f"pass@{k} of {c} right answers among {n}: need 1 ≤ k ≤ n and 0 ≤ c ≤ n")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def majority_is_right(votes: Sequence[tuple[str, float]], ties: MajorityTies = "expectation") -> float:
    """Return the mean score of the votes for the most frequent answer, 0 without votes.

    `votes` are the final answers of the samples with their scores.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for answer, score in votes:
        scores[answer].append(score)
    most = max(map(len, scores.values()), default=0)
    tied = [sum(own) / len(own) for own in scores.values() if len(own) == most]
    if not tied:
        return 0.0
    return tied[0] if ties == "first" else sum(tied) / len(tied)


def accuracy(
    prompts: ItemsByPrompt, scorer: str, k: Sequence[int] = (1,), majority_ties: MajorityTies = "expectation"
) -> Accuracy:
    """Return pass@k and maj@k for every k, as means over prompts.

    Prompts with fewer than k scored answers are left out; `unscored` counts their answers too. The scored samples of
    a prompt vote in blocks of k, in their order, and its maj@k is the mean of the ⌊n/k⌋ blocks.

    Raises:
        ValueError: k is below 1.
    """
    if any(tries < 1 for tries in k):
        raise ValueError(f"k = {list(k)}: pass@k and maj@k need k of 1 or more")
    read = score_reader(scorer)
    scored = [[(item, score) for item in items if (score := read(item)) is not None] for items in prompts.values()]
    answers = sum(len(items) for items in prompts.values())
    graded = next((score for own in scored for _, score in own if score not in (0, 1)), None)
    if graded is not None:
        none = Metric.missing(f"{scorer} gave the score {graded:g}: accuracy needs scores of 0 and 1", answers)
        return Accuracy(dict.fromkeys(k, none), dict.fromkeys(k, none))

    def mean(tries: int, value: Callable[[Scored, int], float]) -> Metric:
        enough = [own for own in scored if len(own) >= tries]
        units = sum(len(own) for own in enough)
        empty = f"no prompt has {'an answer' if tries == 1 else f'{tries} answers'} scored by {scorer}"
        return proportion([value(own, tries) for own in enough], units=units, unscored=answers - units, empty=empty)

    def passed(own: Scored, tries: int) -> float:
        return pass_at_k(len(own), sum(score == 1 for _, score in own), tries)

    def majority(own: Scored, tries: int) -> float:
        blocks = [own[start : start + tries] for start in range(0, len(own) - tries + 1, tries)]
        return sum(majority_is_right(_votes(block), majority_ties) for block in blocks) / len(blocks)

    return Accuracy({tries: mean(tries, passed) for tries in k}, {tries: mean(tries, majority) for tries in k})


def _votes(scored: Scored) -> list[tuple[str, float]]:
    """Return final answers and scores. Samples without an answer abstain; if none has one, the whole texts vote."""
    found = [(_canonical(final_answer(item.answer)), score) for item, score in scored]
    if all(answer is None for answer, _ in found):
        found = [(" ".join(item.answer.split()), score) for item, score in scored]
    return [(answer, score) for answer, score in found if answer]


def _canonical(answer: str | None) -> str | None:
    """Spell equal answers alike: numbers exactly, anything else without typesetting and white space."""
    if answer is None:
        return None
    number = read_number(answer)
    if number is not None:
        return f"{number.value}%" if number.percent else str(number.value)
    return re.sub(r"\s+", "", plain(answer))
