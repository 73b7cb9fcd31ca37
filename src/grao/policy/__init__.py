"""The policy: loading it, its log-probs on groups, adapters, the frozen policy, the critic."""

from grao.policy.critic import Critic, CriticKind
from grao.policy.frozen import FrozenPolicy
from grao.policy.load import (
    ModelConfig,
    Policy,
    check_vocabulary,
    hub_commit,
    load_policy,
    load_tokenizer,
    model_directories,
    read_context_length,
)
from grao.policy.lora import LoRA
from grao.policy.scoring import Scoring, group_logprobs, install_scoring, router_coefficient

__all__ = [
    "Critic",
    "CriticKind",
    "FrozenPolicy",
    "LoRA",
    "ModelConfig",
    "Policy",
    "Scoring",
    "check_vocabulary",
    "group_logprobs",
    "hub_commit",
    "install_scoring",
    "load_policy",
    "load_tokenizer",
    "model_directories",
    "read_context_length",
    "router_coefficient",
]
