"""Rollout: the engine contract, the engines, and how to sample."""

from grao.rollout.engine import Engine, EngineError, SampleRequest, SamplingParams, draw_seed
from grao.rollout.engine_config import (
    ENGINES,
    EngineConfig,
    LocalEngineConfig,
    make_engine,
    read_engine_config,
    ready_engine,
)
from grao.rollout.group_sampling import sample_groups
from grao.rollout.local_engine import LocalEngine, Progress
from grao.rollout.rollout_config import Rollout

__all__ = [
    "ENGINES",
    "Engine",
    "EngineConfig",
    "EngineError",
    "LocalEngine",
    "LocalEngineConfig",
    "Progress",
    "Rollout",
    "SampleRequest",
    "SamplingParams",
    "draw_seed",
    "make_engine",
    "read_engine_config",
    "ready_engine",
    "sample_groups",
]
