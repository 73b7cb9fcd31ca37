"""GRPO and SFT against TRL's trainers: the same weights, tokens and rewards give the same loss and gradients.

TRL's own code makes its numbers: a real trainer on a tiny model, whose generation alone is replaced by fixed tokens.
What differs by choice is bridged in the open: TRL divides by σ + 1e-4, with the σ of a sample; we add no epsilon; and
its `use_bias_correction_kl` (r · k3 as the penalty, arXiv 2512.02556) is set to what GRPO's paper has, plain k3.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.objectives.policy_outputs import loss_of

from grao.groups import Group, GroupBatch, Member, collate
from grao.objectives import GRPO, SFT, Objective, standardise
from grao.policy import FrozenPolicy, group_logprobs, install_scoring

trl = pytest.importorskip("trl")

VOCABULARY = 40
PAD, EOS = 0, 1
G, PROMPTS, MAX_LENGTH = 4, 3, 9
TOLERANCE = 1e-5
"""Relative, in float32."""


@pytest.fixture(scope="module")
def folder(save_tiny: Callable[[str, int], Path]) -> Path:
    return save_tiny("qwen2", VOCABULARY)


def make_groups(seed: int, rewards: list[list[float | None]]) -> list[Group]:
    """Groups with prompts and samples of many lengths; two of three samples end with EOS, the rest met the limit."""
    rng = random.Random(seed)

    def ids(longest: int) -> tuple[int, ...]:
        return tuple(rng.randrange(2, VOCABULARY) for _ in range(rng.randint(1, longest)))

    def member(i: int, reward: float | None) -> Member:
        if i % 3 == 2:
            return Member(tuple(rng.randrange(2, VOCABULARY) for _ in range(MAX_LENGTH)), "", "length", reward=reward)
        return Member((*ids(MAX_LENGTH - 1), EOS), "", "stop", reward=reward)

    return [
        Group(row, "", ids(6), tuple(member(i, r) for i, r in enumerate(row_rewards)), Member((*ids(6), EOS), ""))
        for row, row_rewards in enumerate(rewards)
    ]


REWARDS: list[list[float | None]] = [[1.0, 0.0, 0.25, -1.0], [0.5, 0.5, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0]]


def tokenizer_of(folder: Path):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder)


def grpo_trainer(folder: Path, tmp_path: Path, groups: list[Group], **settings: object):
    """TRL's GRPOTrainer, whose policy then moves away from its reference model; generation gives our tokens."""
    from datasets import Dataset

    members = [m for g in groups for m in g.samples]
    prompts = [" ".join(f"w{i}" for i in g.prompt_ids) for g in groups]
    trainer = trl.GRPOTrainer(
        model=str(folder),
        reward_funcs=lambda prompts, **_: [m.reward for m in members],
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer_of(folder),
        args=trl.GRPOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to="none",
            per_device_train_batch_size=len(members),
            gradient_accumulation_steps=1,
            num_generations=G,
            max_completion_length=MAX_LENGTH,
            activation_checkpointing=False,
            model_init_kwargs={"dtype": "float32"},
            **{"use_bias_correction_kl": False, **settings},
        ),
    )
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    rows = [g for g in groups for _ in g.samples]
    trainer._generate = lambda _: (
        [list(g.prompt_ids) for g in rows],
        [list(m.ids) for m in members],
        None,
        ["" for _ in members],
        None,
        {},
        None,
        None,
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    inputs = trainer._generate_and_score_completions([{"prompt": prompts[g.row]} for g in rows])
    return trainer, inputs


def ours_on_copy(folder: Path, trainer) -> tuple[torch.nn.Module, FrozenPolicy]:
    """Our path on the saved weights: the frozen policy first, then the trainer's moved weights."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    install_scoring(model)
    frozen = FrozenPolicy(model)
    model.load_state_dict(trainer.model.state_dict())
    return model.train(), frozen


def flat_gradient(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def to_theirs(values_PMT: torch.Tensor, T: int) -> torch.Tensor:
    """The samples of a [P, M, T] tensor as TRL's [P·G, T]."""
    return values_PMT[:, :G].flatten(0, 1)[:, :T]


def compare(trainer, inputs: dict, model: torch.nn.Module, loss: torch.Tensor) -> tuple[float, float]:
    """Relative differences of loss and gradient."""
    theirs = trainer.compute_loss(trainer.model, inputs)
    trainer.model.zero_grad()
    theirs.backward()
    loss.backward()
    expected, gradient = flat_gradient(trainer.model), flat_gradient(model)
    assert expected.norm() > 1e-3, "the oracle must have something to say"
    # At ratio 1 the loss is a mean of advantages and may vanish: then it is measured by the advantages' size.
    size = max(abs(theirs.item()), inputs["advantages"].abs().mean().item() if "advantages" in inputs else 0.0)
    return abs(loss.item() - theirs.item()) / size, ((gradient - expected).norm() / expected.norm()).item()


LOSSES = {
    "grpo": GRPO(baseline="centred"),
    "dapo": GRPO(baseline="centred", aggregation="token_mean"),
    "dr_grpo": GRPO(baseline="centred", aggregation="constant", length=MAX_LENGTH),
}


def with_behaviour(batch: GroupBatch, logprobs_PMT: torch.Tensor, inputs: dict) -> GroupBatch:
    """Behaviour log-probs around the policy's, given to both sides, so that many ratios leave [1 − ε, 1 + ε]."""
    noise = 0.4 * torch.randn(logprobs_PMT.shape, generator=torch.Generator().manual_seed(3))
    behaviour = (logprobs_PMT.detach() + noise) * batch.mask_PMT
    inputs["old_per_token_logps"] = to_theirs(behaviour, inputs["completion_ids"].shape[1])
    return batch.with_(behaviour_logprobs_PMT=behaviour)


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("kl", [0.0, 0.2])
@pytest.mark.parametrize("clipping", [False, True])
def test_grpo(folder: Path, tmp_path: Path, loss_type: str, kl: float, clipping: bool) -> None:
    """Oracle: TRL's loss and gradients, its advantages included (scale_rewards none), within 1e-5 in float32."""
    groups = make_groups(0, REWARDS)
    trainer, inputs = grpo_trainer(
        folder, tmp_path, groups, loss_type=loss_type, beta=kl, scale_rewards="none", epsilon=0.1, epsilon_high=0.3
    )
    model, frozen = ours_on_copy(folder, trainer)
    objective = GRPO(**{**vars(LOSSES[loss_type]), "kl": kl, "clip_low": 0.1, "clip_high": 0.3})
    batch = collate(groups, pad_token_id=PAD)
    logprobs_PMT = group_logprobs(model, batch).logprobs_PMT
    batch = batch.with_(advantages_PM=objective.advantages(batch))
    if clipping:
        batch = with_behaviour(batch, logprobs_PMT, inputs)
    if kl:
        batch = batch.with_(frozen_logprobs_PMT=frozen.logprobs(batch))
        ours, T = to_theirs(batch.frozen_logprobs_PMT, inputs["completion_ids"].shape[1]), inputs["completion_mask"]
        assert (ours - inputs["ref_per_token_logps"] * T).abs().max().item() <= 1e-5
    assert batch.samples(batch.advantages_PM).flatten().tolist() == pytest.approx(
        inputs["advantages"].tolist(), abs=1e-6
    )
    out = loss_of(objective, batch, logprobs_PMT, objective.denominator(batch))
    value, gradient = compare(trainer, inputs, model, out.loss)
    assert value <= TOLERANCE
    assert gradient <= TOLERANCE
    clipped = {n: (m.total / m.count).item() for n, m in out.metrics.items()}
    for name, share in clipped.items():
        assert share == pytest.approx(trainer._metrics["train"][name][0], abs=1e-6)
        assert (share > 0.02) == clipping


@pytest.mark.slow
def test_grpo_with_unscored_and_masked_truncated_samples(folder: Path, tmp_path: Path) -> None:
    """Oracle: TRL with mask_truncated_completions, at temperature 0.7; one unscored sample.

    TRL keeps an unscored sample in its mean over sequences (with advantage 0), we leave it out: 12 against 11.
    """
    rewards = [[1.0, 0.0, 0.25, None], *REWARDS[1:]]
    groups = make_groups(1, rewards)
    trainer, inputs = grpo_trainer(
        folder,
        tmp_path,
        groups,
        loss_type="grpo",
        beta=0.0,
        scale_rewards="none",
        temperature=0.7,
        mask_truncated_completions=True,
    )
    model, _ = ours_on_copy(folder, trainer)
    objective = GRPO(baseline="centred")
    batch = collate(groups, pad_token_id=PAD, mask_truncated=True)
    assert batch.samples(batch.lengths_PM)[:, 2].tolist() == [0, 0, 0]
    logprobs_PMT = group_logprobs(model, batch, temperature=0.7).logprobs_PMT
    batch = with_behaviour(batch.with_(advantages_PM=objective.advantages(batch)), logprobs_PMT, inputs)
    assert objective.denominator(batch)[0] == 11
    loss = loss_of(objective, batch, logprobs_PMT, objective.denominator(batch)).loss * 11 / 12
    assert max(compare(trainer, inputs, model, loss)) <= TOLERANCE


@pytest.mark.slow
def test_grpo_on_trls_standardised_advantages(folder: Path, tmp_path: Path) -> None:
    """Oracle: TRL with scale_rewards group. Our Â · σ/(σ + 1e-4) with ddof 1 is its advantage, and gives its loss."""
    groups = make_groups(2, REWARDS)
    trainer, inputs = grpo_trainer(folder, tmp_path, groups, loss_type="grpo", beta=0.0, scale_rewards="group")
    model, _ = ours_on_copy(folder, trainer)
    batch = collate(groups, pad_token_id=PAD)
    rewards_PG = batch.samples(batch.rewards_PM)
    sigma_P1 = rewards_PG.std(1, keepdim=True)
    bridged_PG = standardise(rewards_PG, ddof=1) * sigma_P1 / (sigma_P1 + 1e-4)
    assert bridged_PG.flatten().tolist() == pytest.approx(inputs["advantages"].tolist(), abs=1e-6)
    ours_PM = GRPO(ddof=1).advantages(batch)
    assert (ours_PM[:, :G] - bridged_PG).abs().max().item() <= 1e-3  # what the epsilon costs
    logprobs_PMT = group_logprobs(model, batch).logprobs_PMT
    batch = batch.with_(advantages_PM=torch.nn.functional.pad(bridged_PG, (0, 1)))
    batch = with_behaviour(batch, logprobs_PMT, inputs)
    loss = loss_of(GRPO(), batch, logprobs_PMT, GRPO().denominator(batch)).loss
    assert max(compare(trainer, inputs, model, loss)) <= TOLERANCE


@pytest.mark.slow
def test_sft(folder: Path, tmp_path: Path) -> None:
    """Oracle: TRL's SFTTrainer on the same prompt and completion ids, loss on the completion only, within 1e-5."""
    from datasets import Dataset

    groups = make_groups(3, [[] for _ in range(5)])
    rows = [(list(g.prompt_ids), list(g.reference.ids)) for g in groups]
    trainer = trl.SFTTrainer(
        model=str(folder),
        processing_class=tokenizer_of(folder),
        train_dataset=Dataset.from_dict(
            {
                "prompt": [" ".join(f"w{i}" for i in p) + " " for p, _ in rows],
                "completion": [" ".join(f"w{i}" for i in c[:-1]) for _, c in rows],
            }
        ),
        args=trl.SFTConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to="none",
            completion_only_loss=True,
            activation_checkpointing=False,
            model_init_kwargs={"dtype": "float32"},
        ),
    )
    prepared = [trainer.train_dataset[i] for i in range(5)]
    assert [row["input_ids"] for row in prepared] == [p + c for p, c in rows]
    model, _ = ours_on_copy(folder, trainer)
    trainer.model.train()
    objective: Objective = SFT()
    batch = collate(groups, pad_token_id=PAD)
    loss = loss_of(objective, batch, group_logprobs(model, batch).logprobs_PMT, objective.denominator(batch)).loss
    assert max(compare(trainer, trainer.data_collator(prepared), model, loss)) <= TOLERANCE


