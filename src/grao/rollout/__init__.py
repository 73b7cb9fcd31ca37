"""Rollout: who draws completions, behind one protocol."""

from grao.rollout.engine import Engine, SampleRequest, SamplingParams, draw_seed
from grao.rollout.local import LocalEngine, Progress
from grao.rollout.rollout_config import Rollout

__all__ = ["Engine", "LocalEngine", "Progress", "Rollout", "SampleRequest", "SamplingParams", "draw_seed"]
