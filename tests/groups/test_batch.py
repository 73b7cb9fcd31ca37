"""The layout of a batch against tensors written by hand."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from grao.groups import Group, GroupBatch, Member, collate, scored_members
from grao.policy import group_logprobs, install_scoring

PAD = 99
NAN = float("nan")


def sample(*ids: int, reward: float | None = None, finish="stop", logprobs=None) -> Member:
    return Member(ids, "", finish, logprobs=logprobs, reward=reward)


GROUPS = (
    Group(
        row=7,
        prompt="a",
        prompt_ids=(1, 2),
        samples=(sample(3, 4, 5, reward=1.0), sample(6, reward=None, finish="length")),
        reference=sample(7, 8, reward=0.5, finish="given"),
    ),
    Group(
        row=3,
        prompt="b",
        prompt_ids=(9, 10, 11),
        samples=(sample(12, reward=-1.0), sample(13, 14, reward=2.0)),
        rejected=sample(15, 16, 17, 18, finish="given"),
    ),
)


def test_collate_by_hand() -> None:
    """Oracle: every tensor of two small groups, written out: samples, then the reference, then the rejected."""
    batch = collate(GROUPS, pad_token_id=PAD)
    assert (batch.num_samples, batch.has_reference, batch.has_rejected, len(batch)) == (2, True, True, 2)
    assert (batch.reference_index, batch.rejected_index) == (2, 3)
    assert batch.rows_P.tolist() == [7, 3]
    assert batch.prompt_ids_PS.tolist() == [[1, 2, PAD], [9, 10, 11]]
    assert batch.prompt_mask_PS.tolist() == [[True, True, False], [True, True, True]]
    assert batch.ids_PMT.tolist() == [
        [[3, 4, 5, PAD], [6, PAD, PAD, PAD], [7, 8, PAD, PAD], [PAD] * 4],
        [[12, PAD, PAD, PAD], [13, 14, PAD, PAD], [PAD] * 4, [15, 16, 17, 18]],
    ]
    assert batch.lengths_PM.tolist() == [[3, 1, 2, 0], [1, 2, 0, 4]]
    assert torch.equal(batch.mask_PMT, batch.ids_PMT != PAD)
    expected = torch.tensor([[1.0, NAN, 0.5, NAN], [-1.0, 2.0, NAN, NAN]], dtype=torch.float64)
    assert torch.equal(batch.rewards_PM.nan_to_num(nan=-9.0), expected.nan_to_num(nan=-9.0))
    assert batch.scored_PM.tolist() == [[True, False, True, False], [True, True, False, False]]
    assert batch.truncated_PM.tolist() == [[False, True, False, False], [False] * 4]
    assert batch.sampling_logprobs_PMT is None


def test_parts_of_the_member_axis() -> None:
    """Oracle: the hand-written layout: G = 2 samples, reference at 2, rejected at 3."""
    batch = collate(GROUPS, pad_token_id=PAD)
    assert batch.samples(batch.lengths_PM).tolist() == [[3, 1], [1, 2]]
    assert batch.reference(batch.lengths_PM).tolist() == [2, 0]
    assert batch.rejected(batch.lengths_PM).tolist() == [0, 4]


def test_places_exist_only_for_members_that_some_group_has() -> None:
    """Oracle: by definition, without references the rejected answer follows the samples; without both M = G."""
    only_rejected = collate([GROUPS[1]], pad_token_id=PAD)
    assert (only_rejected.has_reference, only_rejected.rejected_index) == (False, 2)
    only_samples = collate([dataclasses.replace(GROUPS[0], reference=None)], pad_token_id=PAD)
    assert only_samples.ids_PMT.shape == (1, 2, 3)
    with pytest.raises(AssertionError, match="has no reference"):
        _ = only_samples.reference_index
    no_samples = collate([dataclasses.replace(GROUPS[0], samples=())], pad_token_id=PAD)
    assert (no_samples.num_samples, no_samples.reference_index) == (0, 0)


def test_each_prompt_is_counted_once() -> None:
    """Oracle: counted by hand: prompts 2 + 3, members 3 + 1 + 2 + 1 + 2 + 4."""
    assert collate(GROUPS, pad_token_id=PAD).num_tokens == 5 + 13


def test_mask_truncated_takes_the_sample_out_of_the_loss_only() -> None:
    """Oracle: the same batch, but for the mask of the one sample that met the limit; given members are never cut."""
    plain, masked = (collate(GROUPS, pad_token_id=PAD, mask_truncated=m) for m in (False, True))
    assert masked.lengths_PM.tolist() == [[3, 0, 2, 0], [1, 2, 0, 4]]
    assert torch.equal(masked.ids_PMT, plain.ids_PMT)
    assert torch.equal(masked.truncated_PM, plain.truncated_PM)
    assert torch.equal(masked.scored_PM, plain.scored_PM)


def test_reported_logprobs_only_where_every_sample_has_them() -> None:
    """Oracle: hand-written tensor; one sample without them and there are none."""
    samples = sample(3, 4, logprobs=(-0.5, -0.25)), sample(6, logprobs=(-1.0,))
    group = dataclasses.replace(GROUPS[0], samples=samples)
    batch = collate([group], pad_token_id=PAD)
    assert batch.sampling_logprobs_PMT is not None
    assert batch.sampling_logprobs_PMT.tolist() == [[[-0.5, -0.25], [-1.0, 0.0], [0.0, 0.0]]]
    assert collate([group, GROUPS[1]], pad_token_id=PAD).sampling_logprobs_PMT is None


def test_select_trims_padding_and_keeps_every_token() -> None:
    """Oracle: collating only those groups gives the same tensors, for random groups and random selections."""
    rng = random.Random(0)

    def member() -> Member:
        ids = tuple(rng.randrange(50) for _ in range(rng.randint(1, 6)))
        return sample(*ids, reward=rng.choice([None, rng.random()]), logprobs=tuple(-rng.random() for _ in ids))

    groups = [
        Group(row, "", tuple(rng.randrange(50) for _ in range(rng.randint(1, 6))), (member(), member()), member())
        for row in range(8)
    ]
    batch = collate(groups, pad_token_id=PAD)
    for _ in range(50):
        index = rng.sample(range(8), rng.randint(1, 8))
        ours = batch.select(index)
        expected = collate([groups[i] for i in index], pad_token_id=PAD)
        for f in dataclasses.fields(GroupBatch):
            a, b = getattr(ours, f.name), getattr(expected, f.name)
            assert torch.equal(a.nan_to_num(nan=-9), b.nan_to_num(nan=-9)) if isinstance(a, torch.Tensor) else a == b


def test_select_cuts_every_tensor_alike() -> None:
    """Oracle: slices of the whole, for [P, M], [P, M, T] advantages and the log-probs the batch carries."""
    batch = collate(GROUPS, pad_token_id=PAD)
    values_PMT = torch.arange(32.0).reshape(2, 4, 4)
    batch = batch.with_(
        advantages_PM=values_PMT, behaviour_logprobs_PMT=values_PMT + 100, frozen_logprobs_PMT=values_PMT + 200
    )
    first = batch.select([0])
    assert first.ids_PMT.shape == (1, 4, 3)
    assert first.prompt_ids_PS.tolist() == [[1, 2]]
    for name, shift in (("advantages_PM", 0), ("behaviour_logprobs_PMT", 100), ("frozen_logprobs_PMT", 200)):
        assert torch.equal(getattr(first, name), values_PMT[:1, :, :3] + shift)
    flat = batch.with_(advantages_PM=values_PMT[..., 0]).select([1, 0])
    assert torch.equal(flat.advantages_PM, values_PMT[[1, 0], :, 0])


def test_select_keeps_a_token_that_counts_behind_a_hole() -> None:
    """Oracle: a mask with a hole at place 0 still ends at its last True."""
    batch = collate([GROUPS[0]], pad_token_id=PAD)
    mask = batch.mask_PMT.clone()
    mask[0, :, 0] = False
    assert torch.equal(batch.with_(mask_PMT=mask).select([0]).ids_PMT, batch.ids_PMT)


def test_a_batch_in_which_nothing_counts() -> None:
    """Oracle: by definition no tensor becomes empty: one place stays, and it is masked."""
    truncated = dataclasses.replace(
        GROUPS[0], samples=(sample(3, 4, finish="length"), sample(6, finish="length")), reference=None
    )
    batch = collate([truncated], pad_token_id=PAD, mask_truncated=True).select([0])
    assert batch.ids_PMT.shape == (1, 2, 1)
    assert not batch.mask_PMT.any()
    assert batch.select([]).rows_P.shape == (0,)


def test_to_moves_every_tensor() -> None:
    """Oracle: the `meta` device: shapes and dtypes as they were, every tensor moved, every setting kept."""
    batch = collate(GROUPS, pad_token_id=PAD).with_(advantages_PM=torch.zeros(2, 4, dtype=torch.float64))
    moved = batch.to("meta")
    for f in dataclasses.fields(GroupBatch):
        a, b = getattr(batch, f.name), getattr(moved, f.name)
        if isinstance(a, torch.Tensor):
            assert (b.device.type, b.shape, b.dtype) == ("meta", a.shape, a.dtype)
        else:
            assert a == b
    assert batch.rows_P.device.type == "cpu"


def test_with_leaves_the_original_alone() -> None:
    """Oracle: a frozen value: the copy has the field, the original has not."""
    batch = collate(GROUPS, pad_token_id=PAD)
    changed = batch.with_(advantages_PM=torch.ones(2, 4))
    assert batch.advantages_PM is None
    assert changed.advantages_PM is not None
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.num_samples = 3  # type: ignore[misc]


def test_groups_of_one_batch_have_equally_many_samples() -> None:
    """Oracle: the message of the assertion: a bug of ours, never of the user's."""
    with pytest.raises(AssertionError, match="equally many samples"):
        collate([GROUPS[0], dataclasses.replace(GROUPS[1], samples=())], pad_token_id=PAD)