def test_the_bridge_between_the_two_standardisations() -> None:
    """Oracle: TRL's formula (R − μ)/(std(ddof=1) + 1e-4), written out; the identity that the slow test uses."""
    rewards = torch.randn(20, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = rewards.std(1, keepdim=True)
    theirs = (rewards - rewards.mean(1, keepdim=True)) / (sigma + 1e-4)
    assert torch.allclose(standardise(rewards, ddof=1) * sigma / (sigma + 1e-4), theirs, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", LOSSES)
def test_truncated_importance_sampling(folder: Path, tmp_path: Path, loss_type: str) -> None:
    """Oracle: TRL's loss and gradients with vllm_importance_sampling_mode token_truncate and a cap of 2, within 1e-5.

    Its loss is called with `use_vllm` on and the ratio of its definition, exp(log π_old − log π_vLLM) cut at 2.
    """
    groups = make_groups(0, REWARDS)
    trainer, inputs = grpo_trainer(
        folder, tmp_path, groups, loss_type=loss_type, beta=0.0, scale_rewards="none", epsilon=0.1, epsilon_high=0.3
    )
    model, _ = ours_on_copy(folder, trainer)
    objective = GRPO(**{**vars(LOSSES[loss_type]), "clip_low": 0.1, "clip_high": 0.3})
    batch = objective.with_advantages(collate(groups, pad_token_id=PAD))
    logprobs_PMT = group_logprobs(model, batch).logprobs_PMT
    batch = with_behaviour(batch, logprobs_PMT, inputs)
    noise = torch.randn(logprobs_PMT.shape, generator=torch.Generator().manual_seed(8))
    engine_PMT = (batch.behaviour_logprobs_PMT + noise) * batch.mask_PMT
    ratio = (inputs["old_per_token_logps"] - to_theirs(engine_PMT, inputs["completion_ids"].shape[1])).exp()
    trainer.use_vllm, trainer.vllm_importance_sampling_correction = True, True
    inputs["importance_sampling_ratio"] = ratio.clamp(max=2.0)
    assert (ratio > 2).any()
    batch = batch.with_(sampling_logprobs_PMT=engine_PMT, sampling_is_exact=False)
    loss = loss_of(objective, batch, logprobs_PMT, objective.denominator(batch)).loss
    assert max(compare(trainer, inputs, model, loss)) <= TOLERANCE
