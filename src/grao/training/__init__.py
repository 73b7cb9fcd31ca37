"""Training: one step on a page (`step`), the trainer that hangs it into transformers, stages, configuration, runs."""

from grao.rollout import Rollout
from grao.training.align import TrainedRun, align, train
from grao.training.collect import collect
from grao.training.critic_training import CriticConfig
from grao.training.failures import NotFiniteError
from grao.training.micro_batches import balance
from grao.training.monitor import Monitor
from grao.training.run_config import EvaluationConfig, RunConfig, load_config
from grao.training.stages import Stage, StageSequence
from grao.training.trainer import GroupTrainer

__all__ = [
    "CriticConfig",
    "EvaluationConfig",
    "GroupTrainer",
    "Monitor",
    "NotFiniteError",
    "Rollout",
    "RunConfig",
    "Stage",
    "StageSequence",
    "TrainedRun",
    "align",
    "balance",
    "collect",
    "load_config",
    "train",
]
