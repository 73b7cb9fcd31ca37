"""Held-out evaluation: answer prompts, score the answers, and compare them with their references."""

from __future__ import annotations

from collections.abc import Sequence

from grao.data import EncodedExample
from grao.evaluation.items import Item
from grao.evaluation.model_summary import summarise
from grao.rewards import RewardSet, ScoredGroups
from grao.rollout import Engine, SamplingParams, sample_groups


def evaluate_heldout(
    engine: Engine,
    rewards: RewardSet,
    examples: Sequence[EncodedExample],
    params: SamplingParams,
    *,
    seed: int = 0,
    num_samples: int = 1,
) -> ScoredGroups:
    """Answer each prompt, and score the answers and the references in the same call. Return one group per prompt.

    Every draw is keyed by (seed, 0, row, sample): the same for every model, in any batch.
    """
    groups = [example.as_group() for example in examples]
    return rewards.score(sample_groups(engine, groups, params, seed=seed, step=0, num_samples=num_samples))


def heldout_metrics(items: Sequence[Item], start: Sequence[Item] | None = None) -> dict[str, float]:
    """Return the metrics logged while training, by name; metrics without a value are left out.

    `n` prompts, `unscored` answers; `reward` with quartiles, `win_rate` and `tie_rate` against the reference, `ras`
    (the win rate by the paper's name) and `ras_ties_half`; `mean_length`, `clipped_ratio`. The ends of intervals are
    `_low` and `_high`.

    Args:
        items: answers of the policy as it is now.
        start: answers of the policy before training to the same rows, for `nag` and `nag_win`.
    """
    found = summarise(items, start).all
    named = {
        "reward": found.reward.mean,
        "win_rate": found.ras,
        "ras": found.ras,
        "ras_ties_half": found.ras_ties_half,
        "nag": found.nag,
        "nag_win": found.nag_win,
    }
    values: dict[str, float | None] = {"n": float(found.prompts), "unscored": float(found.unscored)}
    for name, metric in named.items():
        values |= {name: metric.value, f"{name}_low": metric.low, f"{name}_high": metric.high}
    values |= zip(("reward_q25", "reward_q50", "reward_q75"), found.reward.quartiles or (), strict=False)
    values["tie_rate"] = found.counts.ties / found.counts.n if found.counts.n else None
    values |= {"mean_length": found.lengths.tokens.mean.value, "clipped_ratio": found.lengths.limited.value}
    return {name: value for name, value in values.items() if value is not None}
