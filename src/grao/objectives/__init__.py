"""Objectives: one file per method, each a frozen dataclass with `advantages` and `loss`."""

from grao.objectives.advantages import centre, leave_one_out, standardise
from grao.objectives.dpo import DPO
from grao.objectives.grao import GRAO
from grao.objectives.grpo import GRPO
from grao.objectives.likelihood import Aggregation, aggregate, mean_logprob
from grao.objectives.objective import LossOutput, Mean, Needs, Objective, Progress, pad_members
from grao.objectives.objective_config import OBJECTIVES, make_objective, parse_objective, resolve_objective
from grao.objectives.ppo import PPO
from grao.objectives.ratio import k3
from grao.objectives.schedule import Schedule
from grao.objectives.sft import SFT
from grao.objectives.sum import Sum

__all__ = [
    "DPO",
    "GRAO",
    "GRPO",
    "OBJECTIVES",
    "PPO",
    "SFT",
    "Aggregation",
    "LossOutput",
    "Mean",
    "Needs",
    "Objective",
    "Progress",
    "Schedule",
    "Sum",
    "aggregate",
    "centre",
    "k3",
    "leave_one_out",
    "make_objective",
    "mean_logprob",
    "pad_members",
    "parse_objective",
    "resolve_objective",
    "standardise",
]
