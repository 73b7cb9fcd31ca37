"""Advantages against numbers worked by hand, closed forms and Python's statistics module."""

from __future__ import annotations

import math
import random
from itertools import product
from types import SimpleNamespace

import pytest
import torch

from grao.groups import collate
from grao.objectives import GRAO, GRPO, SFT, centre, leave_one_out, standardise
from grao.objectives.advantages import standardise_against

NAN = float("nan")


def column(*rewards: float) -> torch.Tensor:
    return torch.tensor([rewards], dtype=torch.float64)


def test_standardise_by_hand() -> None:
    """Oracle: μ = 2, population σ = √(8/4) = √2, worked by hand; sample σ = √(8/3)."""
    rewards = column(0.0, 2.0, 2.0, 4.0)
    root2 = math.sqrt(2)
    assert standardise(rewards)[0].tolist() == pytest.approx([-root2, 0, 0, root2], abs=1e-15)
    sample = 2 / math.sqrt(8 / 3)
    assert standardise(rewards, ddof=1)[0].tolist() == pytest.approx([-sample, 0, 0, sample], abs=1e-15)


def test_an_unscored_member_leaves_the_statistics() -> None:
    """Oracle: with the unscored left out, {1, 3} has μ = 2, σ = 1; counted as 0, the mean would be 4/3."""
    assert standardise(column(1.0, NAN, 3.0))[0].tolist() == [-1.0, 0.0, 1.0]
    assert centre(column(1.0, NAN, 3.0))[0].tolist() == [-1.0, 0.0, 1.0]
    assert leave_one_out(column(1.0, NAN, 3.0))[0].tolist() == [-2.0, 0.0, 2.0]


def test_a_value_against_other_members() -> None:
    """Oracle: {0, 2} has μ = 1, σ = 1, so 4 lies 3σ above; NaN gives 0."""
    values, others = column(4.0, NAN), column(0.0, NAN, 2.0)
    assert standardise_against(values, others)[0].tolist() == [3.0, 0.0]


@pytest.mark.parametrize("advantage", [standardise, centre, leave_one_out])
@pytest.mark.parametrize("rewards", [(NAN,) * 3, (1.0, NAN, NAN), (0.1 + 0.2, 0.3, 0.3), (5.0, 5.0, NAN), (7.0,)])
def test_groups_without_spread_give_exactly_zero(advantage, rewards) -> None:
    """Oracle: nothing to compare is zero, never a rounding error divided by an epsilon (0.1 + 0.2 ≠ 0.3)."""
    assert advantage(column(*rewards)).tolist() == [[0.0] * len(rewards)]


def test_equal_samples_give_the_reference_no_explosion() -> None:
    """Oracle: all samples lose, σ = 0 over them; (R_y − μ)/(σ + 1e-4) would be 10⁴, we say 0 (methods.md 1c)."""
    assert standardise_against(column(0.0), column(-1.0, -1.0, -1.0)).item() == 0.0


def test_random_groups_match_a_loop(plain: SimpleNamespace) -> None:
    """Oracle: statistics.pstdev / stdev / fmean over the scored members, 300 random groups with unscored ones."""
    rng = random.Random(0)
    for _ in range(300):
        row = [None if rng.random() < 0.2 else rng.gauss(0, 1) for _ in range(rng.randint(1, 9))]
        tensor = column(*[NAN if r is None else r for r in row])
        pairs = [
            (standardise(tensor), plain.standardise_loop(row, row)),
            (standardise(tensor, ddof=1), plain.standardise_loop(row, row, 1)),
            (centre(tensor), plain.centre_loop(row)),
            (leave_one_out(tensor), plain.leave_one_out_loop(row)),
        ]
        for ours, expected in pairs:
            assert ours[0].tolist() == pytest.approx(expected, abs=1e-12)


def test_leave_one_out_is_a_multiple_of_centre() -> None:
    """Oracle: the identity R_i − mean_{j≠i} R_j = n/(n−1) (R_i − μ)."""
    rewards = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(leave_one_out(rewards), centre(rewards) * 6 / 5, atol=1e-15)


