from __future__ import annotations

import math
import random
from statistics import fmean, pstdev

import pytest
import torch

from grao.groups import Group, GroupBatch, Member, collate
from grao.objectives import GRAO, Mean
from grao.training.group_metrics import add_sample_metrics, advantage_bound, group_metrics, likelihood_metrics
from grao.training.meter import Meter, merge_meters


def member(n: int, reward: float | None, finish: str = "stop") -> Member:
    return Member(tuple(range(3, 3 + n)), "x", finish, reward=reward)  # type: ignore[arg-type]


def batch_of(groups: list[Group]) -> GroupBatch:
    batch = collate(groups, pad_token_id=0)
    return batch.with_(advantages_PM=GRAO().advantages(batch))


@pytest.fixture
def four() -> list[Group]:
    """Samples above, below, like and partly unscored beside their reference."""
    return [
        Group(0, "p", (3,), (member(2, 2.0), member(4, 3.0)), reference=member(3, 1.0)),
        Group(1, "p", (3, 4), (member(1, 0.0), member(3, 0.0, "length")), reference=member(2, 1.0)),
        Group(2, "p", (3,), (member(2, 1.0), member(2, None)), reference=member(1, 0.0)),
        Group(3, "p", (3,), (member(2, None), member(2, None)), reference=member(1, 0.5)),
    ]


def values(metrics: dict[str, Mean]) -> dict[str, float]:
    meter = Meter()
    meter.add(metrics)
    return merge_meters([meter.state()])


def test_group_metrics_by_hand(four: list[Group]) -> None:
    """Oracle: worked by hand; an unscored member is in no mean and no count but its own."""
    found = values(group_metrics(batch_of(four)))
    # joint advantages of the reference: group 0 rewards 2, 3, 1: −1/σ, σ = √(2/3); group 1 rewards 0, 0, 1: √2;
    # group 2 rewards 1, 0: −1; group 3: one scored member, so no statistics.
    reference = [-math.sqrt(1.5), math.sqrt(2), -1.0]
    assert found == pytest.approx(
        {
            "reward": (2 + 3 + 0 + 0 + 1) / 5,
            "reward_std": (0.5 + 0) / 2,  # groups with two scored samples
            "frac_reward_zero_std": 1 / 2,
            "groups/zero_variance": 1 / 2,
            "groups/skipped": 1 / 4,
            "groups/unscored": 3 / 8,
            "groups/all_win": 1 / 2,  # of the two groups in which everyone is scored
            "groups/all_lose": 1 / 2,
            "completions/clipped_ratio": 1 / 8,
            "advantage/reference_mean": fmean(reference),
            "advantage/reference_negative": 2 / 3,
            # |Â| of the 9 scored members: √1.5, 0, √1.5 | √½, √½, √2 | 1, 1 | 0
            "advantage/abs_mean": (2 * math.sqrt(1.5) + 2 * math.sqrt(0.5) + math.sqrt(2) + 2) / 9,
            "reward/reference": (1 + 1 + 0 + 0.5) / 4,
        },
        abs=1e-12,
    )


def test_a_tie_with_the_reference_is_neither_won_nor_lost() -> None:
    """Oracle: by hand: 1, 1 against 1, and 2, 1 against 1."""
    tied = Group(0, "p", (3,), (member(1, 1.0), member(1, 1.0)), reference=member(1, 1.0))
    partly = Group(1, "p", (3,), (member(1, 2.0), member(1, 1.0)), reference=member(1, 1.0))
    found = values(group_metrics(batch_of([tied, partly])))
    assert (found["groups/all_win"], found["groups/all_lose"]) == (0.0, 0.0)


def test_nothing_scored_gives_no_number_rather_than_zero() -> None:
    """Oracle: a mean over nothing does not exist: the metric is absent, and the count of unscored is whole."""
    silent = Group(0, "p", (3,), (member(1, None), member(1, None)), reference=member(1, None))
    found = values(group_metrics(batch_of([silent])))
    assert found == {
        "groups/unscored": 1.0,
        "groups/skipped": 1.0,
        "completions/clipped_ratio": 0.0,
    }


