"""Evaluation: held-out rewards and win rates, with intervals."""

from grao.evaluation.heldout import HeldOut, evaluate_heldout, heldout_metrics, win_tie_loss
from grao.evaluation.intervals import Estimate, bootstrap_mean, wilson

__all__ = ["Estimate", "HeldOut", "bootstrap_mean", "evaluate_heldout", "heldout_metrics", "wilson", "win_tie_loss"]
