"""Held-out evaluation: prompts answered, scored by the rewards, compared with their references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from grao.data import EncodedExample
from grao.evaluation.items import Item
from grao.evaluation.model_summary import summarise
from grao.groups import Group
from grao.rewards import RewardReport, RewardSet
from grao.rollout import Engine, SampleRequest, SamplingParams, draw_seed


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Answers to held-out prompts and what they earned."""

    groups: list[Group]
    """One group a prompt."""
    report: RewardReport


def evaluate_heldout(
    engine: Engine,
    rewards: RewardSet,
    examples: Sequence[EncodedExample],
    params: SamplingParams,
    *,
    seed: int = 0,
    num_samples: int = 1,
) -> HeldOut:
    """Answer each prompt and score the answers and the references in the same call.

    Every draw is keyed by (seed, 0, row, sample): the same for every model, whatever is answered beside it.
    """
    groups = answer_prompts(engine, examples, params, seed=seed, num_samples=num_samples)
    scored = rewards.score(groups)
    return HeldOut(list(scored.groups), scored.report)


def answer_prompts(
    engine: Engine, examples: Sequence[EncodedExample], params: SamplingParams, *, seed: int, num_samples: int
) -> list[Group]:
    """Groups with their samples, yet without rewards."""
    groups = [example.as_group() for example in examples]
    numbers = range(num_samples)
    requests = [SampleRequest(g.prompt_ids, tuple(draw_seed(seed, 0, g.row, n) for n in numbers)) for g in groups]
    answers = engine.sample(requests, params)
    return [replace(group, samples=answer) for group, answer in zip(groups, answers, strict=True)]


def heldout_metrics(items: Sequence[Item], start: Sequence[Item] | None = None) -> dict[str, float]:
    """The figures that are logged while training, by name; what has no value is left out.

    `n` prompts, `unscored` answers; `reward` with quartiles, `win_rate` and `tie_rate` against the reference, `ras`
    (the win rate by the paper's name) and `ras_ties_half`; `mean_length`, `clipped_ratio`; an interval's ends as
    `_low` and `_high`.

    Args:
        items: the answers of the policy as it is now.
        start: those of the policy before training to the same rows, for `nag` and `nag_win`; None without.
    """
    found = summarise(items, start).all
    metrics = {"n": float(found.prompts), "unscored": float(found.unscored)}
    figures = {
        "reward": found.reward.mean,
        "win_rate": found.ras,
        "ras": found.ras,
        "ras_ties_half": found.ras_ties_half,
        "nag": found.nag,
        "nag_win": found.nag_win,
    }
    for name, figure in figures.items():
        ends = {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
        metrics |= {key: value for key, value in ends.items() if value is not None}
    for name, quartile in zip(("q25", "q50", "q75"), found.reward.quartiles or (), strict=False):
        metrics[f"reward_{name}"] = quartile
    counts = found.counts
    if counted := counts.wins + counts.ties + counts.losses:
        metrics["tie_rate"] = counts.ties / counted
    lengths = {"mean_length": found.lengths.tokens.mean.value, "clipped_ratio": found.lengths.limited.value}
    return metrics | {name: value for name, value in lengths.items() if value is not None}
