"""Rewards: what scores a completion, and how scores become one number a member.

    load_reward      from a name, a dotted path, a callable or a model to a `RewardFunction`
    RewardSet.score  groups → groups with rewards, and a report
    BUILTIN_REWARDS  what a configuration can name in one word

`math_answer` (math-verify), `model` (a classifier) and `judge` (openai) are imported only when they are used.
"""

from grao.rewards.builtin import BUILTIN_REWARDS
from grao.rewards.completions import Completion, completion_text
from grao.rewards.errors import (
    CallTimeoutError,
    EndpointDownError,
    EndpointRefusedError,
    RewardError,
    RewardReturnError,
    StopError,
)
from grao.rewards.length import Length
from grao.rewards.reward_config import RewardConfig
from grao.rewards.reward_function import OnError, RewardCallable, RewardFunction, comparison
from grao.rewards.reward_loading import load_reward
from grao.rewards.reward_report import FunctionReport, RewardReport, Statistics
from grao.rewards.reward_set import RewardSet, ScoredGroups, combine
from grao.rewards.text import FORMATS, ExactMatch, Format

__all__ = [
    "BUILTIN_REWARDS",
    "FORMATS",
    "CallTimeoutError",
    "Completion",
    "EndpointDownError",
    "EndpointRefusedError",
    "ExactMatch",
    "Format",
    "FunctionReport",
    "Length",
    "OnError",
    "RewardCallable",
    "RewardConfig",
    "RewardError",
    "RewardFunction",
    "RewardReport",
    "RewardReturnError",
    "RewardSet",
    "ScoredGroups",
    "Statistics",
    "StopError",
    "combine",
    "comparison",
    "completion_text",
    "load_reward",
]
