"""DPO against TRL's DPOTrainer: the same weights and pairs give the same loss, gradients and metrics.

TRL's own code makes its numbers: a real trainer on a tiny Llama prepares, collates and scores our rows, and its policy
then moves away from its reference model, so that no log-ratio is 0. What differs by choice is bridged in the open:
TRL 1.16 ignores `label_smoothing` under `sigmoid`, but conservative DPO is made of losses that honour it, in two ways.

With ℓ(Δ) = −log σ(βΔ), cDPO is (1−ε) ℓ(Δ) + ε ℓ(−Δ), and TRL's
`robust` (arXiv 2403.00409) is [(1−ε) ℓ(Δ) − ε ℓ(−Δ)]/(1−2ε): cDPO = 2(1−ε) · `sigmoid` − (1−2ε) · `robust`.
`aot` is cDPO of sorted log-ratios: of one pair, where nothing can be sorted, it is cDPO itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.objectives.policy_outputs import loss_of

from grao.groups import Group, Member, collate
from grao.objectives import DPO
from grao.policy import FrozenPolicy, group_logprobs, install_scoring

trl = pytest.importorskip("trl")

VOCABULARY, PAD, EOS, PAIRS = 40, 0, 1, 5
TOLERANCE = 1e-5
"""Relative, in float32."""
EPSILON = 0.2

CASES: dict[str, tuple[DPO, dict[str, Any]]] = {
    "sigmoid": (DPO(beta=0.3), {"loss_type": ["sigmoid"]}),
    "sigmoid, label smoothing": (
        DPO(beta=0.3, label_smoothing=EPSILON),
        {
            "loss_type": ["sigmoid", "robust"],
            "loss_weights": [2 * (1 - EPSILON), -(1 - 2 * EPSILON)],
            "label_smoothing": EPSILON,
        },
    ),
    "ipo": (DPO(beta=0.3, form="ipo"), {"loss_type": ["ipo"]}),
    "sigmoid and NLL": (DPO(beta=0.3, nll=0.7), {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]}),
    "ipo and NLL": (DPO(beta=0.3, form="ipo", nll=1.0), {"loss_type": ["ipo", "sft"]}),
}


@pytest.fixture(scope="module")
def folder(save_tiny: Callable[[str, int], Path]) -> Path:
    return save_tiny("llama", VOCABULARY)


@pytest.fixture(scope="module")
def groups() -> list[Group]:
    """Pairs of many lengths, on prompts of many lengths."""
    rng = random.Random(4)

    def ids() -> tuple[int, ...]:
        return tuple(rng.randrange(2, VOCABULARY) for _ in range(rng.randint(1, 8)))

    return [Group(row, "", ids(), (), Member((*ids(), EOS), ""), Member((*ids(), EOS), "")) for row in range(PAIRS)]


def dpo_trainer(folder: Path, tmp_path: Path, groups: list[Group], **settings: Any) -> Any:
    """TRL's DPOTrainer on the groups' text; its policy has left its reference model."""
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

    def text(ids: tuple[int, ...]) -> str:
        return " ".join(f"w{i}" for i in ids)

    trainer = trl.DPOTrainer(
        model=str(folder),
        processing_class=PreTrainedTokenizerFast.from_pretrained(folder),
        train_dataset=Dataset.from_dict(
            {
                "prompt": [text(g.prompt_ids) + " " for g in groups],
                "chosen": [text(g.reference.ids[:-1]) for g in groups],
                "rejected": [text(g.rejected.ids[:-1]) for g in groups],
            }
        ),
        args=trl.DPOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to="none",
            activation_checkpointing=False,
            model_init_kwargs={"dtype": "float32"},
            **settings,
        ),
    )
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    trainer.model.train()
    return trainer


def prepared_rows(trainer: Any, groups: list[Group]) -> list[dict[str, Any]]:
    """The rows as TRL tokenised them, which must be ours."""
    rows = [trainer.train_dataset[i] for i in range(len(groups))]
    for row, g in zip(rows, groups, strict=True):
        assert row["prompt_ids"] == list(g.prompt_ids)
        assert row["chosen_ids"] == list(g.reference.ids)
        assert row["rejected_ids"] == list(g.rejected.ids)
    return rows


def ours(
    folder: Path, trainer: Any, groups: list[Group], objective: DPO
) -> tuple[Any, torch.Tensor, dict[str, float]]:
    """Our whole path on the same weights: frozen policy, log-probs, loss; model, value and metrics."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    install_scoring(model)
    frozen = FrozenPolicy(model)
    model.load_state_dict(trainer.model.state_dict())
    batch = collate(groups, pad_token_id=PAD)
    batch = batch.with_(frozen_logprobs_PMT=frozen.logprobs(batch))
    out = loss_of(objective, batch, group_logprobs(model.train(), batch).logprobs_PMT, objective.denominator(batch))
    return model, out.loss, {name: m.total.item() / m.count.item() for name, m in out.metrics.items()}


def gradient_of(model: Any, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def differences(model: Any, loss: torch.Tensor, trainer: Any, theirs: torch.Tensor) -> tuple[float, float]:
    """Relative differences of loss and gradient."""
    expected, gradient = gradient_of(trainer.model, theirs), gradient_of(model, loss)
    assert expected.norm() > 1e-2, "the oracle must have something to say"
    value = abs(loss.item() - theirs.item()) / abs(theirs.item())
    return value, ((gradient - expected).norm() / expected.norm()).item()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_loss_gradient_and_metrics(folder: Path, tmp_path: Path, groups: list[Group], case: str) -> None:
    """Oracle: TRL's loss and gradients within 1e-5 in float32, and its reward and log-prob metrics."""
    objective, settings = CASES[case]
    trainer = dpo_trainer(folder, tmp_path, groups, beta=objective.beta, **settings)
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(prepared_rows(trainer, groups)))
    model, loss, metrics = ours(folder, trainer, groups, objective)
    value, gradient = differences(model, loss, trainer, theirs)
    assert value <= TOLERANCE
    assert gradient <= TOLERANCE
    assert abs(metrics["rewards/margins"]) > 0.1, "the policy has left its reference model"
    assert 0 < metrics["rewards/accuracies"] < 1
    for name, ours_value in metrics.items():
        assert ours_value == pytest.approx(trainer._metrics["train"][name][0], rel=TOLERANCE, abs=1e-6)


@pytest.mark.slow
def test_label_smoothing_pair_by_pair(folder: Path, tmp_path: Path, groups: list[Group]) -> None:
    """Oracle: TRL's `aot` of one pair at a time, averaged: conservative DPO, within 1e-5 in float32."""
    trainer = dpo_trainer(folder, tmp_path, groups, beta=0.3, loss_type=["aot"], label_smoothing=EPSILON)
    rows = prepared_rows(trainer, groups)
    theirs = sum(trainer.compute_loss(trainer.model, trainer.data_collator([row])) for row in rows) / len(rows)
    model, loss, _ = ours(folder, trainer, groups, DPO(beta=0.3, label_smoothing=EPSILON))
    assert max(differences(model, loss, trainer, theirs)) <= TOLERANCE
