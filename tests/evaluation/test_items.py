"""Items grouped by prompt, and their values."""

from __future__ import annotations

import math

import pytest

from grao.evaluation import Item
from grao.evaluation.items import MAX_SCORE, ValuesByPrompt, finite, group_by_prompt, score_reader


def item(row: int, sample: int, reward: float | None = None, **scores: float | None) -> Item:
    return Item(row, sample, "", "", None, None, 1, "stop", reward=reward, scores=scores)


def test_order_is_by_row_and_sample() -> None:
    """Oracle: sorted by hand."""
    found = group_by_prompt([item(7, 1), item(2, 0), item(7, 0)])
    assert {row: [i.sample for i in items] for row, items in found.items()} == {2: [0], 7: [0, 1]}
    assert list(found) == [2, 7]


def test_an_answer_given_twice_is_refused() -> None:
    """Oracle: the message."""
    with pytest.raises(ValueError, match="sample 1 of row 7 appears twice; give every answer once"):
        group_by_prompt([item(7, 1), item(7, 0), item(7, 1)])


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, MAX_SCORE, 1e308])
def test_what_is_no_number_is_missing(value: float | None) -> None:
    """Oracle: the definition."""
    assert finite(value) is None
    assert finite(-2.5) == -2.5


def test_values_by_hand() -> None:
    """Oracle: counted and added by hand; a prompt without a number is in no list."""
    prompts = group_by_prompt(
        [item(0, 0, 1.0, a=5.0), item(0, 1, 2.0), item(1, 0), item(2, 0, math.nan), item(2, 1, 4.0)]
    )
    found = ValuesByPrompt.read(prompts, score_reader())
    assert found.by_row == {0: [1.0, 2.0], 2: [4.0]}
    assert (found.missing, found.flat, found.sums, found.sizes) == (2, [1.0, 2.0, 4.0], [3.0, 4.0], [2, 1])
    assert ValuesByPrompt.read(prompts, score_reader("a")).by_row == {0: [5.0]}
