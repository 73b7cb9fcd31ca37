from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from grao.data import EncodedExample, Example
from grao.evaluation import Item, evaluate_heldout, heldout_metrics, items_of, summarise
from grao.groups import Member
from grao.rewards import RewardFunction, RewardSet
from grao.rollout import SampleRequest, SamplingParams, draw_seed


def item(row: int, answer: float | None, reference: float | None, tokens: int = 2, finish: str = "stop") -> Item:
    return Item(row, 0, "p", "x", "y", None, tokens, finish, answer, reference)  # type: ignore[arg-type]


def five() -> list[Item]:
    """Lengths 1 to 5, one unscored, one cut off."""
    return [
        item(0, 4.0, 1.0, tokens=1),
        item(1, 1.0, 1.0, tokens=2),
        item(2, 0.0, 1.0, tokens=3, finish="length"),
        item(3, 3.0, 5.0, tokens=4),
        item(4, None, 1.0, tokens=5),
    ]


def test_metrics_by_hand() -> None:
    """Oracle: five answers, Wilson's interval of 1 of 4, by hand; bootstraps as `summarise` has them."""
    found = heldout_metrics(five())
    figures = summarise(five()).all
    interval, halves = figures.reward.mean, figures.ras_ties_half
    assert found == pytest.approx(
        {
            "n": 5,
            "unscored": 1,
            "mean_length": 3.0,
            "clipped_ratio": 0.2,
            "reward": 2.0,
            "reward_low": interval.low,
            "reward_high": interval.high,
            "reward_q25": 0.75,  # of 0, 1, 3, 4, linear between them
            "reward_q50": 2.0,
            "reward_q75": 3.25,
            "win_rate": 0.25,
            "win_rate_low": 0.0456,
            "win_rate_high": 0.6994,
            "ras": 0.25,
            "ras_low": 0.0456,
            "ras_high": 0.6994,
            "ras_ties_half": 0.375,
            "ras_ties_half_low": halves.low,
            "ras_ties_half_high": halves.high,
            "tie_rate": 0.25,
        },
        abs=5e-5,
    )


def test_nag_is_against_the_start_by_hand() -> None:
    """Oracle: of the four rows that both have scored, better, like, worse, better: (2 − 1) / 4 net, 2 / 4 wins."""
    start = [item(row, reward, 1.0) for row, reward in enumerate([3.0, 1.0, 2.0, 2.0, 9.0])]
    found = heldout_metrics(five(), start)
    assert (found["nag"], found["nag_win"]) == (0.25, 0.5)
    assert found["nag_low"] <= 0.25 <= found["nag_high"]
    assert {k: v for k, v in found.items() if "nag" not in k} == heldout_metrics(five())


def test_nothing_scored_gives_no_reward_and_no_win_rate() -> None:
    """Oracle: a mean of nothing is absent, not 0."""
    found = heldout_metrics([item(0, None, 1.0), item(1, None, None)])
    assert found == {"n": 2, "unscored": 2, "mean_length": 2.0, "clipped_ratio": 0.0}


class Echo:
    """Answers a prompt with its own ids."""

    def __init__(self) -> None:
        self.params: list[SamplingParams] = []
        self.seeds: list[tuple[int, ...]] = []

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[tuple[Member, ...]]:
        self.params.append(params)
        self.seeds += [request.seeds for request in requests]
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
    metrics = heldout_metrics(items_of(found.groups))
    assert (metrics["reward"], metrics["unscored"]) == (2.0, 1.0)
    assert (metrics["win_rate"], metrics["tie_rate"]) == (0.5, 0.5)
    assert engine.params == [greedy]
    assert found.report["as_number"].unscored == 1


def test_several_answers_a_prompt_have_seeds_and_items_of_their_own() -> None:
    """Oracle: the seeds by their definition; items numbered by row and sample, by hand."""
    examples = [EncodedExample(Example(row, "p", "1"), (7,) * 3, (1,), None) for row in (4, 9)]
    engine = Echo()
    found = evaluate_heldout(engine, RewardSet([as_number]), examples, SamplingParams(), seed=5, num_samples=2)
    assert engine.seeds == [tuple(draw_seed(5, 0, row, sample) for sample in (0, 1)) for row in (4, 9)]
    items = items_of(found.groups, kl=[0.5, None])
    assert [(i.row, i.sample, i.kl) for i in items] == [(4, 0, 0.5), (4, 1, None), (9, 0, None), (9, 1, None)]


def test_a_reward_that_compares_gives_the_reference_zero() -> None:
    """Oracle: R(y, y) = 0 by definition, so the answer wins where the comparison is positive."""

    def longer(completions: Sequence[str], reference: Sequence[str], **columns: Any) -> list[float]:
        return [float(c) - float(r) for c, r in zip(completions, reference, strict=True)]

    examples = [EncodedExample(Example(0, "p", "1"), (7,) * 3, (1,), None)]
    rewards = RewardSet([RewardFunction(longer, name="longer", comparison=True)])
    [item] = items_of(evaluate_heldout(Echo(), rewards, examples, SamplingParams(max_new_tokens=5)).groups)
    assert (item.reference_reward, item.reward) == (0.0, 2.0)
    assert heldout_metrics([item])["win_rate"] == 1.0
