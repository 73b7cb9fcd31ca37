"""LUFFY and CHORD, written outside the package, against what their projects' own functions returned."""

from __future__ import annotations

import ast
import inspect
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.objectives import external_losses
from tests.objectives.external_losses import Luffy, TokenWeightedSFT, chord
from tests.objectives.policy_outputs import loss_of

from grao.groups import GroupBatch
from grao.objectives import Objective

ORACLES = Path(__file__).resolve().parents[2].parent / "shared" / "oracles"
ROWS = 12  # three prompts × (three samples, one reference)


def cases(name: str) -> Iterator[dict[str, Any]]:
    if not ORACLES.is_dir():
        pytest.skip("needs ../shared/oracles, beside the repository")
    yield from json.loads((ORACLES / name).read_text(encoding="utf-8"))["cases"]


def batch_of(inputs: dict[str, Any]) -> tuple[GroupBatch, torch.Tensor]:
    """Their 12 rows as three groups of ours, and the log-probs that are the leaf."""
    assert inputs["group"] == [p for p in range(3) for _ in range(4)]
    assert inputs["is_reference"] == [False, False, False, True] * 3

    def grouped(values: Any, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype).unflatten(0, (3, 4))

    mask_PMT = grouped(inputs["mask"], torch.bool)
    batch = GroupBatch(
        rows_P=torch.arange(3),
        prompt_ids_PS=torch.ones(3, 1, dtype=torch.long),
        prompt_mask_PS=torch.ones(3, 1, dtype=torch.bool),
        ids_PMT=mask_PMT.long(),
        mask_PMT=mask_PMT,
        rewards_PM=grouped(inputs["reward"], torch.float64),
        num_samples=3,
        has_reference=True,
        has_rejected=False,
        truncated_PM=torch.zeros(3, 4, dtype=torch.bool),
        behaviour_logprobs_PMT=grouped(inputs["old_logp"], torch.float64),
    )
    return batch, grouped(inputs["logp"], torch.float64).requires_grad_()


def check(objective: Objective, batch: GroupBatch, logprobs: torch.Tensor, outputs: dict[str, Any]) -> None:
    loss = loss_of(objective, batch, logprobs, objective.denominator(batch)).loss
    (gradient,) = torch.autograd.grad(loss, logprobs)
    expected = torch.tensor(outputs["grad"], dtype=torch.float64)
    assert loss.item() == pytest.approx(outputs["loss"], abs=1e-6)
    assert (gradient.flatten(0, 1) - expected).abs().max().item() <= 1e-6
    assert expected.abs().max().item() > 1e-3


def test_luffy() -> None:
    """Oracle: LUFFY's own loss function with the options of its train.sh: advantages, loss and gradient to 1e-6."""
    for case in cases("mixtures/luffy_train_sh.json"):
        batch, logprobs = batch_of(case["inputs"])
        objective = Luffy(gamma=0.1, length=8)  # the width that the rows are padded to
        batch = objective.with_advantages(batch)
        theirs = torch.tensor(case["outputs"]["advantages"], dtype=torch.float64)[:, 0]
        assert batch.advantages_PM.flatten().tolist() == pytest.approx(theirs.tolist(), abs=1e-6)
        check(objective, batch, logprobs, case["outputs"])


def test_chord() -> None:
    """Oracle: Trinity-RFT's own loss function at μ 0.1 with φ, on its advantages: loss and gradient to 1e-6.

    Its means are scaled by rows over configured batch sizes, which are equal here.
    """
    for case in cases("ratios/chord_trinity_default.json"):
        batch, logprobs = batch_of(case["inputs"])
        objective = chord(peak=0.1, valley=0.1)
        batch = objective.with_advantages(batch)
        given_PM = torch.tensor(case["inputs"]["advantage"], dtype=torch.float64).unflatten(0, (3, 4))
        batch = batch.with_(part_advantages_PM=(given_PM * batch.mask_PMT.any(-1), batch.part_advantages_PM[1]))
        check(objective, batch, logprobs, case["outputs"])


def test_the_token_weight_by_hand() -> None:
    """Oracle: one token with p = ¼: −¾·¼·log ¼, and a gradient of −p(1 − p) in log p."""
    logprobs = torch.full((1, 1, 1), math.log(0.25), dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, 1, 1, dtype=torch.bool)
    batch = GroupBatch(
        torch.zeros(1), one[0], one[0], one.long(), one, torch.zeros(1, 1), 0, True, False, torch.zeros(1, 1)
    )
    loss = loss_of(TokenWeightedSFT(), batch, logprobs, TokenWeightedSFT().denominator(batch)).loss
    assert loss.item() == pytest.approx(0.1875 * math.log(4))
    assert torch.autograd.grad(loss, logprobs)[0].item() == pytest.approx(-0.1875)


def test_each_takes_at_most_25_lines() -> None:
    """Oracle: the lines of each objective in the file, blank lines included; CHORD is its loss and its sum."""
    tree = ast.parse(inspect.getsource(external_losses))
    lines = {node.name: node.end_lineno - node.lineno + 2 for node in tree.body if hasattr(node, "name")}
    assert lines["Luffy"] <= 25
    assert lines["TokenWeightedSFT"] + lines["chord"] <= 25
