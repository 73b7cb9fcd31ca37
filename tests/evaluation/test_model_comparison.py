"""RAS, NAG and the gain with several samples per prompt, against tables worked by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest

from grao.evaluation import Item, Metric, WinTieLoss, bootstrap_mean, nag, nag_win, ras, ras_ties_half, wilson
from grao.evaluation.evaluation_metric import Bootstrap
from grao.evaluation.items import ItemsByPrompt, group_by_prompt
from grao.evaluation.model_comparison import against_base, against_references

NAN = float("nan")
BOOTSTRAP = Bootstrap()


def rewarded(rewards: Mapping[int, Sequence[float | None]], references: Mapping[int, float | None]) -> ItemsByPrompt:
    """Prompts by row: the rewards of the samples, and that of the reference."""
    return group_by_prompt(
        Item(row, sample, "", "", "", None, 1, "stop", reward=reward, reference_reward=references.get(row))
        for row, own in rewards.items()
        for sample, reward in enumerate(own)
    )


REFERENCES = {0: 1.0, 1: 2.0, 2: 0.0, 3: None, 4: 1.0}
POST = {0: [3.0, 1.0], 1: [2.0, 1.0], 2: [0.5, None], 3: [5.0, 5.0], 4: [None, math.inf]}
PRE = {0: [1.0, 4.0], 1: [1.0], 2: [None, 0.5, 0.0], 4: [1.0], 9: [7.0]}


def test_ras_by_hand() -> None:
    """Oracle: by row: win, tie: ½ and ¾;  tie, loss: 0 and ¼;  win, unscored: 1 and 1;  two rows without a pair."""
    found = against_references(rewarded(POST, REFERENCES), BOOTSTRAP)
    assert found.counts == WinTieLoss(wins=2, ties=2, losses=1, unscored=5)
    assert found.ras.value == pytest.approx((0.5 + 0 + 1) / 3)
    assert found.ras_ties_half.value == pytest.approx((0.75 + 0.25 + 1) / 3)
    assert [(f.n, f.unscored) for f in (found.ras, found.ras_ties_half)] == [(3, 5)] * 2


def test_nag_by_hand() -> None:
    """Oracle: pairs of row 0: 3>1, 3<4, 1=1, 1<4: net −¼, wins ¼; of 1: 2>1, 1=1: ½, ½; of 2: ½=½, ½>0: ½, ½.

    Gains: 2 − 2½, 1½ − 1, ½ − ¼. Left out: 1 of row 2, 2 of row 3, 2 of row 4 and the base's 1 of row 2, 1 of row 4;
    the base's row 9 is none of the model's prompts.
    """
    found = against_base(rewarded(POST, REFERENCES), rewarded(PRE, REFERENCES), BOOTSTRAP)
    assert found.nag.value == pytest.approx((-0.25 + 0.5 + 0.5) / 3)
    assert found.nag_win.value == pytest.approx((0.25 + 0.5 + 0.5) / 3)
    assert found.gain.value == pytest.approx((-0.5 + 0.5 + 0.25) / 3)
    assert {(f.n, f.unscored) for f in (found.nag, found.nag_win, found.gain)} == {(3, 7)}


ONE = {0: [1.0], 1: [1.0], 2: [0.0], 3: [-1.0], 4: [None], 5: [1.0]}
OTHER = {0: [0.0], 1: [1.0], 2: [1.0], 3: [-1.0], 4: [0.0], 5: [NAN]}


def flat(rewards: Mapping[int, Sequence[float | None]]) -> list[float | None]:
    return [None if own[0] is None or math.isnan(own[0]) else own[0] for own in rewards.values()]


def test_verdicts_with_one_sample_a_prompt_by_hand() -> None:
    """Oracle: R(y) = 0: win, win, tie, loss, unscored, win; post against pre: win, tie, loss, tie, unscored twice."""
    zero = dict.fromkeys(ONE, 0.0)
    to_references = against_references(rewarded(ONE, zero), BOOTSTRAP)
    to_base = against_base(rewarded(ONE, zero), rewarded(OTHER, zero), BOOTSTRAP)
    assert (to_references.ras.value, to_references.ras_ties_half.value) == pytest.approx((3 / 5, 3.5 / 5))
    assert (to_base.nag.value, to_base.nag_win.value, to_base.gain.value) == pytest.approx((0, 1 / 4, 0))
    assert (to_references.ras.unscored, to_base.nag.unscored) == (1, 4)


def test_one_sample_a_prompt_is_the_room_s_other_functions() -> None:
    """Oracle: `ras`, `nag` and the others on flat lists; Wilson's interval is the same too."""
    zero = dict.fromkeys(ONE, 0.0)
    to_references = against_references(rewarded(ONE, zero), BOOTSTRAP)
    to_base = against_base(rewarded(ONE, zero), rewarded(OTHER, zero), BOOTSTRAP)
    zeros: list[float | None] = [0.0] * len(ONE)
    pairs = [
        (to_references.ras, ras(flat(ONE), zeros)),
        (to_references.ras_ties_half, ras_ties_half(flat(ONE), zeros)),
        (to_base.nag, nag(flat(ONE), flat(OTHER))),
        (to_base.nag_win, nag_win(flat(ONE), flat(OTHER))),
    ]
    for found, other in pairs:
        assert (found.value, found.n) == (pytest.approx(other.value), other.n)
        if found.interval == "wilson":
            assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=1e-12)
        else:
            assert found.low is not None
            assert found.high - found.low >= other.high - other.low


