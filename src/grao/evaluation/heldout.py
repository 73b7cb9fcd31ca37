"""Held-out evaluation: one answer a prompt, scored by the rewards, compared with the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from grao.data import EncodedExample
from grao.evaluation.intervals import Estimate, bootstrap_mean, wilson
from grao.evaluation.paired import WinTieLoss, compare
from grao.groups import Group
from grao.rewards import RewardSet
from grao.rollout import Engine, SampleRequest, SamplingParams, draw_seed


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Answers to held-out prompts and what they earned."""

    groups: list[Group]
    """One group a prompt, with one sample."""
    metrics: dict[str, float]


def evaluate_heldout(
    engine: Engine,
    rewards: RewardSet,
    examples: Sequence[EncodedExample],
    params: SamplingParams,
    *,
    seed: int = 0,
) -> HeldOut:
    """Answer each prompt once, score the answers and the references in the same call.

    Metrics: `reward` with the 95 % bootstrap interval over prompts (`reward_low`, `reward_high`) and quartiles;
    `win_rate`, `tie_rate` against the reference with Wilson's interval; `mean_length`, `clipped_ratio`; `unscored`.
    """
    groups = [example.as_group() for example in examples]
    requests = [SampleRequest(g.prompt_ids, (draw_seed(seed, 0, g.row, 0),)) for g in groups]
    answers = engine.sample(requests, params)
    groups = [replace(group, samples=answer) for group, answer in zip(groups, answers, strict=True)]
    scored = list(rewards.score(groups).groups)
    return HeldOut(scored, heldout_metrics(scored))


def heldout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """The numbers of `evaluate_heldout` from scored groups of one sample each."""
    answers = [g.samples[0] for g in groups]
    earned = [a.reward for a in answers if a.reward is not None]
    metrics = {
        "n": float(len(groups)),
        "unscored": float(len(groups) - len(earned)),
        "mean_length": sum(len(a.ids) for a in answers) / len(answers),
        "clipped_ratio": sum(a.finish == "length" for a in answers) / len(answers),
    }
    if earned:
        metrics |= _with_interval("reward", bootstrap_mean(earned))
        ordered = sorted(earned)
        for name, q in (("q25", 0.25), ("q50", 0.5), ("q75", 0.75)):
            metrics[f"reward_{name}"] = ordered[min(int(q * len(ordered)), len(ordered) - 1)]
    pairs = win_tie_loss(groups)
    if pairs.n:
        metrics |= _with_interval("win_rate", wilson(pairs.wins, pairs.n))
        metrics["tie_rate"] = pairs.ties / pairs.n
    return metrics


def win_tie_loss(groups: Sequence[Group]) -> WinTieLoss:
    """How often the sample is rewarded above, like, and below its reference; unscored pairs are left out."""
    return compare(
        [group.samples[0].reward for group in groups],
        [None if group.reference is None else group.reference.reward for group in groups],
    )


def _with_interval(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
