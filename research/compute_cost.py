"""Compute of a run after each step, independent of the machine: tokens and approximate FLOPs.

    FLOPs ≈ 2 N · tokens sampled  +  (6 N + 2 N · passes without gradient) · tokens trained on

with N the parameters a token meets (of a mixture of experts: its share of the experts). Forward 2 N a token, backward
twice that (arXiv 2001.08361, section 2.1); attention's own products and the prompts' prefill are left out, both small
here. Members that the library need not run count as if they had run. A separate critic is a second model: N counts it
for what is trained on, and once more for the values of a collection.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from grao.objectives import Needs
from grao.records import RunRecord
from grao.training import RunConfig


@dataclass(frozen=True, slots=True)
class ComputeCost:
    """Totals since the start of a run."""

    tokens_sampled: int = 0
    tokens_trained: int = 0
    """Prompts (once per group) and members of every batch of an update."""
    flops: float = 0.0


def cost_by_step(record: RunRecord, config: RunConfig, parameters: int) -> dict[int, ComputeCost]:
    """Totals after each step, from 0 steps on.

    Args:
        record: of the run, with a log line a step.
        config: of the run.
        parameters: that a token meets in the policy.
    """
    sampled = {
        step: sum(row["length"] for row in record.completions(step) if row["kind"] == "sample")
        for step in record.completion_steps()
    }
    steps, trained = record.series("num_tokens")
    totals, total = {0: ComputeCost()}, ComputeCost()
    for step, now, needs in zip(steps, trained, _needs_by_step(config), strict=True):
        new, drawn = int(now) - total.tokens_trained, sampled.get(step, 0)
        total = ComputeCost(
            total.tokens_sampled + drawn,
            int(now),
            total.flops + parameters * (2 * drawn + _flops_a_token(needs, config) * new),
        )
        totals[step] = total
    return totals


def active_parameters(model: Any) -> int:
    """Return the parameters that one token uses: in a mixture of experts, k of E experts."""
    config = model.config.get_text_config()
    experts = getattr(config, "num_experts", None) or 1
    share = (getattr(config, "num_experts_per_tok", None) or experts) / experts
    return round(sum(p.numel() * (share if ".experts." in name else 1.0) for name, p in model.named_parameters()))


def _flops_a_token(needs: Needs, config: RunConfig) -> float:
    reused = config.rollout.updates > 1
    behaviour = needs.behaviour == "always" or (needs.behaviour == "reused" and reused)
    without_gradient = needs.frozen_policy + behaviour + needs.critic
    critic = 6.0 if needs.critic and config.critic.kind == "separate" else 0.0
    return 6.0 + 2.0 * without_gradient + critic


def _needs_by_step(config: RunConfig) -> Iterator[Needs]:
    objective = config.make_objective()
    if not isinstance(objective, list):
        yield from (objective.needs for _ in range(config.trainer["max_steps"]))
        return
    for stage in objective:
        yield from (stage.objective.needs for _ in range(stage.steps))
