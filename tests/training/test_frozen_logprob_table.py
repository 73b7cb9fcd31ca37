"""Constants of a collection: made part by part, without gradient and without dropout; the frozen policy's once."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from grao.data import EncodedExample
from grao.groups import Group, GroupBatch, Member, collate
from grao.objectives import DPO, GRPO, SFT
from grao.policy import FrozenPolicy, group_logprobs, install_scoring
from grao.training import GroupTrainer, Stage
from grao.training.frozen_anchor import FrozenAnchor
from grao.training.frozen_logprob_table import FrozenLogprobTable
from grao.training.micro_batches import map_micro_batches, samples_only

Make = Callable[..., GroupTrainer]


@pytest.fixture
def policy(make_model: Callable[..., PreTrainedModel]) -> Any:
    model = make_model().double().eval()
    install_scoring(model)
    return model


@pytest.fixture
def batch(encoded: list[EncodedExample], answers: dict[tuple[int, ...], list[Member]]) -> GroupBatch:
    """Five groups of three samples and a reference, of unlike lengths."""
    groups = [
        Group(e.example.row, e.example.prompt, e.prompt_ids, tuple(answers[e.prompt_ids]), e.as_group().reference)
        for e in encoded[:5]
    ]
    return collate(groups, pad_token_id=0)


# --- part by part ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [[[0, 1, 2, 3, 4]], [[4], [0, 2], [1, 3]], [[0], [1], [2], [3], [4]]])
def test_a_constant_does_not_depend_on_the_cut(cut: list[list[int]], policy: Any, batch: GroupBatch) -> None:
    """Oracle: the whole batch in one forward pass; 0 wherever no token is; no gradient."""
    found = map_micro_batches(batch, cut, lambda part: group_logprobs(policy, part).logprobs_PMT, "cpu")
    expected = group_logprobs(policy, batch).logprobs_PMT.detach()
    assert not found.requires_grad
    assert float((found - expected).abs().max()) < 1e-12
    assert float(found[~batch.mask_PMT].abs().max()) == 0
    assert float(found[batch.mask_PMT].max()) < 0


def test_every_group_is_put_in_its_place() -> None:
    """Oracle: a constant that says which row it is of; a part's shorter length leaves zeros behind it."""
    groups = [Group(row, "", (5,), (Member((6,) * (row + 1), ""),)) for row in range(4)]
    batch = collate(groups, pad_token_id=0)

    def rows(part: GroupBatch) -> torch.Tensor:
        return part.rows_P[:, None, None].double().expand(part.mask_PMT.shape)

    found = map_micro_batches(batch, [[1, 0], [3], [2]], rows, "cpu")
    assert found[:, 0].tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [2, 2, 2, 0], [3, 3, 3, 3]]


def test_given_members_are_masked(batch: GroupBatch) -> None:
    """Oracle: by hand: three samples keep their tokens, the reference loses them; the batch itself is as it was."""
    drawn = samples_only(batch)
    assert torch.equal(drawn.mask_PMT[:, :3], batch.mask_PMT[:, :3])
    assert not drawn.mask_PMT[:, 3].any()
    assert batch.mask_PMT[:, 3].any(-1).all()


# --- the table -------------------------------------------------------------------------------------------------------


def pairs(examples: list[EncodedExample], rows: list[int]) -> GroupBatch:
    return collate([examples[row].as_group() for row in rows], pad_token_id=0)


def test_the_table_knows_what_the_frozen_policy_says(policy: Any, preferences: list[EncodedExample]) -> None:
    """Oracle: the frozen policy asked for batches of another composition and order; told after each batch."""
    frozen = FrozenPolicy(policy)
    told: list[int] = []
    table = FrozenLogprobTable(
        (pairs(preferences, list(range(start, min(start + 5, 12)))) for start in (0, 5, 10)),
        frozen.logprobs,
        told.append,
    )
    assert told == [5, 10, 12]
    for rows in ([0, 1, 2, 3, 4], [11, 0], [7], [9, 3, 10, 2, 5, 6]):
        batch = pairs(preferences, rows)
        found = table.logprobs(batch)
        assert found.shape == batch.mask_PMT.shape
        assert float((found - frozen.logprobs(batch)).abs().max()) < 1e-12
        assert float(found[batch.mask_PMT].max()) < 0
    together = pairs(preferences, [5, 6, 7, 8, 9])
    assert torch.equal(table.logprobs(together), frozen.logprobs(together))  # the same batch: the same bits


