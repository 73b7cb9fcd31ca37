"""The critic beside the policy: its place in the optimiser, in clipping and in checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor
from transformers import TrainingArguments

from grao.groups import GroupBatch
from grao.policy import Critic, CriticKind
from grao.training.micro_batches import samples_only


@dataclass(frozen=True)
class CriticConfig:
    """The critic, for objectives that need one (PPO)."""

    kind: CriticKind = "separate"
    """`separate`: a value head on a copy of the policy's backbone; costs a second model and leaves the policy alone.
    `shared`: a value head on the policy's own hidden states; costs a vector, but the value loss then trains the
    policy's backbone too, which made PPO worse where we measured it (docs/decisions.md)."""
    learning_rate: float | None = None
    """Learning rate of the critic's own weights in every stage; null = the policy's. Schedules apply to both."""

    def __post_init__(self) -> None:
        if self.learning_rate is not None and not self.learning_rate >= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}. Give 0 or more.")


class CriticTraining:
    """A critic with what training it takes.

    Args:
        model: The policy at the start of the run.
        config: Which critic.
        args: transformers' arguments.
        accelerator: The run's.

    Raises:
        ValueError: The launcher shards weights, which a critic does not support.
    """

    def __init__(self, model: Any, config: CriticConfig, args: TrainingArguments, accelerator: Accelerator) -> None:
        distributed = accelerator.distributed_type
        if distributed not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
            raise ValueError(
                f"A critic trains in one process or under DDP, not under {distributed.value}. "
                "Choose an objective without a critic (grao, grpo), or another launcher."
            )
        self.config, self._args, self._accelerator = config, args, accelerator
        self.critic = Critic(model, config.kind).to(args.device)
        if args.gradient_checkpointing and self.critic.backbone is not None:
            self.critic.backbone.gradient_checkpointing_enable(args.gradient_checkpointing_kwargs)

    def parameter_groups(self, decaying: list[str]) -> list[dict[str, Any]]:
        """Return the critic's weights for the optimiser: those with weight decay, then norms and biases without.

        Args:
            decaying: Names of the critic's parameters that decay.
        """
        rate = self.config.learning_rate
        return [
            {
                "params": [p for name, p in self.critic.named_parameters() if (name in decaying) is decays],
                "weight_decay": self._args.weight_decay if decays else 0.0,
                "lr": self._args.learning_rate if rate is None else rate,
            }
            for decays in (True, False)
        ]

    @property
    def own_rates(self) -> int:
        """How many of its parameter groups keep their own learning rate in every stage."""
        return 0 if self.config.learning_rate is None else 2

    def clip_together(self, model: Any, limit: float) -> Any:
        """Clip one gradient norm over policy and critic; return it."""
        for parameter in self.critic.parameters():
            if parameter.grad is not None:  # DDP averages the policy's gradients only
                parameter.grad = self._accelerator.reduce(parameter.grad, reduction="mean")
        return self._accelerator.clip_grad_norm_([*model.parameters(), *self.critic.parameters()], limit)

    def values(self, model: Any, batch: GroupBatch) -> Tensor:
        """Return V_φ of the state before each sample token, differentiable: [P, M, T], 0 for given members.

        Args:
            model: The policy, wrapped or not.
            batch: Groups.
        """
        with self._accelerator.autocast():  # the policy's `forward` brings its own; this is only its backbone
            return self.critic.values(self._accelerator.unwrap_model(model), samples_only(batch))
