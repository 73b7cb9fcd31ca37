"""Evaluation: held-out rewards, RAS and NAG, paired comparisons, with intervals."""

from grao.evaluation.heldout import HeldOut, evaluate_heldout, heldout_metrics, win_tie_loss
from grao.evaluation.intervals import Estimate, bootstrap_mean, student_mean, wilson
from grao.evaluation.paired import WinTieLoss, compare, paired_difference
from grao.evaluation.ras_nag import nag, nag_win, ras, ras_ties_half

__all__ = [
    "Estimate",
    "HeldOut",
    "WinTieLoss",
    "bootstrap_mean",
    "compare",
    "evaluate_heldout",
    "heldout_metrics",
    "nag",
    "nag_win",
    "paired_difference",
    "ras",
    "ras_ties_half",
    "student_mean",
    "wilson",
    "win_tie_loss",
]
