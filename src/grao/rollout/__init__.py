"""Rollout: who draws completions, behind one protocol."""

from grao.rollout.engine import Engine, SampleRequest, SamplingParams, draw_seed
from grao.rollout.local import LocalEngine, Progress

__all__ = ["Engine", "LocalEngine", "Progress", "SampleRequest", "SamplingParams", "draw_seed"]
