"""How varied a model's answers are: distinct n-grams."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from grao.evaluation.evaluation_metric import ONE_PROMPT, Metric
from grao.evaluation.intervals import jackknife
from grao.evaluation.prompts import ItemsByPrompt

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def words(text: str) -> list[str]:
    """Lower-case words and single punctuation marks."""
    return _WORD.findall(text.lower())


def distinct(prompts: ItemsByPrompt, n: int) -> Metric:
    """distinct-n: different n-grams of words for each word, over all answers (J. Li et al., 2016, section 5.2).

        |{n-grams}| / number of words

    (J. Li, M. Galley, C. Brockett, J. Gao and B. Dolan, NAACL 2016, divide by the words for every n.) It falls with
    the amount of text, as new text repeats old words: compare models only on the same prompts and as many samples.
    The interval is a jackknife over prompts, that of the figure at this number of prompts: a bootstrap's resamples
    hold fewer different prompts, so all of them lie below the value.
    """
    counted = [_grams([words(item.answer) for item in items], n) for items in prompts.values()]
    grams, lengths = [own for own, _ in counted], np.array([length for _, length in counted], dtype=np.float64)
    holders = Counter(gram for own in grams for gram in own)
    total = float(lengths.sum())
    if not total:
        return Metric.missing("no answer holds a word")
    value = len(holders) / total
    if len(grams) == 1:
        return Metric.bare(value, 1, ONE_PROMPT)
    if (lengths == total).any():
        return Metric.bare(value, len(grams), "no interval: only one prompt's answers hold words")
    only_here = np.array([sum(holders[gram] == 1 for gram in own) for own in grams])
    found = jackknife(value, ((len(holders) - only_here) / (total - lengths)).tolist())
    return Metric(value, max(found.low, 0.0), min(found.high, 1.0), found.n, interval="jackknife")


def _grams(texts: list[list[str]], n: int) -> tuple[set[tuple[str, ...]], int]:
    """The different n-grams of a prompt's answers, and how many words these have."""
    return {tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)}, sum(map(len, texts))