class Counted:
    """Counts the rows that any frozen policy is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        plain = FrozenPolicy.logprobs

        def logprobs(frozen: FrozenPolicy, batch: GroupBatch, **given: Any) -> torch.Tensor:
            self.rows += batch.rows_P.tolist()
            return plain(frozen, batch, **given)

        monkeypatch.setattr(FrozenPolicy, "logprobs", logprobs)


def test_the_frozen_policy_is_asked_once_for_every_row(
    make_trainer: Make, preferences: list[EncodedExample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: counting: three passes over 12 rows ask for each once; then its copy of the weights is let go."""
    counted, told = Counted(monkeypatch), []
    trainer = make_trainer(
        DPO(), rows=preferences, max_steps=9, per_device_train_batch_size=4, progress=lambda *said: told.append(said)
    )
    assert trainer.frozen_policy is not None
    trainer.train()
    assert counted.rows == list(range(12))
    assert trainer.frozen_policy is None
    assert told == [("rows under the frozen policy", done, 12) for done in (4, 8, 12)]


@pytest.mark.parametrize(("steps", "tabulated"), [(2, False), (3, True)])
def test_less_than_one_pass_builds_no_table(
    steps: int,
    tabulated: bool,
    make_trainer: Make,
    preferences: list[EncodedExample],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Oracle: counting: 2 steps of 2 × 2 prompts need 8 of 12 rows, and ask for those; 3 steps need them all."""
    counted = Counted(monkeypatch)
    trainer = make_trainer(DPO(), rows=preferences, max_steps=steps, gradient_accumulation_steps=2)
    trainer.train()
    assert (trainer.frozen_policy is None) is tabulated
    assert Counter(counted.rows) == Counter(set(counted.rows))
    assert len(counted.rows) == (12 if tabulated else 8)


@pytest.mark.slow
def test_samples_are_never_tabulated(make_trainer: Make) -> None:
    """Oracle: a new sample is in no table: GRPO keeps its frozen policy over any number of passes."""
    trainer = make_trainer(GRPO(kl=0.05), max_steps=7)
    trainer.train()
    assert trainer.frozen_policy is not None


def test_the_table_changes_no_weight(
    make_trainer: Make,
    make_model: Callable[..., PreTrainedModel],
    preferences: list[EncodedExample],
    same_weights: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Oracle: the frozen policy asked at every step; to 1e-10 in float64, because the batches differ."""

    def run() -> Any:
        trainer = make_trainer(DPO(), make_model().double(), rows=preferences, max_steps=7)
        trainer.train()
        return trainer

    with_table = run()
    monkeypatch.setattr(FrozenAnchor, "tabulate", lambda *given: None)
    without = run()
    assert without.frozen_policy is not None
    same_weights(with_table.model, without.model, atol=1e-10)
    margins = [[line["rewards/margins"] for line in t.state.log_history[:7]] for t in (with_table, without)]
    assert margins[0] == pytest.approx(margins[1], abs=1e-9)
    assert max(map(abs, margins[0])) > 0.1


@pytest.mark.slow
def test_the_table_of_a_later_stage_is_of_its_own_start(
    make_trainer: Make,
    make_model: Callable[..., PreTrainedModel],
    preferences: list[EncodedExample],
    micro_batches: Callable[[GroupTrainer], list[GroupBatch]],
) -> None:
    """Oracle: the policy that the first stage alone leaves, in plain forward passes."""
    first = make_trainer(SFT(), max_steps=3, learning_rate=3e-2)
    first.train()
    start = copy.deepcopy(first.model).eval()  # type: ignore[union-attr]
    chain = make_trainer([Stage(SFT(), 3), Stage(DPO(), 6)], rows=preferences, learning_rate=3e-2)
    batches = micro_batches(chain)
    chain.train()
    assert chain.frozen_policy is None
    for batch in batches[3:]:
        assert batch.frozen_logprobs_PMT is not None
        with torch.no_grad():
            expected = group_logprobs(start, batch).logprobs_PMT
        torch.testing.assert_close(batch.frozen_logprobs_PMT, expected, atol=1e-5, rtol=0)
