from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from grao.data import EncodedExample
from grao.groups import Group, Member
from grao.policy import install_scoring
from grao.rewards import RewardSet
from grao.rollout import LocalEngine, draw_seed
from grao.training import GroupTrainer, Rollout, balance, collect
from grao.training.collect import unscore_truncated

CASES = [
    ([random.Random(case).randint(1, 50) for _ in range(random.Random(case + 99).randint(bins, 6))], bins)
    for case in range(25)
    for bins in (1, 2, 3, 4)
]


def test_balance_partitions_and_no_bin_is_empty() -> None:
    """Oracle: a partition by definition: every group once, nothing else, no empty part."""
    for tokens, bins in CASES:
        cut = balance(tokens, bins)
        assert len(cut) == bins
        assert all(cut)
        assert sorted(group for part in cut for group in part) == list(range(len(tokens)))


def test_balance_is_within_four_thirds_of_the_best_cut() -> None:
    """Oracle: every assignment tried; longest-first's bound 4/3 − 1/(3m) (Graham, 1969)."""

    def heaviest(tokens: list[int], places: tuple[int, ...], bins: int) -> int:
        return max(sum(t for t, place in zip(tokens, places, strict=True) if place == b) for b in range(bins))

    for tokens, bins in CASES:
        best = min(heaviest(tokens, places, bins) for places in product(range(bins), repeat=len(tokens)))
        ours = max(sum(tokens[group] for group in part) for part in balance(tokens, bins))
        assert best <= ours <= best * (4 / 3 - 1 / (3 * bins)) + 1e-9, (tokens, bins)


def test_balance_by_hand() -> None:
    """Oracle: worked by hand; ties go to the lower index, so the cut does not depend on the machine."""
    assert balance([5, 1, 4, 2], 2) == [[0, 1], [2, 3]]
    assert balance([3, 3, 3, 3], 2) == [[0, 2], [1, 3]]
    assert balance([0, 0, 9], 3) == [[2], [0], [1]]  # also groups without tokens: no micro-batch is empty
    with pytest.raises(AssertionError, match="2 groups cannot fill 3 micro-batches"):
        balance([1, 1], 3)


@pytest.fixture
def engine(make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast) -> LocalEngine:
    model = make_model()
    install_scoring(model)
    return LocalEngine(model, tokenizer)


def test_samples_depend_on_seed_step_row_and_member_only(
    engine: LocalEngine, encoded: list[EncodedExample], vowel_rewards: RewardSet
) -> None:
    """Oracle: the same rows in other batches and another order draw the same ids; another seed or step does not."""
    rollout = Rollout(max_new_tokens=6, num_generations=3)

    def draw(rows: list[int], step: int = 3, seed: int = 7, at: Rollout = rollout) -> dict[int, Group]:
        examples = [encoded[row] for row in rows]
        groups, _ = collect(examples, step=step, seed=seed, engine=engine, rewards=vowel_rewards, rollout=at)
        assert [g.row for g in groups] == rows  # in the order asked for
        return {g.row: g for g in groups}

    whole = draw(list(range(12)))
    turned = draw([11, 4, 0, 7, 9, 1, 2, 10, 3, 5, 6, 8])
    alone = {row: draw([row])[row] for row in range(12)}
    ids = {row: [s.ids for s in group.samples] for row, group in whole.items()}
    assert ids == {row: [s.ids for s in turned[row].samples] for row in range(12)}
    assert ids == {row: [s.ids for s in alone[row].samples] for row in range(12)}
    more = draw(list(range(12)), at=Rollout(max_new_tokens=6, num_generations=5))
    assert ids == {row: [s.ids for s in more[row].samples[:3]] for row in range(12)}  # G does not shift a member
    assert ids != {row: [s.ids for s in g.samples] for row, g in draw(list(range(12)), step=4).items()}
    assert ids != {row: [s.ids for s in g.samples] for row, g in draw(list(range(12)), seed=8).items()}


def member(text: str, finish: str = "stop") -> Member:
    ids = tuple(range(3, 3 + len(text.split())))
    return Member(ids=ids, text=text, finish=finish, logprobs=(0.0,) * len(ids))  # type: ignore[arg-type]


