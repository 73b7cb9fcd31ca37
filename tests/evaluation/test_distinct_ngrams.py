"""distinct-n."""

from __future__ import annotations

import math

import numpy as np
import pytest

from grao.evaluation import Item
from grao.evaluation.distinct_ngrams import distinct, words
from grao.evaluation.items import ItemsByPrompt, group_by_prompt


def answered(*answers: list[str]) -> ItemsByPrompt:
    """One list of samples a prompt."""
    return group_by_prompt(
        Item(row, sample, "", text, None, None, 1, "stop")
        for row, own in enumerate(answers)
        for sample, text in enumerate(own)
    )


def test_words() -> None:
    """Oracle: split by hand."""
    assert words("It's  RED, isn’t it?\n") == ["it's", "red", ",", "isn’t", "it", "?"]


def test_by_hand() -> None:
    """Oracle: "a b a", "b a" and "c": 3 different words and 2 different pairs (a b, b a) for 6 words."""
    prompts = answered(["a b a", "b A"], ["c"])
    assert distinct(prompts, 1).value == 3 / 6
    assert distinct(prompts, 2).value == 2 / 6


def test_pairs_do_not_reach_over_answers() -> None:
    """Oracle: two answers of one word each have no pair."""
    assert distinct(answered(["a", "b"], ["c"]), 2).value == 0


@pytest.mark.parametrize("n", [1, 2])
def test_the_interval_agrees_with_prompts_really_left_out(n: int) -> None:
    """Oracle: the jackknife as a loop: distinct-n of the other prompts, by sets; t of 7 degrees from a table."""
    g = np.random.Generator(np.random.Philox(0))
    texts = [[" ".join(map(str, g.integers(0, 12, g.integers(2, 9)))) for _ in range(2)] for _ in range(8)]

    def plain(some: list[list[str]]) -> float:
        split = [text.split() for own in some for text in own]
        grams = {tuple(text[i : i + n]) for text in split for i in range(len(text) + 1 - n)}
        return len(grams) / sum(map(len, split))

    without = [plain(texts[:i] + texts[i + 1 :]) for i in range(8)]
    error = math.sqrt(7 / 8 * sum((own - sum(without) / 8) ** 2 for own in without))
    found = distinct(answered(*texts), n)
    assert found.value == pytest.approx(plain(texts))
    assert found.high - found.value == pytest.approx(2.364624 * error, rel=1e-6)
    assert found.interval == "jackknife"


def test_resamples_all_lie_below_the_value() -> None:
    """Oracle: the count itself, over 200 bootstrap resamples of 40 prompts: why the interval is no bootstrap."""
    g = np.random.Generator(np.random.Philox(1))
    texts = [[" ".join(map(str, g.integers(0, 300, 10)))] for _ in range(40)]
    value = distinct(answered(*texts), 1).value
    resampled = [distinct(answered(*[texts[i] for i in g.integers(0, 40, 40)]), 1).value for _ in range(200)]
    assert max(resampled) < value


def test_no_value_or_no_interval_says_why() -> None:
    """Oracle: the messages."""
    assert distinct(answered(), 1).reason == distinct(answered([""], [" "]), 1).reason == "no answer holds a word"
    alone, single = distinct(answered(["a b"]), 1), distinct(answered(["a b"], [""]), 1)
    assert (alone.value, alone.low, alone.reason) == (1, None, "no interval: one prompt has no spread")
    assert (single.value, single.low) == (1, None)
    assert single.reason == "no interval: only one prompt's answers hold words"
