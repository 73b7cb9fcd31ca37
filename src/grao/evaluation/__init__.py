"""Evaluation: models answer rows, rewards score the answers, metrics with intervals compare them.

evaluate             a whole evaluation, as `grao evaluate` runs it: stored part by part, resumable, compared
evaluate_heldout     answer and score prompts, as training does every N steps
summarise            all metrics of one model; `differences` between models; `evaluation_tables` for a terminal
ras, nag, wilson, …  single metrics and intervals
"""

from grao.evaluation.evaluation_config import EvaluateConfig, EvaluatedModel, Sampling
from grao.evaluation.evaluation_loading import load_evaluation
from grao.evaluation.evaluation_metric import Metric
from grao.evaluation.evaluation_run import EvaluationResult, evaluate
from grao.evaluation.heldout import evaluate_heldout, heldout_metrics
from grao.evaluation.intervals import Estimate, bootstrap_mean, student_mean, wilson
from grao.evaluation.items import Item, items_of
from grao.evaluation.kl_to_base import kl_to
from grao.evaluation.metric_tables import evaluation_tables
from grao.evaluation.model_summary import ModelMetrics, Summary, differences, summarise
from grao.evaluation.ras_nag import WinTieLoss, compare, nag, nag_win, paired_difference, ras, ras_ties_half

__all__ = [
    "Estimate",
    "EvaluateConfig",
    "EvaluatedModel",
    "EvaluationResult",
    "Item",
    "Metric",
    "ModelMetrics",
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
