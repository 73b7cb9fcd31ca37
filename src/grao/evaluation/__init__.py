"""Evaluation: from models and rows to answers, their scores, and figures with intervals.

evaluate             a whole evaluation, as `grao evaluate` runs it: stored part by part, resumed, compared
evaluate_heldout     prompts answered and scored, as training does every N steps
summarise            all figures of one model; `differences` between models; `evaluation_tables` for a terminal
ras, nag, wilson, …  the figures and intervals by themselves
"""

from grao.evaluation.conclusion import Evaluation
from grao.evaluation.config import EvaluateConfig, EvaluatedModel, Sampling
from grao.evaluation.described import load_evaluation
from grao.evaluation.figure import Figure
from grao.evaluation.heldout import HeldOut, evaluate_heldout, heldout_metrics
from grao.evaluation.intervals import Estimate, bootstrap_mean, student_mean, wilson
from grao.evaluation.items import Item, items_of
from grao.evaluation.kl import kl_to
from grao.evaluation.paired import WinTieLoss, compare, paired_difference
from grao.evaluation.ras_nag import nag, nag_win, ras, ras_ties_half
from grao.evaluation.run import evaluate
from grao.evaluation.summary import Figures, Summary, differences, summarise
from grao.evaluation.tables import evaluation_tables

__all__ = [
    "Estimate",
    "EvaluateConfig",
    "EvaluatedModel",
    "Evaluation",
    "Figure",
    "Figures",
    "HeldOut",
    "Item",
    "Sampling",
    "Summary",
    "WinTieLoss",
    "bootstrap_mean",
    "compare",
    "differences",
    "evaluate",
    "evaluate_heldout",
    "evaluation_tables",
    "heldout_metrics",
    "items_of",
    "kl_to",
    "load_evaluation",
    "nag",
    "nag_win",
    "paired_difference",
    "ras",
    "ras_ties_half",
    "student_mean",
    "summarise",
    "wilson",
]
