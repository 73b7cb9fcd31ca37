from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from grao.data import EncodedExample, Example
from grao.evaluation import bootstrap_mean, evaluate_heldout, heldout_metrics, win_tie_loss
from grao.groups import Group, Member
from grao.rewards import RewardFunction, RewardSet
from grao.rollout import SampleRequest, SamplingParams


def group(
    answer: float | None, reference: float | None, n: int = 2, finish: str = "stop", given: bool = True
) -> Group:
    sample = Member(tuple(range(n)), "x", finish, reward=answer)  # type: ignore[arg-type]
    return Group(0, "p", (3,), (sample,), Member((1,), "y", reward=reference) if given else None)


def test_win_tie_loss_by_hand() -> None:
    """Oracle: 2 > 1, 1 = 1, 0 < 1, −1 < 1; pairs with an unscored member or without reference are in no count."""
    groups = [
        group(2.0, 1.0),
        group(1.0, 1.0),
        group(0.0, 1.0),
        group(-1.0, 1.0),
        group(None, 1.0),
        group(1.0, None),
        group(5.0, 1.0, given=False),
    ]
    assert win_tie_loss(groups) == (1, 1, 2)


def test_metrics_by_hand() -> None:
    """Oracle: five answers of lengths 1 to 5, one unscored, one cut off; Wilson's interval of 1 of 4, by hand."""
    groups = [
        group(4.0, 1.0, n=1),
        group(1.0, 1.0, n=2),
        group(0.0, 1.0, n=3, finish="length"),
        group(3.0, 5.0, n=4),
        group(None, 1.0, n=5),
    ]
    found = heldout_metrics(groups)
    interval = bootstrap_mean([4.0, 1.0, 0.0, 3.0])
    assert found == pytest.approx(
        {
            "n": 5,
            "unscored": 1,
            "mean_length": 3.0,
            "clipped_ratio": 0.2,
            "reward": 2.0,
            "reward_low": interval.low,
            "reward_high": interval.high,
            "reward_q25": 1.0,  # of 0, 1, 3, 4: the value at place ⌊q·n⌋
            "reward_q50": 3.0,
            "reward_q75": 4.0,
            "win_rate": 0.25,
            "win_rate_low": 0.0456,
            "win_rate_high": 0.6994,
            "tie_rate": 0.25,
        },
        abs=5e-5,
    )


def test_nothing_scored_gives_no_reward_and_no_win_rate() -> None:
    """Oracle: a mean of nothing is absent, not 0."""
    found = heldout_metrics([group(None, 1.0), group(None, None)])
    assert found == {"n": 2, "unscored": 2, "mean_length": 2.0, "clipped_ratio": 0.0}


class Echo:
    """Answers a prompt with its own ids."""

    def __init__(self) -> None:
        self.params: list[SamplingParams] = []

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[tuple[Member, ...]]:
        self.params.append(params)
        return [tuple(Member(r.prompt_ids, str(len(r.prompt_ids)), "stop") for _ in r.seeds) for r in requests]

    def sync(self, model: Any, version: str) -> None: ...


def as_number(completions: Sequence[str], **columns: Any) -> list[float | None]:
    return [None if c == "2" else float(c) for c in completions]


def test_one_greedy_answer_a_prompt_scored_with_the_references() -> None:
    """Oracle: an engine whose answer is the prompt's length; rewards and comparison by hand."""
    examples = [
        EncodedExample(Example(row, "p", reference), (7,) * (row + 1), (1,), None)
        for row, reference in enumerate(["0", "9", "3"])
    ]
    engine = Echo()
    greedy = SamplingParams(max_new_tokens=5, temperature=0.0)
    found = evaluate_heldout(engine, RewardSet([as_number]), examples, greedy)
    assert [g.samples[0].reward for g in found.groups] == [1.0, None, 3.0]
    assert [g.row for g in found.groups] == [0, 1, 2]
    assert (found.metrics["reward"], found.metrics["unscored"]) == (2.0, 1.0)
    assert (found.metrics["win_rate"], found.metrics["tie_rate"]) == (0.5, 0.5)
    assert engine.params == [greedy]


def test_a_reward_that_compares_gives_the_reference_zero() -> None:
    """Oracle: R(y, y) = 0 by definition, so the answer wins where the comparison is positive."""

    def longer(completions: Sequence[str], reference: Sequence[str], **columns: Any) -> list[float]:
        return [float(c) - float(r) for c, r in zip(completions, reference, strict=True)]

    examples = [EncodedExample(Example(0, "p", "1"), (7,) * 3, (1,), None)]
    rewards = RewardSet([RewardFunction(longer, name="longer", comparison=True)])
    found = evaluate_heldout(Echo(), rewards, examples, SamplingParams(max_new_tokens=5))
    assert found.groups[0].reference is not None
    assert found.groups[0].reference.reward == 0.0
    assert (found.metrics["reward"], found.metrics["win_rate"]) == (2.0, 1.0)
