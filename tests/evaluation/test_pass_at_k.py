"""pass@k and maj@k."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest

from grao.evaluation import Item
from grao.evaluation.accuracy import accuracy, majority_is_right, pass_at_k
from grao.evaluation.items import group_by_prompt


def tries(row: int, answers: Sequence[tuple[str, float | None]]) -> list[Item]:
    """Samples of one prompt: text, and what the scorer says of it."""
    return [
        Item(row, sample, "", text, None, None, 1, "stop", scores={"math": score})
        for sample, (text, score) in enumerate(answers)
    ]


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(n: int) -> None:
    """Oracle: all subsets of k among n, of which the first c are right, counted."""
    for c in range(n + 1):
        for k in range(1, n + 1):
            subsets = list(combinations(range(n), k))
            right = sum(min(subset) < c for subset in subsets)
            assert pass_at_k(n, c, k) == pytest.approx(right / len(subsets), abs=1e-12)


def test_pass_at_k_is_unbiased() -> None:
    """Oracle: with c binomial in p, its expectation is 1 − (1−p)^k; 1 − (1−c/n)^k is biased."""
    n, k, p = 10, 4, 0.3
    chance = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    assert np.dot(chance, [pass_at_k(n, c, k) for c in range(n + 1)]) == pytest.approx(1 - (1 - p) ** k, abs=1e-12)
    assert np.dot(chance, [1 - (1 - c / n) ** k for c in range(n + 1)]) < 1 - (1 - p) ** k - 0.01


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 4), (3, 4, 1), (3, -1, 1), (3, 1, 0)])
def test_pass_at_k_refuses_what_cannot_be(n: int, c: int, k: int) -> None:
    """Oracle: the message."""
    with pytest.raises(ValueError, match=rf"pass@{k} of {c} right answers among {n}: need 1 ≤ k ≤ n and 0 ≤ c ≤ n"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("votes", "expectation", "first"),
    [
        ([("7", 1.0), ("8", 0.0), ("7", 1.0)], 1.0, 1.0),
        ([("8", 0.0), ("7", 1.0), ("8", 0.0)], 0.0, 0.0),
        ([("8", 0.0), ("7", 1.0)], 0.5, 0.0),
        ([("7", 1.0), ("8", 0.0), ("9", 0.0)], 1 / 3, 1.0),
        ([("7", 1.0), ("7", 0.0)], 0.5, 0.5),
        ([], 0.0, 0.0),
    ],
)
def test_the_majority_by_hand(votes: list[tuple[str, float]], expectation: float, first: float) -> None:
    """Oracle: votes counted by hand; ties of two and of three; one answer scored in two ways; no vote."""
    assert majority_is_right(votes) == pytest.approx(expectation)
    assert majority_is_right(votes, "first") == pytest.approx(first)


PROMPTS = group_by_prompt(
    [
        *tries(0, [("it is 7", 1.0), ("$7.0$", 1.0), ("so 8", 0.0), ("8", 0.0)]),
        *tries(1, [("1/2", 1.0), ("the answer is 0.5", 1.0), ("no idea", 0.0), ("3", 0.0)]),
        *tries(2, [("1", 0.0), ("2", None), ("2", 0.0), ("3", float("nan"))]),
    ]
)


def test_a_table_by_hand() -> None:
    """Oracle: worked by hand.

    pass@1 = (2/4 + 2/4 + 0/2) / 3; pass@2 = (5/6 + 5/6 + 0) / 3; pass@4 = (1 + 1) / 2 without the third prompt.
    maj@2 of the first prompt: blocks 7, 7 and 8, 8: ½; of the second: 0.5, 0.5 and (abstains), 3: ½; of the third:
    1, 2: 0. maj@4: 7 and 8 tie: ½; ½ has two votes of three: 1.
    """
    found = accuracy(PROMPTS, "math", (1, 2, 4))
    assert [found.pass_at[k].value for k in (1, 2, 4)] == pytest.approx([1 / 3, (10 / 6) / 3, 1.0])
    assert [found.majority_at[k].value for k in (1, 2, 4)] == pytest.approx([1 / 3, (0.5 + 0.5 + 0) / 3, 0.75])
    assert [(found.pass_at[k].n, found.pass_at[k].unscored) for k in (1, 2, 4)] == [(3, 2), (3, 2), (2, 4)]


def test_ties_to_the_first() -> None:
    """Oracle: the first prompt's 7 came before 8."""
    assert accuracy(PROMPTS, "math", (4,), "first").majority_at[4].value == 1.0


def test_what_is_over_after_whole_blocks_does_not_vote() -> None:
    """Oracle: of 5 samples two blocks of 2 vote: right and wrong."""
    prompts = group_by_prompt(tries(0, [("7", 1.0), ("7", 1.0), ("8", 0.0), ("8", 0.0), ("7", 1.0)]))
    assert accuracy(prompts, "math", (2,)).majority_at[2].value == 0.5


def test_tasks_in_words_vote_by_the_whole_answer() -> None:
    """Oracle: two of three say the same but for white space."""
    prompts = group_by_prompt(tries(0, [("red  fox\n", 1.0), ("blue", 0.0), ("red fox", 1.0)]))
    assert accuracy(prompts, "math", (3,)).majority_at[3].value == 1.0


def test_one_try_is_the_mean_score() -> None:
    """Oracle: the identity pass@1 = maj@1 = mean of prompts' means, where all samples answer."""
    draw = np.random.Generator(np.random.Philox(0))
    right = draw.random((20, 4)) < 0.4
    prompts = group_by_prompt(
        item for row in range(20) for item in tries(row, [(str(draw.integers(9)), float(r)) for r in right[row]])
    )
    found = accuracy(prompts, "math")
    assert found.pass_at[1].value == pytest.approx(right.mean())
    assert found.majority_at[1].value == pytest.approx(right.mean())


def test_what_cannot_be_computed_says_why() -> None:
    """Oracle: the messages; no figure is 0."""
    found = accuracy(PROMPTS, "math", (8,))
    assert (found.pass_at[8].value, found.majority_at[8].value) == (None, None)
    assert found.pass_at[8].reason == "no prompt has 8 answers scored by math"
    assert found.pass_at[8].unscored == 12
    assert accuracy(PROMPTS, "style").pass_at[1].reason == "no prompt has an answer scored by style"
    graded = accuracy(group_by_prompt(tries(0, [("7", 0.5)])), "math")
    assert graded.pass_at[1].reason == "math gave the score 0.5: accuracy needs scores of 0 and 1"
    assert graded.majority_at[1].value is None
    with pytest.raises(ValueError, match=r"k = \[0\]: pass@k and maj@k need k of 1 or more"):
        accuracy(PROMPTS, "math", (0,))