def test_an_empty_prompt_is_a_bug_of_ours() -> None:
    """Oracle: the message; scoring would read the first token off the row before (encoding refuses it first)."""
    with pytest.raises(AssertionError, match="nothing predicts a member's first one"):
        collate([dataclasses.replace(GROUPS[0], prompt_ids=())], pad_token_id=PAD)


def test_members_and_scored_members() -> None:
    """Oracle: counted by hand."""
    assert [m.ids[0] for m in GROUPS[0].members] == [3, 6, 7]
    assert [m.ids[0] for m in GROUPS[1].members] == [12, 13, 15]
    assert scored_members(GROUPS[0].members) == 2
    assert scored_members([None, sample(1, reward=0.0), sample(1)]) == 1


def test_tokens_that_the_policy_did_not_write() -> None:
    """Oracle: by hand; they stay among the ids and leave the mask, the lengths and the count of tokens."""
    written = Member((3, 4, 5, 6), "", "stop", mask=(True, False, False, True))
    group = dataclasses.replace(GROUPS[0], samples=(written, sample(6)), reference=None)
    batch = collate([group], pad_token_id=PAD)
    assert batch.ids_PMT.tolist() == [[[3, 4, 5, 6], [6, PAD, PAD, PAD]]]
    assert batch.mask_PMT.tolist() == [[[True, False, False, True], [True, False, False, False]]]
    assert batch.lengths_PM.tolist() == [[2, 1]]
    assert (written.length, sample(6, 7).length) == (2, 2)
    cut = dataclasses.replace(written, finish="length")
    group = dataclasses.replace(group, samples=(cut, sample(6)))
    assert not collate([group], pad_token_id=PAD, mask_truncated=True).mask_PMT[0, 0].any()


