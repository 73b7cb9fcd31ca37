"""Objectives: one file a method, each a frozen dataclass with `advantages` and `loss`."""

from grao.objectives.advantages import centre, leave_one_out, standardise
from grao.objectives.grao import GRAO
from grao.objectives.grpo import GRPO
from grao.objectives.likelihood import Aggregation, aggregate, mean_logprob
from grao.objectives.objective import LossOutput, Mean, Needs, Objective, pad_members
from grao.objectives.sft import SFT

__all__ = [
    "GRAO",
    "GRPO",
    "SFT",
    "Aggregation",
    "LossOutput",
    "Mean",
    "Needs",
    "Objective",
    "aggregate",
    "centre",
    "leave_one_out",
    "mean_logprob",
    "pad_members",
    "standardise",
]