@pytest.mark.parametrize("n", [2, 3, 5, 8, 9, 17])
def test_bound_on_advantages(n: int) -> None:
    """Oracle: |Â| ≤ √(n−1) (methods.md 1e): 20 000 random groups stay under it, one winner among equals attains it."""
    generator = torch.Generator().manual_seed(n)
    rewards = torch.randn(20_000, n, dtype=torch.float64, generator=generator)
    rewards[10_000:] = rewards[10_000:].exp() ** 3  # heavy tails come close to the bound
    assert standardise(rewards).abs().max().item() <= math.sqrt(n - 1) + 1e-12
    one_winner = torch.zeros(1, n, dtype=torch.float64)
    one_winner[0, 0] = 1.0
    assert standardise(one_winner).max().item() == pytest.approx(math.sqrt(n - 1), abs=1e-12)
    sample = standardise(one_winner, ddof=1).max().item()
    assert sample == pytest.approx((n - 1) / math.sqrt(n), abs=1e-12)


def judged(plain: SimpleNamespace, rewards: list[float | None], reference: float | None):
    group = plain.random_group(random.Random(0), 0, rewards, reference)
    return collate([group], pad_token_id=0)


@pytest.mark.parametrize("G", [2, 4, 8])
def test_closed_form_of_the_joint_advantages(plain: SimpleNamespace, G: int) -> None:
    """Oracle: A_y = −d/√((G+1)n − d²), A_i = ((G+1)R_i − d)/√(…) for all win/tie/loss counts (methods.md 1c)."""
    for w, t in product(range(G + 1), range(G + 1)):
        losses = G - w - t
        if losses < 0:
            continue
        rewards = [1.0] * w + [0.0] * t + [-1.0] * losses
        d, n = w - losses, w + losses
        A = GRAO().advantages(judged(plain, rewards, 0.0))[0].tolist()
        root = math.sqrt((G + 1) * n - d * d)
        expected = [0.0] * (G + 1) if n == 0 else [((G + 1) * r - d) / root for r in [*rewards, 0.0]]
        assert pytest.approx(expected, abs=1e-12) == A
        assert (A[G] > 0, A[G] < 0) == (losses > w, w > losses)  # sign(A_y) = sign(losses − wins)


@pytest.mark.parametrize("G", [2, 4, 8])
def test_closed_form_of_verifier_rewards(plain: SimpleNamespace, G: int) -> None:
    """Oracle: rewards {0, 1}, R_y = 1, k correct: A_y = √((G−k)/(k+1)), wrong −√((k+1)/(G−k)) (methods.md 1c)."""
    for k in range(G + 1):
        A = GRAO().advantages(judged(plain, [1.0] * k + [0.0] * (G - k), 1.0))[0].tolist()
        right = math.sqrt((G - k) / (k + 1))
        wrong = 0.0 if k == G else -math.sqrt((k + 1) / (G - k))
        assert pytest.approx([right] * k + [wrong] * (G - k) + [right], abs=1e-12) == A


def test_samples_and_joint_are_one_function_of_z(plain: SimpleNamespace) -> None:
    """Oracle: with z = mean/σ over the samples, A_y = −z over `samples`, −√G z/√(G+1+z²) in `joint`."""
    rewards = [1.0, 1.0, 0.0, -1.0, 1.0, 0.5]
    mean = sum(rewards) / 6
    z = mean / math.sqrt(sum((r - mean) ** 2 for r in rewards) / 6)
    batch = judged(plain, rewards, 0.0)
    over_samples = GRAO(advantages_over="samples").advantages(batch)[0, 6].item()
    joint = GRAO().advantages(batch)[0, 6].item()
    split = GRAO(advantages_over="split").advantages(batch)[0]
    assert over_samples == pytest.approx(-z, abs=1e-12)
    assert joint == pytest.approx(-math.sqrt(6) * z / math.sqrt(7 + z * z), abs=1e-12)
    assert split[6].item() == joint
    assert torch.equal(split[:6], GRAO(advantages_over="samples").advantages(batch)[0, :6])


def test_who_gets_an_advantage(plain: SimpleNamespace) -> None:
    """Oracle: by definition GRPO weighs samples only, SFT the reference by 1, nobody the rejected answer."""
    rng = random.Random(0)
    batch = collate([plain.random_group(rng, 0, [1.0, 0.0], 5.0, rejected=True)], pad_token_id=0)
    assert GRPO().advantages(batch).tolist() == [[1.0, -1.0, 0.0, 0.0]]
    assert SFT().advantages(batch).tolist() == [[0.0, 0.0, 1.0, 0.0]]
    assert GRAO().advantages(batch)[0, 3].item() == 0.0