def test_copies_of_a_sample_say_nothing_new() -> None:
    """Oracle: the figures of one copy, intervals included: a prompt is one draw, however often it is answered."""
    draws = {row: [float(row * 7 % 5 - 2)] for row in range(40)}
    others = {row: [float(row * 3 % 5 - 2)] for row in range(40)}
    zero = dict.fromkeys(draws, 0.0)
    one = against_references(rewarded(draws, zero), BOOTSTRAP)
    four = against_references(rewarded({row: own * 4 for row, own in draws.items()}, zero), BOOTSTRAP)
    to_one = against_base(rewarded(draws, zero), rewarded(others, zero), BOOTSTRAP)
    to_four = against_base(
        rewarded({row: own * 4 for row, own in draws.items()}, zero),
        rewarded({row: own * 2 for row, own in others.items()}, zero),
        BOOTSTRAP,
    )
    pairs = [(one.ras, four.ras), (one.ras_ties_half, four.ras_ties_half)]
    pairs += [(to_one.nag, to_four.nag), (to_one.nag_win, to_four.nag_win), (to_one.gain, to_four.gain)]
    for found, other in pairs:
        assert (found.value, found.low, found.high) == pytest.approx((other.value, other.low, other.high), abs=1e-12)
    wins = sum(own[0] > 0 for own in draws.values())
    assert (four.ras.low, four.ras.high) == pytest.approx((wilson(wins, 40).low, wilson(wins, 40).high), abs=1e-12)


def test_where_all_win_wilson_keeps_a_width_and_the_bootstrap_has_none() -> None:
    """Oracle: Wilson's interval of 20 of 20, by prompts and not by their 60 answers; every resample wins."""
    found = against_references(rewarded(dict.fromkeys(range(20), [1.0] * 3), dict.fromkeys(range(20), 0.0)), BOOTSTRAP)
    assert (found.ras.low, found.ras.high) == pytest.approx((wilson(20, 20).low, 1.0))
    assert (found.ras_ties_half.low, found.ras_ties_half.high) == (1.0, 1.0)
    assert bootstrap_mean([1.0] * 20).low == 1.0


def figures_without_anything(prompts: ItemsByPrompt, base: ItemsByPrompt | None) -> list[Metric]:
    to_references, to_base = against_references(prompts, BOOTSTRAP), against_base(prompts, base, BOOTSTRAP)
    return [to_references.ras, to_references.ras_ties_half, to_base.nag, to_base.nag_win, to_base.gain]


def test_nothing_scored_is_no_figure_and_says_why() -> None:
    """Oracle: the messages; None, not 0."""
    blank = rewarded({0: [None, NAN]}, {0: 1.0})
    reasons = ["no answer and its reference are both scored"] * 2
    for prompts, base, reason, left_out in (
        (blank, None, "no base to compare with", 0),
        (blank, rewarded(PRE, REFERENCES), "no prompt is scored for both models", 4),
        ({}, {}, "no prompt is scored for both models", 0),
    ):
        found = figures_without_anything(prompts, base)
        assert [f.reason for f in found] == reasons + [reason] * 3
        assert [f.value for f in found] == [None] * 5
        assert [f.unscored for f in found] == [2 * len(prompts)] * 2 + [left_out] * 3


def test_one_prompt_has_a_value_and_for_means_no_interval() -> None:
    """Oracle: Wilson's interval of 1 of 1; a bootstrap of one prompt would claim certainty."""
    prompts = rewarded({0: [1.0]}, {0: 0.0})
    found = against_references(prompts, BOOTSTRAP)
    assert (found.ras.value, found.ras.low) == (1.0, pytest.approx(wilson(1, 1).low))
    assert (found.ras_ties_half.value, found.ras_ties_half.low) == (1.0, None)
    assert found.ras_ties_half.reason == "no interval: one prompt has no spread"
