"""The bounds on gradients and advantages: their constants, and the largest gradient of a model."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from grao.data import Encoder, load_examples
from grao.demo.dialogue import Dialogue
from grao.demo.synthetic_task import write_task
from grao.objectives import GRAO
from grao.policy import ModelConfig, load_policy
from research.paper_bounds import bound_metrics, largest_gradient, paper_bound, tight_bound


def test_the_constants_at_the_papers_settings() -> None:
    """Oracle: by hand: 2.7 (√8 + 1) = 10.34, and √9 √(1.6²/8 + 0.575²) = 2.42, at β = 0.5, λ = 0.6, G = 8."""
    assert paper_bound(GRAO(), 8) == pytest.approx(2.7 * (math.sqrt(8) + 1)) == pytest.approx(10.337, abs=1e-3)
    assert tight_bound(GRAO(), 8) == pytest.approx(2.42, abs=5e-3)


def test_no_group_is_above_the_tight_bound_and_some_come_near() -> None:
    """Oracle: Σ|c| over 20,000 random groups of nine, whose members' gradients all have norm 1 and point one way or
    the other: the norm of the step's gradient is at most Σ|c_m|.
    """
    generator = torch.Generator().manual_seed(0)
    rewards_PN = torch.randn(20000, 9, generator=generator, dtype=torch.float64)
    rewards_PN[:2000] = torch.randint(-1, 2, (2000, 9), generator=generator).double()
    A_PN = (rewards_PN - rewards_PN.mean(1, keepdim=True)) / rewards_PN.std(1, correction=0, keepdim=True).clamp(1e-9)
    beta, lam, G = 0.5, 0.6, 8
    c_PG, c_P = (1 + lam) / G * A_PN[:, :G], beta * A_PN[:, G] - lam * A_PN[:, :G].mean(1)
    largest = float((c_PG.abs().sum(1) + c_P.abs()).max())
    assert largest <= tight_bound(GRAO(), G)
    assert largest > 0.95 * tight_bound(GRAO(), G)


def test_shares_of_the_bounds() -> None:
    """Oracle: by hand, with B = 2: the largest ‖g‖² is 9; M² is (2 · 10.337)² and (2 · 2.42)²."""
    series = {"grad/second_moment": [9.0, None, 1.0, 2.0], "advantage/abs_max": [1.0, math.sqrt(2.0)]}
    found = bound_metrics(GRAO(), 8, 2.0, series)
    assert found["second_moment_mean"] == 4.0
    assert (found["second_moment_max"], found["second_moment_least"]) == (9.0, 1.0)
    assert found["share_of_paper_bound"] == pytest.approx(9 / (2 * paper_bound(GRAO(), 8)) ** 2)
    assert found["share_of_tight_bound"] == pytest.approx(9 / (2 * tight_bound(GRAO(), 8)) ** 2)
    assert found["share_of_advantage_bound"] == pytest.approx(0.5)
    assert bound_metrics(GRAO(), 8, 2.0, {}) == {"largest_gradient": 2.0}


def test_the_largest_gradient(tmp_path: Path) -> None:
    """Oracle: transformers' own loss, the mean cross-entropy of the labelled tokens, is −J; its backward pass, row by
    row, and the largest norm over them.
    """
    write_task(Dialogue(), tmp_path, n_train=4, n_validation=4, n_test=4, steps=5, quiet=True)
    policy = load_policy(ModelConfig(str(tmp_path / "base")))
    rows = Encoder(policy.tokenizer).encode_all(load_examples(tmp_path / "train.jsonl"))[0]
    norms = []
    for row in rows:
        assert row.reference_ids is not None
        ids = torch.tensor([[*row.prompt_ids, *row.reference_ids]])
        labels = ids.clone()
        labels[0, : len(row.prompt_ids)] = -100
        policy.model.zero_grad()
        policy.model(input_ids=ids, labels=labels).loss.backward()
        norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in policy.model.parameters())))
    policy.model.zero_grad()
    assert largest_gradient(policy, rows) == pytest.approx(max(norms), rel=1e-5)
    assert all(p.grad is None for p in policy.model.parameters())
