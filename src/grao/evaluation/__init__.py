"""Evaluation: from answers and their scores to figures with intervals.

summarise            all figures of one model; `differences` between models; `evaluation_tables` for a terminal
evaluate_heldout     one answer a prompt while training
ras, nag, wilson, …  the figures and intervals by themselves
"""

from grao.evaluation.figure import Figure
from grao.evaluation.heldout import HeldOut, evaluate_heldout, heldout_metrics, win_tie_loss
from grao.evaluation.intervals import Estimate, bootstrap_mean, student_mean, wilson
from grao.evaluation.items import Item
from grao.evaluation.paired import WinTieLoss, compare, paired_difference
from grao.evaluation.ras_nag import nag, nag_win, ras, ras_ties_half
from grao.evaluation.summary import Figures, Summary, differences, summarise
from grao.evaluation.tables import evaluation_tables

__all__ = [
    "Estimate",
    "Figure",
    "Figures",
    "HeldOut",
    "Item",
    "Summary",
    "WinTieLoss",
    "bootstrap_mean",
    "compare",
    "differences",
    "evaluate_heldout",
    "evaluation_tables",
    "heldout_metrics",
    "nag",
    "nag_win",
    "paired_difference",
    "ras",
    "ras_ties_half",
    "student_mean",
    "summarise",
    "wilson",
    "win_tie_loss",
]