def test_a_mask_of_another_length_is_refused() -> None:
    """Oracle: the sentence."""
    with pytest.raises(ValueError, match="mask has 1 flags for 2 ids"):
        Member((3, 4), "", mask=(True,))


@pytest.mark.parametrize("scoring", ["stream", "padded"])
def test_later_tokens_see_those_that_the_policy_did_not_write(scoring: str) -> None:
    """Oracle: the same members without a mask: equal log-probs where the policy wrote, 0 elsewhere. And with another
    token in the hole (the control), the token behind it has another log-prob."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
        model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, initializer_range=0.5)).double().eval()
    install_scoring(model, scoring)  # type: ignore[arg-type]

    def logprobs(ids: tuple[int, ...], mask: tuple[bool, ...] | None) -> torch.Tensor:
        samples = (Member(ids, "", "stop", mask=mask), sample(6))
        group = dataclasses.replace(GROUPS[0], samples=samples, reference=None)
        return group_logprobs(model, collate([group], pad_token_id=0)).logprobs_PMT[0, 0].detach()

    mask = (True, False, False, True)
    masked, whole, other = logprobs((3, 4, 5, 6), mask), logprobs((3, 4, 5, 6), None), logprobs((3, 9, 5, 6), mask)
    assert (masked - whole * torch.tensor(mask)).abs().max() <= 1e-12
    assert abs(masked[3] - other[3]) > 1e-6
