"""Shares of the loss's terms, early and late."""

from __future__ import annotations

import pytest

from research.training_phases import early, late, phase_metrics, shares


def test_shares_of_magnitudes() -> None:
    """Oracle: by hand: |−1|, |3|, |0| make ¼, ¾, 0; nothing where a term is missing or all are 0."""
    found = shares({"a": [-1.0, 0.0, None], "b": [3.0, 0.0, 1.0], "c": [0.0, 0.0, 1.0]})
    assert found == {"a": [0.25, None, None], "b": [0.75, None, None], "c": [0.0, None, None]}


def test_early_is_a_tenth_and_late_is_half() -> None:
    """Oracle: by hand."""
    assert (list(early(range(20))), list(late(range(20)))) == ([0, 1], list(range(10, 20)))
    assert (list(early([5.0])), list(late([5.0]))) == ([5.0], [5.0])


def test_metrics_of_a_run_that_imitates_and_then_explores() -> None:
    """Oracle: by hand: exploration 0.1 of the loss in the first tenth, 0.8 in the last half."""
    exploration = [-0.1] + [-0.5] * 4 + [0.8] * 5
    series = {
        "loss/exploration": exploration,
        "loss/imitation": [0.9] + [0.5] * 4 + [0.1] * 5,
        "loss/regulariser": [0.0] * 5 + [-0.1] * 5,
        "advantage/reference_negative": [0.0, None, 0.2, 0.2, 0.2, 0.4, 0.4, 0.5, 0.5, 0.5],
    }
    found = phase_metrics(series)
    expected = {
        "loss_share_exploration_early": 0.1,
        "loss_share_exploration_late": 0.8,
        "loss_share_exploration_rise": 0.7,
        "loss_share_imitation_early": 0.9,
        "loss_share_imitation_late": 0.1,
        "loss_share_imitation_rise": -0.8,
        "loss_share_regulariser_early": 0.0,
        "loss_share_regulariser_late": 0.1,
        "loss_share_regulariser_rise": 0.1,
        "reference_negative_early": 0.0,
        "reference_negative_late": (0.4 + 0.5 + 0.5 + 0.5) / 4,  # the last half of nine steps
        "reference_negative_rise": (0.4 + 0.5 + 0.5 + 0.5) / 4,
    }
    assert found == pytest.approx(expected)


def test_a_method_without_terms_has_no_shares() -> None:
    """Oracle: GRPO logs a policy loss only."""
    assert phase_metrics({"loss/policy": [1.0], "step": [1]}) == {}
