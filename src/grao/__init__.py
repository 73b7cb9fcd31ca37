"""grao: align language models from demonstrations and rewards in one loss.

In reading order::

    from grao import DPO, GRAO, GRPO, PPO, SFT, Stage     # what is optimised, alone or in stages
    from grao import Rollout, align                       # how samples are drawn; rows and rewards → aligned model
    from grao import RunConfig, load_config, train        # the same from YAML
    from grao import GroupTrainer, Monitor                # the trainer itself
    from grao.data import load_examples                   # rows of any source

Names are loaded when they are first used: ``import grao`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from grao.version import __version__

if TYPE_CHECKING:
    from grao.groups import Group, GroupBatch, Member, PolicyOutput
    from grao.objectives import DPO, GRAO, GRPO, PPO, SFT, LossOutput, Needs, Objective, Progress, Schedule, Sum
    from grao.policy import LoRA, ModelConfig
    from grao.training import (
        CriticConfig,
        GroupTrainer,
        Monitor,
        Rollout,
        RunConfig,
        Stage,
        align,
        load_config,
        train,
    )

_HOMES = {
    "DPO": "grao.objectives",
    "PPO": "grao.objectives",
    "GRAO": "grao.objectives",
    "GRPO": "grao.objectives",
    "SFT": "grao.objectives",
    "Objective": "grao.objectives",
    "Needs": "grao.objectives",
    "LossOutput": "grao.objectives",
    "Progress": "grao.objectives",
    "Schedule": "grao.objectives",
    "Sum": "grao.objectives",
    "Group": "grao.groups",
    "PolicyOutput": "grao.groups",
    "Member": "grao.groups",
    "GroupBatch": "grao.groups",
    "ModelConfig": "grao.policy",
    "LoRA": "grao.policy",
    "Rollout": "grao.rollout",
    "CriticConfig": "grao.training",
    "Monitor": "grao.training",
    "Stage": "grao.training",
    "RunConfig": "grao.training",
    "GroupTrainer": "grao.training",
    "align": "grao.training",
    "load_config": "grao.training",
    "train": "grao.training",
}

__all__ = [
    "DPO",
    "GRAO",
    "GRPO",
    "PPO",
    "SFT",
    "CriticConfig",
    "Group",
    "GroupBatch",
    "GroupTrainer",
    "LoRA",
    "LossOutput",
    "Member",
    "ModelConfig",
    "Monitor",
    "Needs",
    "Objective",
    "PolicyOutput",
    "Progress",
    "Rollout",
    "RunConfig",
    "Schedule",
    "Stage",
    "Sum",
    "__version__",
    "align",
    "load_config",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'grao' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
