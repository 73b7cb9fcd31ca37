"""The rewards that a configuration can name in one word."""

from __future__ import annotations

BUILTIN_REWARDS = {
    "math": "grao.rewards.math_answer:MathAnswer",
    "exact_match": "grao.rewards.text:ExactMatch",
    "format": "grao.rewards.text:Format",
    "length": "grao.rewards.length:Length",
    "model": "grao.rewards.model:RewardModel.from_pretrained",
    "judge": "grao.rewards.judge:PairwiseJudge",
    "absolute_judge": "grao.rewards.judge:AbsoluteJudge",
    "verl": "grao.rewards.verl:VerlReward",
    "openrlhf": "grao.rewards.openrlhf:OpenRLHFReward",
}
"""Name → where it lives. Paths, not objects, so that only what is used is imported."""