@pytest.fixture
def cut_off(encoded: list[EncodedExample]) -> dict[tuple[int, ...], list[Member]]:
    """For rows 0 and 1: a finished sample of reward 1/2 and one of reward 1 that was cut off."""
    return {encoded[r].prompt_ids: [member("a b"), member("a e i", finish="length")] for r in (0, 1)}


def test_requests_are_keyed(
    fixed_engine: type, cut_off: dict, encoded: list[EncodedExample], vowel_rewards: RewardSet
) -> None:
    """Oracle: `draw_seed` itself, for each place; the groups hold what the engine answered."""
    engine = fixed_engine(cut_off)
    rollout = Rollout(num_generations=2)
    groups, report = collect(encoded[:2], step=5, seed=9, engine=engine, rewards=vowel_rewards, rollout=rollout)
    assert engine.seeds == [tuple(draw_seed(9, 5, row, j) for j in range(2)) for row in (0, 1)]
    assert [[s.reward for s in g.samples] for g in groups] == [[0.5, 1.0], [0.5, 1.0]]
    assert [g.reference.reward for g in groups if g.reference] == [1.0, 1.0]  # "a e" and "i": scored like a sample
    assert report.metrics()["rewards/vowels/mean"] == 0.75


def test_unscored_truncated_samples_lose_their_reward_only(
    fixed_engine: type, cut_off: dict, encoded: list[EncodedExample], vowel_rewards: RewardSet
) -> None:
    """Oracle: by hand: None for the one cut off, never 0; `keep` and `mask` leave the rewards as they were."""
    for choice, expected in (("keep", [0.5, 1.0]), ("mask", [0.5, 1.0]), ("unscored", [0.5, None])):
        rollout = Rollout(num_generations=2, truncated=choice)  # type: ignore[arg-type]
        groups, _ = collect(
            encoded[:1], step=0, seed=0, engine=fixed_engine(cut_off), rewards=vowel_rewards, rollout=rollout
        )
        assert [s.reward for s in groups[0].samples] == expected
        assert [s.text for s in groups[0].samples] == ["a b", "a e i"]


def test_a_reference_is_never_taken_for_truncated() -> None:
    """Oracle: by hand: `finish` of a reference is "given", whatever its length."""
    group = Group(0, "a", (3,), (), reference=Member((4,), "b", reward=1.0))
    assert unscore_truncated(group).reference == group.reference


@pytest.mark.parametrize(
    ("choice", "advantages", "tokens", "unscored"),
    [
        # rewards 1/2, 1 and reference 1 in one group: mean 5/6, σ = √(1/18)
        ("keep", [-(2**0.5), 0.5**0.5, 0.5**0.5], [2, 3, 3], 0.0),
        ("mask", [-(2**0.5), 0.5**0.5, 0.5**0.5], [2, 0, 3], 0.0),
        # rewards 1/2 and reference 1: mean 3/4, σ 1/4
        ("unscored", [-1.0, 0.0, 1.0], [2, 3, 3], 0.5),
    ],
)
def test_the_three_choices_reach_the_loss_and_are_counted(
    choice: str,
    advantages: list[float],
    tokens: list[int],
    unscored: float,
    fixed_engine: type,
    cut_off: dict,
    encoded: list[EncodedExample],
    make_trainer: Callable[..., GroupTrainer],
) -> None:
    """Oracle: by hand, for row 0: reference "a e" and its end, 3 tokens, reward 1; samples as in `cut_off`."""
    from grao.objectives import GRAO

    trainer = make_trainer(
        GRAO(),
        rows=encoded[:1],
        engine=fixed_engine(cut_off),
        rollout=Rollout(num_generations=2, truncated=choice),  # type: ignore[arg-type]
        per_device_train_batch_size=1,
        max_steps=1,
    )
    seen = []
    plain_loss = trainer.compute_loss

    def compute_loss(model, inputs, *args, **kwargs):  # type: ignore[no-untyped-def]
        seen.append(inputs["groups"])
        return plain_loss(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute_loss  # type: ignore[method-assign]
    trainer.train()
    [batch] = seen
    assert batch.advantages_PM[0].tolist() == pytest.approx(advantages)
    assert batch.lengths_PM[0].tolist() == tokens
    logged = trainer.state.log_history[0]
    assert logged["completions/clipped_ratio"] == 0.5
    assert logged["groups/unscored"] == unscored
