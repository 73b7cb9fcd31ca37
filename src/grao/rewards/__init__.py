"""Rewards: what scores a completion, and how scores become one number per member.

    load_reward      from a name, a dotted path, a callable or a model to a `RewardFunction`
    RewardSet.score  groups → groups with rewards, and a report
    BUILTIN_REWARDS  the names a configuration can use

`math_answer` (math-verify), `model` (a classifier) and `judge` (openai) are imported only when they are used.
"""

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
from grao.rewards.reward_function import (
    Completion,
    OnError,
    RewardCallable,
    RewardFunction,
    comparison,
    completion_text,
)
from grao.rewards.reward_loading import BUILTIN_REWARDS, load_reward
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
