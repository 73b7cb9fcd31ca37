"""Generalised advantage estimation against its definition as a double sum, and against its two ends."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from grao.objectives.gae import gae


def random_rows(seed: int, N: int = 5, T: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, values and masks of rows of every length, an empty and a full one among them."""
    generator = torch.Generator().manual_seed(seed)
    rewards, values = (torch.randn(N, T, generator=generator, dtype=torch.float64) for _ in range(2))
    lengths = torch.randint(1, T, (N,), generator=generator)
    lengths[0], lengths[1] = 0, T
    return rewards, values, torch.arange(T)[None] < lengths[:, None]


def definition(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> list[list[float]]:
    """A_t = Σ_k (γλ)^k δ_{t+k}, the sum written out; nothing is carried from one token to the next."""
    out = []
    for r, v, m in zip(rewards.tolist(), values.tolist(), mask.tolist(), strict=True):
        n = sum(m)
        deltas = [r[t] + gamma * (v[t + 1] if t + 1 < n else 0.0) - v[t] for t in range(n)]
        sums = [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, n)) for t in range(n)]
        out.append(sums + [0.0] * (len(m) - n))
    return out


@pytest.mark.parametrize(("gamma", "lam"), [*product((0.0, 0.9, 1.0), (0.0, 0.95, 1.0))])
def test_matches_the_sum(gamma: float, lam: float) -> None:
    """Oracle: Eq. 16 as a double sum over Python floats."""
    for seed in range(3):
        rows = random_rows(seed)
        expected = torch.tensor(definition(*rows, gamma, lam), dtype=torch.float64)
        assert (gae(*rows, gamma, lam) - expected).abs().max().item() <= 1e-14


def test_by_hand() -> None:
    """Oracle: γ = ½, λ = ½. δ = (1 + 2 − 2, 2 + 3 − 4, 4 + 0 − 6) = (1, 1, −2), so A = (1 + ⅛, 1 − ½, −2)."""
    rewards, values = torch.tensor([[1.0, 2.0, 4.0, 9.0]]), torch.tensor([[2.0, 4.0, 6.0, 9.0]])
    mask = torch.tensor([[True, True, True, False]])
    assert gae(rewards, values, mask, 0.5, 0.5).tolist() == [[1.125, 0.5, -2.0, 0.0]]


def test_gamma_and_lambda_one_is_the_reward_to_go_minus_the_value() -> None:
    """Oracle: Σ_{k≥t} r_k − V_t by a reversed cumulative sum: what the critic says of later states cancels."""
    rewards, values, mask = random_rows(0)
    to_go = (rewards * mask).flip(1).cumsum(1).flip(1)
    expected = (to_go - values) * mask
    assert (gae(rewards, values, mask, 1.0, 1.0) - expected).abs().max().item() <= 1e-14


def test_lambda_zero_is_the_one_step_error() -> None:
    """Oracle: δ_t = r_t + γ V_{t+1} − V_t, by hand for three rows of two tokens, of which one is cut to one token."""
    rewards = torch.tensor([[0.0, 1.0], [0.5, 7.0], [2.0, -1.0]])
    values = torch.tensor([[0.25, 0.5], [1.0, 7.0], [0.0, 4.0]])
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    assert gae(rewards, values, mask, 0.5, 0.0).tolist() == [[0.0, 0.5], [-0.5, 0.0], [4.0, -5.0]]


def test_a_perfect_critic_leaves_no_advantage() -> None:
    """Oracle: where V is the discounted reward to come, every δ is 0, whatever λ."""
    rewards, _, mask = random_rows(1)
    values = torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
        later = values[:, t + 1] if t + 1 < rewards.shape[1] else 0.0
        values[:, t] = (rewards[:, t] + 0.8 * later) * mask[:, t]
    assert gae(rewards, values, mask, 0.8, 0.7).abs().max().item() <= 1e-15


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -1e4])
def test_padding_does_not_matter(poison: float) -> None:
    """Oracle: the same rows with 0 in the padding, and with three more places of it."""
    rewards, values, mask = random_rows(2)
    clean = gae(rewards * mask, values * mask, mask, 0.9, 0.95)
    assert torch.equal(gae(rewards.where(mask, poison), values.where(mask, poison), mask, 0.9, 0.95), clean)
    pad = torch.nn.functional.pad
    wide = gae(pad(rewards, (0, 3), value=poison), pad(values, (0, 3), value=poison), pad(mask, (0, 3)), 0.9, 0.95)
    assert torch.equal(wide, pad(clean, (0, 3)))


def test_a_hole_in_a_row_is_refused() -> None:
    """Oracle: by definition: the state after a hole is unknown, so no row may have one."""
    ones = torch.ones(1, 3)
    with pytest.raises(ValueError, match="tokens that the policy did not write before tokens that it wrote"):
        gae(ones, ones, torch.tensor([[True, False, True]]), 1.0, 1.0)
