"""Several updates on one collection, against a plain loop and against counting."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from grao.data import EncodedExample
from grao.groups import GroupBatch, Member, collate
from grao.objectives import GRAO, GRPO, PPO, SFT, Objective, Progress
from grao.policy import group_logprobs, install_scoring
from grao.training import GroupTrainer, Monitor, Rollout, Stage, StageSequence
from grao.training.rollout_reuse import ReuseSampler, RolloutBatch

Make = Callable[..., GroupTrainer]
MicroBatches = Callable[[GroupTrainer], list[GroupBatch]]


def reused(iterations: int = 2, mini_batches: int = 1, generations: int = 2) -> Rollout:
    return Rollout(
        max_new_tokens=4, num_generations=generations, num_iterations=iterations, num_mini_batches=mini_batches
    )


def updates(batches: list[GroupBatch], accumulate: int) -> list[list[int]]:
    """The rows of each update, in no order, from its micro-batches."""
    parts = [batches[i : i + accumulate] for i in range(0, len(batches), accumulate)]
    return [sorted(row for batch in part for row in batch.rows_P.tolist()) for part in parts]


# --- against a plain loop --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(GRPO(), id="grpo", marks=pytest.mark.slow),
        pytest.param(GRPO(kl=0.05, aggregation="token_mean"), id="grpo-kl"),
        pytest.param(GRAO(), id="grao", marks=pytest.mark.slow),
    ],
)
def test_two_passes_of_two_mini_batches_equal_a_plain_loop(
    objective: Objective,
    make_trainer: Make,
    make_model: Callable[..., PreTrainedModel],
    micro_batches: MicroBatches,
    same_weights: Callable[..., None],
    fixed_engine: type,
    answers: dict[tuple[int, ...], list[Member]],
    encoded: list[EncodedExample],
) -> None:
    """Oracle: AdamW in a loop: log π_behaviour once a collection, before its four updates, then loss after loss.

    In float64 with 1e-10, because Adam's quotient blows up round-off where a gradient is nearly 0. Which rows make an
    update is taken from the trainer; the tests below count them.
    """
    engine = fixed_engine(answers)
    trainer = make_trainer(
        objective,
        make_model().double(),
        engine=engine,
        rollout=reused(2, 2, generations=3),
        gradient_accumulation_steps=2,
        max_steps=8,
        max_grad_norm=0.5,
    )
    seen = micro_batches(trainer)
    trainer.train()
    rows = updates(seen, accumulate=2)
    assert [len(asked) for asked in engine.prompts] == [8, 8]

    model = make_model().double().train()
    install_scoring(model)
    frozen = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.0)
    for step, of_step in enumerate(rows):
        groups = [_scored(encoded[row], answers) for row in of_step]
        batch = collate(groups, pad_token_id=0, mask_reference=not objective.needs.reference)
        if step % 4 == 0:
            behaviour = copy.deepcopy(model)
        with torch.no_grad():
            batch = batch.with_(
                advantages_PM=objective.advantages(batch),
                behaviour_logprobs_PMT=(
                    None if objective.needs.behaviour == "never" else group_logprobs(behaviour, batch).logprobs_PMT
                ),
                frozen_logprobs_PMT=group_logprobs(frozen, batch).logprobs_PMT,
            )
        loss = objective.loss(
            batch, group_logprobs(model, batch), objective.denominator(batch), Progress(step, 8)
        ).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        assert trainer.state.log_history[step]["loss"] == pytest.approx(loss.item(), abs=1e-6)  # logged in float32
    same_weights(trainer.model, model, atol=1e-10)


def _scored(example: EncodedExample, answers: dict[tuple[int, ...], list[Member]]) -> Any:
    """The group of a row with its answers and reference, scored by the share of vowels."""

    def scored(member: Any) -> Any:
        words = member.text.split()
        return replace(member, reward=sum(word in "aei" for word in words) / len(words))

    group = example.as_group()
    samples = tuple(scored(member) for member in answers[example.prompt_ids])
    return replace(group, samples=samples, reference=scored(group.reference))


# --- ratios ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [GRPO(), PPO()], ids=["grpo", "ppo"])
def test_the_ratio_is_1_at_first_and_moves_then(objective: Objective, make_trainer: Make) -> None:
    """Oracle: an identity: the policy is the behaviour at a collection's first update; then large steps leave it."""
    trainer = make_trainer(objective, rollout=reused(3, generations=4), max_steps=6, learning_rate=5e-2)
    trainer.train()
    lines = trainer.state.log_history[:6]
    clipped = [line["clip_ratio/region_mean"] for line in lines]
    assert clipped[0] == clipped[3] == 0.0
    assert min(clipped[1:3]) > 0
    assert max(clipped[4:6]) > 0
    if isinstance(objective, PPO):
        ratios = [line["ratio/mean"] for line in lines]
        assert (ratios[0], ratios[3]) == (1.0, 1.0)
        assert all(abs(ratio - 1) > 1e-3 for ratio in (*ratios[1:3], *ratios[4:]))


