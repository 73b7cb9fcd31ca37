"""How an aligned model answers a task's test prompts: score by category, win rate, distance from the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from grao.data import EncodedExample
from grao.evaluation import Estimate, bootstrap_mean, evaluate_heldout, wilson, win_tie_loss
from grao.groups import Group, collate
from grao.policy import FrozenPolicy, Policy, group_logprobs
from grao.rewards import RewardSet
from grao.rollout import LocalEngine, SampleRequest, SamplingParams, draw_seed

TEMPERATURE = 0.7
"""Of the test answers, as in the paper."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One model on the test prompts."""

    name: str
    score: Estimate
    """Mean rubric score, with a bootstrap interval over prompts."""
    by_category: dict[str, float]
    win_rate: Estimate
    """How often the answer scores above the reference (RAS), with Wilson's interval."""
    tie_rate: float
    kl: float
    """KL(π ‖ base) in nats an answer: mean over answers drawn from π at temperature 1 of Σ_t k3."""
    mean_length: float
    seconds: float
    """Of training."""
    answers: tuple[str, ...]
    scores: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for a record."""
        return asdict(self)


def measure(
    name: str,
    policy: Policy,
    base: FrozenPolicy | None,
    rows: Sequence[EncodedExample],
    rubric: RewardSet,
    *,
    max_new_tokens: int,
    seconds: float = 0.0,
    seed: int = 0,
) -> Outcome:
    """Answer every test prompt once, with the same seeds for every model, and score the answers by the rubric."""
    engine = LocalEngine(policy.model, policy.tokenizer)
    groups = evaluate_heldout(
        engine, rubric, rows, SamplingParams(max_new_tokens=max_new_tokens, temperature=TEMPERATURE), seed=seed
    ).groups
    scores = [_earned(group) for group in groups]
    wins, ties, losses = win_tie_loss(groups)
    by_category: dict[str, list[float]] = {}
    for group, score in zip(groups, scores, strict=True):
        by_category.setdefault(str(group.columns["category"]), []).append(score)
    return Outcome(
        name=name,
        score=bootstrap_mean(scores),
        by_category={category: sum(s) / len(s) for category, s in sorted(by_category.items())},
        win_rate=wilson(wins, wins + ties + losses),
        tie_rate=ties / (wins + ties + losses),
        kl=0.0 if base is None else kl_to(base, policy, engine, groups, max_new_tokens, seed),
        mean_length=sum(len(group.samples[0].ids) for group in groups) / len(groups),
        seconds=seconds,
        answers=tuple(group.samples[0].text for group in groups),
        scores=tuple(scores),
    )


@torch.no_grad()
def kl_to(
    base: FrozenPolicy, policy: Policy, engine: LocalEngine, groups: Sequence[Group], max_new_tokens: int, seed: int
) -> float:
    """Mean over prompts of Σ_t k3(π, base) on one answer drawn from π at temperature 1, in nats an answer."""
    requests = [SampleRequest(g.prompt_ids, (draw_seed(seed, 1, g.row, 0),)) for g in groups]
    drawn = engine.sample(requests, SamplingParams(max_new_tokens=max_new_tokens))
    answered = [
        replace(group, samples=samples, reference=None, rejected=None)
        for group, samples in zip(groups, drawn, strict=True)
    ]
    batch = collate(answered, pad_token_id=int(policy.tokenizer.pad_token_id or 0))
    was_training = policy.model.training
    policy.model.eval()
    log_ratio = (base.logprobs(batch) - group_logprobs(policy.model, batch).logprobs_PMT) * batch.mask_PMT
    policy.model.train(was_training)
    return float((log_ratio.exp() - log_ratio - 1).sum() / len(groups))


def _earned(group: Group) -> float:
    reward = group.samples[0].reward
    assert reward is not None, "a rubric scores every answer"
    return reward
