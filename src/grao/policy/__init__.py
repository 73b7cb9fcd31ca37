"""The policy: loading it, its log-probs on groups, adapters, the frozen policy, the critic."""

from grao.policy.critic import Critic, CriticKind
from grao.policy.frozen import FrozenPolicy
from grao.policy.load import ModelConfig, Policy, check_vocabulary, load_policy
from grao.policy.lora import LoRA
from grao.policy.scoring import GroupLogprobs, Scoring, group_logprobs, install_scoring, router_coefficient

__all__ = [
    "Critic",
    "CriticKind",
    "FrozenPolicy",
    "GroupLogprobs",
    "LoRA",
    "ModelConfig",
    "Policy",
    "Scoring",
    "check_vocabulary",
    "group_logprobs",
    "install_scoring",
    "load_policy",
    "router_coefficient",
]
