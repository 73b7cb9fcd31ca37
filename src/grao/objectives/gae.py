"""Generalised advantage estimation: per-token advantages over a critic's values."""

from __future__ import annotations

import torch
from torch import Tensor

from grao.objectives.likelihood import zero_masked


def gae(rewards_NT: Tensor, values_NT: Tensor, mask_NT: Tensor, gamma: float, lam: float) -> Tensor:
    """Return per-token advantages from rewards and values (arXiv 1506.02438, Eq. 11, 12 and 16).

        δ_t = r_t + γ V_{t+1} − V_t
        A_t = δ_t + γλ A_{t+1}  =  Σ_k (γλ)^k δ_{t+k}

    with V = A = 0 after a row's last token: also where the sequence was truncated. λ = 0 is the
    one-step error δ; γ = λ = 1 is the reward still to come minus V_t.

    Args:
        rewards_NT: Reward of each token.
        values_NT: V of the state *before* each token.
        mask_NT: bool, the tokens of each row; a prefix of it.
        gamma: Discount per token, in [0, 1].
        lam: Weight of longer estimates, in [0, 1]: less bias from the critic, more variance from the rewards.

    Raises:
        ValueError: A row's mask has a gap.

    Returns:
        [N, T]; 0 where masked, for any inputs there.
    """
    if bool((mask_NT[:, 1:] > mask_NT[:, :-1]).any()):
        raise ValueError(
            "A sample has tokens that the policy did not write before tokens that it wrote (Member.mask). Generalised "
            "advantage estimation (PPO) cannot skip them: use an objective without a critic."
        )
    values_NT = zero_masked(values_NT, mask_NT)
    next_NT = torch.nn.functional.pad(values_NT[:, 1:], (0, 1))
    delta_NT = zero_masked(rewards_NT + gamma * next_NT - values_NT, mask_NT)
    A_N = torch.zeros_like(delta_NT[:, 0])
    reversed_A = []
    for delta_N in reversed(delta_NT.unbind(1)):
        A_N = delta_N + gamma * lam * A_N  # padding comes first and adds nothing: δ = 0 there
        reversed_A.append(A_N)
    return torch.stack(reversed_A[::-1], 1)