def random_groups(seed: int, P: int, G: int) -> list[Group]:
    draw = random.Random(seed)

    def one() -> Member:
        reward = None if draw.random() < 0.2 else float(draw.choice([0, 0, 1, 1, 2]))
        return member(draw.randint(1, 5), reward, draw.choice(["stop", "length"]))

    return [
        Group(p, "p", tuple(range(3, 4 + draw.randint(0, 3))), tuple(one() for _ in range(G)), reference=one())
        for p in range(P)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_group_metrics_against_a_plain_loop(seed: int) -> None:
    """Oracle: lists, fmean and pstdev, group by group."""
    groups = random_groups(seed, P=7, G=3)
    found = values(group_metrics(batch_of(groups)))
    rewards = [[s.reward for s in g.samples if s.reward is not None] for g in groups]
    references = [g.reference.reward for g in groups if g.reference]
    compared = [(r, y) for r, y in zip(rewards, references, strict=True) if len(r) == 3 and y is not None]
    spreads = [pstdev(r) for r in rewards if len(r) >= 2]
    assert found["reward"] == pytest.approx(fmean([r for group in rewards for r in group]))
    assert found["reward_std"] == pytest.approx(fmean(spreads))
    assert found["frac_reward_zero_std"] == pytest.approx(fmean([s == 0 for s in spreads]))
    assert found["groups/unscored"] == pytest.approx(1 - sum(map(len, rewards)) / 21)
    assert found["reward/reference"] == pytest.approx(fmean([y for y in references if y is not None]))
    if compared:
        assert found["groups/all_win"] == pytest.approx(fmean([min(r) > y for r, y in compared]))
        assert found["groups/all_lose"] == pytest.approx(fmean([max(r) < y for r, y in compared]))
    else:
        assert "groups/all_win" not in found


def likelihoods(batch: GroupBatch, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logprobs, entropy, frozen = (torch.rand(batch.ids_PMT.shape, generator=generator) for _ in range(3))
    return -logprobs, entropy, -frozen  # garbage where masked, as no metric may look there


@pytest.mark.parametrize("seed", range(4))
def test_likelihood_metrics_against_a_plain_loop(seed: int) -> None:
    """Oracle: token by token: J is a mean over a member's tokens, entropy and KL over the samples' tokens."""
    groups = random_groups(seed, P=4, G=3)
    batch = batch_of(groups)
    logprobs, entropy, frozen = likelihoods(batch, seed)
    engine = torch.rand(batch.ids_PMT.shape, generator=torch.Generator().manual_seed(99))
    batch = batch.with_(frozen_logprobs_PMT=frozen, sampling_logprobs_PMT=engine)
    found = values(likelihood_metrics(batch, logprobs, entropy))
    of_samples, of_references, entropies, kls, drifts = [], [], [], [], []
    for p, group in enumerate(groups):
        for m, one in enumerate(group.members):
            tokens = [float(logprobs[p, m, t]) for t in range(len(one.ids))]
            (of_samples if m < 3 else of_references).append(fmean(tokens))
            for t, own in enumerate(tokens):
                if m < 3:
                    difference = float(frozen[p, m, t]) - own
                    entropies.append(float(entropy[p, m, t]))
                    kls.append(math.exp(difference) - difference - 1)
                    drifts.append(abs(float(engine[p, m, t]) - own))
    assert found == pytest.approx(
        {
            "logprobs/samples": fmean(of_samples),
            "logprobs/reference": fmean(of_references),
            "entropy": fmean(entropies),
            "kl": fmean(kls),
            "sampling/logprob_difference": fmean(drifts),
        },
        rel=1e-5,
    )


def test_likelihoods_without_samples() -> None:
    """Oracle: by hand: one reference with log-probs −1, −3 and entropies 0.5, 1.5; there is no KL to report."""
    batch = collate([Group(0, "p", (3,), reference=member(2, None))], pad_token_id=0)
    found = values(likelihood_metrics(batch, torch.tensor([[[-1.0, -3.0]]]), torch.tensor([[[0.5, 1.5]]])))
    assert found == {"logprobs/reference": -2.0, "entropy": 1.0}


def test_two_ranks_merge_to_the_metrics_of_the_union() -> None:
    """Oracle: the metrics of all groups in one batch; parts of unlike size, so a mean of means would differ."""
    groups = random_groups(3, P=9, G=3)
    meters = []
    for part in (groups[:2], groups[2:]):
        batch = batch_of(part)
        meter = Meter()
        meter.add(group_metrics(batch))
        add_sample_metrics(meter, part, batch)
        meters.append(meter)
    merged = merge_meters([meter.state() for meter in meters])

    union = values(group_metrics(batch_of(groups)))
    samples = [s for g in groups for s in g.samples]
    union |= {
        "completions/mean_length": fmean(len(s.ids) for s in samples),
        "completions/min_length": min(len(s.ids) for s in samples),
        "completions/max_length": max(len(s.ids) for s in samples),
        "completions/mean_terminated_length": fmean(len(s.ids) for s in samples if s.finish == "stop"),
        "advantage/abs_max": float(batch_of(groups).advantages_PM.abs().max()),  # type: ignore[union-attr]
        "advantage/bound": advantage_bound(4),
    }
    assert merged == pytest.approx(union)
    assert list(merged) == sorted(merged)


def test_the_meter_by_hand() -> None:
    """Oracle: by hand: totals over counts; a step's parts add up and count once; extremes are kept; clear forgets."""
    meter = Meter()
    meter.add({"a": Mean(torch.tensor(3.0), torch.tensor(2))})
    meter.add({"a": Mean(torch.tensor(1.0), torch.tensor(2)), "none": Mean(torch.tensor(0.0), torch.tensor(0))})
    for part, last in ((0.5, 0), (0.25, 1), (1.0, 0), (0.25, 1)):  # two steps of two micro-batches
        meter.add_share("loss", part, last)
    meter.add_value("seconds", 2.0)
    meter.add_value("seconds", 4.0)
    for value in (3, 1, 2):
        meter.add_extreme("low", value, min)
        meter.add_extreme("high", value, max)
    merged = merge_meters([meter.state()])
    assert merged == {"a": 1.0, "high": 3, "loss": 1.0, "low": 1, "seconds": 3.0}
    meter.clear()
    assert merge_meters([meter.state()]) == {}


def test_a_nan_stays_visible() -> None:
    """Oracle: NaN is a bug upstream; a mean that hides it would hide the bug."""
    meter = Meter()
    meter.add({"a": Mean(torch.tensor(math.nan), torch.tensor(1))})
    meter.add({"a": Mean(torch.tensor(1.0), torch.tensor(1))})
    assert math.isnan(merge_meters([meter.state()])["a"])


def test_lengths_of_no_samples_are_not_reported() -> None:
    """Oracle: without samples there is no length; without a finished one no length of finished ones."""
    meter = Meter()
    given = [Group(0, "p", (3,), reference=member(1, 0.0))]
    add_sample_metrics(meter, given, batch_of([Group(0, "p", (3,), (member(1, 0.0),), reference=member(1, 0.0))]))
    assert merge_meters([meter.state()]) == {}
    cut_off = [Group(0, "p", (3,), (member(3, 0.0, "length"), member(5, 0.0, "length")), reference=member(1, 0.0))]
    add_sample_metrics(meter, cut_off, batch_of(cut_off))
    assert merge_meters([meter.state()]) == {
        "advantage/abs_max": 0.0,
        "advantage/bound": math.sqrt(2),
        "completions/max_length": 5,
        "completions/mean_length": 4.0,
        "completions/min_length": 3,
    }


@pytest.mark.parametrize("n", [2, 3, 9])
def test_the_bound_on_advantages_is_met_and_never_passed(n: int) -> None:
    """Oracle: n − 1 equal rewards and one other reach √(n − 1); random rewards stay below."""
    groups = [Group(0, "p", (3,), tuple(member(1, 0.0) for _ in range(n - 1)), reference=member(1, 1.0))]
    assert float(batch_of(groups).advantages_PM.abs().max()) == pytest.approx(advantage_bound(n))  # type: ignore[union-attr]
    spread = random_groups(n, P=20, G=n - 1)
    assert float(batch_of(spread).advantages_PM.abs().max()) <= advantage_bound(n) + 1e-9  # type: ignore[union-attr]
