"""The policy: loading it, its log-probs on groups, adapters, the frozen policy, the critic."""

from grao.compat.transformers_router_loss import router_coefficient
from grao.policy.critic import Critic, CriticKind
from grao.policy.frozen_policy import FrozenPolicy
from grao.policy.lora import LoRA
from grao.policy.model_loading import (
    LoadedPolicy,
    ModelConfig,
    check_vocabulary,
    hub_commit,
    load_policy,
    load_tokenizer,
    model_directories,
    read_context_length,
)
from grao.policy.scorer import Scoring, group_logprobs, install_scoring

__all__ = [
    "Critic",
    "CriticKind",
    "FrozenPolicy",
    "LoRA",
    "LoadedPolicy",
    "ModelConfig",
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