def test_an_objective_without_a_ratio_is_given_no_behaviour(
    make_trainer: Make, micro_batches: MicroBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: forward passes counted: GRAO's two updates make two, one each, and none for log π_behaviour."""
    trainer = make_trainer(GRAO(), rollout=reused(2), max_steps=4)
    asked: list[int] = []
    monkeypatch.setattr("grao.training.rollout_constants.live_logprobs", lambda state, batch: asked.append(1))
    seen = micro_batches(trainer)
    trainer.train()
    assert (len(seen), asked) == (4, [])
    assert all(batch.behaviour_logprobs_PMT is None for batch in seen)
    assert torch.equal(seen[0].ids_PMT, seen[1].ids_PMT)
    assert not torch.equal(seen[1].rows_P, seen[2].rows_P)


@pytest.mark.slow
def test_the_kl_is_watched_at_a_collection_that_serves_a_step_that_is_due(make_trainer: Make) -> None:
    """Oracle: by hand: of 8 steps in collections of 2, every third is due: 0, 3, 6; only steps 4 and 5 go without."""
    trainer = make_trainer(GRAO(), rollout=reused(2), max_steps=8, monitor=Monitor(kl_every=3))
    trainer.train()
    assert ["kl" in line for line in trainer.state.log_history[:8]] == [True] * 4 + [False] * 2 + [True] * 2


# --- which rows, and when --------------------------------------------------------------------------------------------


def test_which_rows_are_drawn_and_trained_on(
    make_trainer: Make,
    micro_batches: MicroBatches,
    fixed_engine: type,
    answers: dict[tuple[int, ...], list[Member]],
    encoded: list[EncodedExample],
) -> None:
    """Oracle: counting the engine's requests: 12 rows, collections of 4: three are a permutation of the rows.

    Both passes over a collection train on each of its rows once, in two mini-batches of 2; epochs by division.
    """
    engine = fixed_engine(answers)
    trainer = make_trainer(GRPO(), engine=engine, rollout=reused(2, 2), max_steps=24)
    seen = micro_batches(trainer)
    trainer.train()
    row_of = {example.prompt_ids: example.example.row for example in encoded}
    collections = [[row_of[prompt] for prompt in asked] for asked in engine.prompts]
    assert [len(rows) for rows in collections] == [4] * 6
    assert engine.versions == ["0", "4", "8", "12", "16", "20"]
    passes = [[row for rows in collections[i : i + 3] for row in rows] for i in (0, 3)]
    assert [sorted(rows) for rows in passes] == [list(range(12))] * 2
    assert passes[0] != passes[1]

    trained = updates(seen, accumulate=1)
    for number, rows in enumerate(collections):
        first, second, third, fourth = trained[4 * number : 4 * number + 4]
        assert (first, second) == (sorted(rows[:2]), sorted(rows[2:]))
        assert sorted(third + fourth) == sorted(rows)
    later = [sorted(trained[4 * number + 2 : 4 * number + 4]) for number in range(6)]
    assert later != [sorted(trained[4 * number : 4 * number + 2]) for number in range(6)]  # shuffled anew

    epochs = [line["epoch"] for line in trainer.state.log_history[:24]]
    assert epochs == pytest.approx([step / 12 for step in range(1, 25)])


def test_an_epoch_of_collections(make_trainer: Make, fixed_engine: type, answers: dict[Any, Any]) -> None:
    """Oracle: by hand: 12 rows are 6 collections of 2, with 2 updates each: 12 steps; every row is asked for once."""
    engine = fixed_engine(answers)
    trainer = make_trainer(GRPO(), engine=engine, rollout=reused(2), max_steps=-1, num_train_epochs=1)
    trainer.train()
    assert trainer.state.global_step == 12
    assert Counter(prompt for asked in engine.prompts for prompt in asked) == dict.fromkeys(answers, 1)
    assert trainer.state.log_history[11]["epoch"] == 1.0


def test_stages_share_the_passes_over_the_data(
    make_trainer: Make,
    micro_batches: MicroBatches,
    fixed_engine: type,
    answers: dict[tuple[int, ...], list[Member]],
) -> None:
    """Oracle: counting: SFT takes 2 rows a step and the collections 2 each: 2 + 4 of them are the 12 rows, once."""
    trainer = make_trainer(
        [Stage(SFT(), 2), Stage(GRPO(), 8)], engine=fixed_engine(answers), rollout=reused(2), learning_rate=1e-3
    )
    seen = micro_batches(trainer)
    trainer.train()
    rows = updates(seen, accumulate=1)
    assert rows[2::2] == rows[3::2]
    assert sorted(row for taken in (*rows[:2], *rows[2::2]) for row in taken) == list(range(12))
    assert trainer.state.log_history[9]["epoch"] == 1.0


def sampler(
    stages: list[Stage], rows: int, per_step: int, iterations: int, mini_batches: int, seed: int = 3
) -> ReuseSampler:
    return ReuseSampler(rows, per_step, mini_batches, StageSequence(stages, iterations * mini_batches), seed)


def test_the_order_of_rows_by_hand() -> None:
    """Oracle: counting: places of later updates repeat their collection, and a pass leaves out what fills none.

    7 rows, 2 a step: an SFT step takes 2; a collection of two mini-batches takes 4, three times. The pass that the SFT
    steps began has 3 rows left, too few for a collection: they are left out, and the next pass begins.
    """
    order = list(sampler([Stage(SFT(), 2), Stage(GRPO(), 12)], 7, 2, iterations=3, mini_batches=2))
    assert len(order) == 2 * 14
    imitated, first, second = order[:4], order[4:16], order[16:]
    assert len(set(imitated)) == 4
    for collection in (first, second):
        assert collection == collection[:4] * 3
        assert len(set(collection[:4])) == 4
    counted = sampler([Stage(GRPO(), 12)], 7, 2, iterations=3, mini_batches=2)
    assert len(counted) == len(list(counted)) == 24


def test_every_pass_is_another_permutation_and_a_seed_repeats_it() -> None:
    """Oracle: counting: 6 rows, collections of 2: each three are all rows; equal seeds give equal orders."""
    stages = [Stage(GRPO(), 36)]
    order = list(sampler(stages, 6, 2, iterations=2, mini_batches=1))
    passes = [[row for i in range(p, p + 12, 4) for row in order[i : i + 2]] for p in range(0, 72, 12)]
    assert all(sorted(rows) == list(range(6)) for rows in passes)
    assert len({tuple(rows) for rows in passes}) == len(passes)
    assert order == list(sampler(stages, 6, 2, iterations=2, mini_batches=1))
    assert order != list(sampler(stages, 6, 2, iterations=2, mini_batches=1, seed=4))
    longer = list(sampler([Stage(GRPO(), 72)], 6, 2, iterations=2, mini_batches=1))
    assert longer[: len(order)] == order  # a run that is made longer and resumed goes on in the same order


def test_passes_by_hand() -> None:
    """Oracle: rows taken over rows: 2 steps of SFT take 4 of 8, a collection's 4 rows are spread over its 4 steps."""
    counted = sampler([Stage(SFT(), 2), Stage(GRPO(), 8)], 8, 2, iterations=2, mini_batches=2)
    assert [counted.passes(step) * 8 for step in range(11)] == [0, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12]


# --- a collection ----------------------------------------------------------------------------------------------------


def test_parts_of_a_collection(encoded: list[EncodedExample]) -> None:
    """Oracle: counting: the first pass in order; each later one a permutation, the same for the same seed."""
    groups = [example.as_group() for example in encoded[:6]]
    batch = collate(groups, pad_token_id=0)

    def parts(seed: int) -> list[list[int]]:
        collection = RolloutBatch(groups, batch, micro_batches=3, mini_batches=3, seed=seed)
        found = []
        for turn in range(9):
            chosen, part = collection.part(turn)
            assert [group.row for group in chosen] == part.rows_P.tolist()
            found.append(part.rows_P.tolist())
        return found

    rows = parts(seed=5)
    assert rows[:3] == [[0, 1], [2, 3], [4, 5]]
    later = [[row for part in rows[i : i + 3] for row in part] for i in (3, 6)]
    assert [sorted(one) for one in later] == [list(range(6))] * 2
    assert later[0] != later[1]
    assert rows == parts(seed=5) != parts(seed=6)


def test_a_collection_of_one_mini_batch_is_used_whole(encoded: list[EncodedExample]) -> None:
    """Oracle: the collection itself."""
    groups = [example.as_group() for example in encoded[:3]]
    batch = collate(groups, pad_token_id=0)
    collection = RolloutBatch(groups, batch, micro_batches=1, mini_batches=1, seed=0)
    assert all(collection.part(turn) == (groups, batch) for turn in range(3))


@pytest.mark.slow
def test_a_collection_is_not_resumed_in_its_middle(make_trainer: Make, tmp_path: Any) -> None:
    """Oracle: the sentence; a checkpoint that a callback made at the wrong time does not end the run in silence."""
    from transformers import TrainerCallback

    class SavesAtStep3(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_save = state.global_step == 3

    make_trainer(GRPO(), rollout=reused(2), max_steps=4, callbacks=[SavesAtStep3()]).train()
    with pytest.raises(ValueError, match="Cannot resume mid-rollout: rollouts are not checkpointed"):
        make_trainer(GRPO(), rollout=reused(2), max_steps=4).train(
            resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3")
        )
