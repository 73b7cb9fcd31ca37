"""How varied a model's answers are: distinct n-grams."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from grao.evaluation.evaluation_metric import ONE_PROMPT, Metric
from grao.evaluation.intervals import jackknife
from grao.evaluation.items import ItemsByPrompt

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def words(text: str) -> list[str]:
    """Split text into lower-case words and single punctuation marks."""
    return _WORD.findall(text.lower())


def distinct(prompts: ItemsByPrompt, n: int) -> Metric:
    """Return distinct-n: different n-grams of words per word, over all answers (J. Li et al., 2016, section 5.2).

        |{n-grams}| / number of words

    (J. Li, M. Galley, C. Brockett, J. Gao and B. Dolan, NAACL 2016, divide by the words for every n.) It falls with
    the amount of text, as new text repeats old words: compare models only on the same prompts with as many samples.
    The interval is a jackknife over prompts. A bootstrap would not work: its resamples hold fewer different prompts,
    so all of them lie below the value.
    """
    texts = [[words(item.answer) for item in items] for items in prompts.values()]
    grams = [{tuple(text[i : i + n]) for text in own for i in range(len(text) - n + 1)} for own in texts]
    lengths = np.array([sum(map(len, own)) for own in texts], dtype=np.float64)
    holders = Counter(gram for own in grams for gram in own)
    total = float(lengths.sum())
    if not total:
        return Metric.missing("no answer holds a word")
    value = len(holders) / total
    if len(grams) == 1:
        return Metric.without_interval(value, 1, ONE_PROMPT)
    if (lengths == total).any():
        return Metric.without_interval(value, len(grams), "no interval: only one prompt's answers hold words")
    only_here = np.array([sum(holders[gram] == 1 for gram in own) for own in grams])
    found = jackknife(value, ((len(holders) - only_here) / (total - lengths)).tolist())
    return Metric(value, max(found.low, 0.0), min(found.high, 1.0), found.n, interval="jackknife")
