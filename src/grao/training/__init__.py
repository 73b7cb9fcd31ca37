"""Training: collect groups, the trainer, the configuration, the run."""

from grao.rollout import Rollout
from grao.training.collect import balance, collect
from grao.training.config import EvaluationConfig, RunConfig, load_config
from grao.training.run import TrainedRun, align, train
from grao.training.stages import Chain, Stage
from grao.training.trainer import CriticConfig, GroupTrainer, Monitor, NotFiniteError

__all__ = [
    "Chain",
    "CriticConfig",
    "EvaluationConfig",
    "GroupTrainer",
    "Monitor",
    "NotFiniteError",
    "Rollout",
    "RunConfig",
    "Stage",
    "TrainedRun",
    "align",
    "balance",
    "collect",
    "load_config",
    "train",
]
