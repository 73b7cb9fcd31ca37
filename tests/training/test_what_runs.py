"""Members without weight: no forward pass is spent on them, and training is what it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from grao.groups import GroupBatch
from grao.objectives import GRAO, GRPO, SFT, Objective
from grao.rewards import RewardSet
from grao.training import GroupTrainer, Monitor, Rollout

Make = Callable[..., GroupTrainer]


def some_alike(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    """Rewards that agree for every other prompt, by its length."""
    return [
        1.0 if len(p.split()) % 2 else sum(w in "aei" for w in c.split())
        for p, c in zip(prompts, completions, strict=True)
    ]


def all_alike(completions: list[str], **columns: Any) -> list[float]:
    return [1.0 for _ in completions]


def backbone_tokens(model: Any) -> list[int]:
    """Grows by the tokens of every forward pass of the backbone that is differentiated."""
    counts: list[int] = []

    def count(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            counts.append(kwargs["input_ids"].numel())

    model.model.register_forward_pre_hook(count, with_kwargs=True)
    return counts


@pytest.fixture
def run(
    make_trainer: Make,
    make_model: Callable[..., Any],
    fixed_engine: Callable[..., Any],
    answers: Any,
    micro_batches: Callable[[GroupTrainer], list[GroupBatch]],
) -> Callable[..., tuple[GroupTrainer, list[int], list[GroupBatch]]]:
    """Trains on three fixed answers a prompt, in float64: the trainer, tokens of each forward pass, micro-batches."""

    def train(objective: Objective, reward: Any = some_alike, **given: Any) -> Any:
        model = given.pop("model", None) or make_model()
        trainer = make_trainer(
            objective,
            model.double(),
            rewards=RewardSet([reward]),
            engine=fixed_engine(answers),
            rollout=given.pop("rollout", Rollout(max_new_tokens=4, num_generations=3)),
            **{"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 3, **given},
        )
        counts, seen = backbone_tokens(model), micro_batches(trainer)
        trainer.train()
        return trainer, counts, seen

    return train


def weights(trainer: GroupTrainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize(
    ("objective", "rollout"),
    [
        pytest.param(GRAO(), {}, id="grao"),
        pytest.param(GRAO.recommended(aggregation="token_mean"), {}, id="grao-recommended-token-mean"),
        pytest.param(GRPO(), {}, id="grpo"),
        pytest.param(GRPO.dapo(), {"num_iterations": 2}, id="dapo-twice"),
        pytest.param(GRPO.dr_grpo(4), {}, id="dr-grpo"),
        pytest.param(GRPO(kl=0.1), {}, id="grpo-kl"),
    ],
)
def test_training_is_what_it_was(
    run: Callable[..., Any], objective: Objective, rollout: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the same run in which everyone is said to have weight: losses, norms and weights in float64.

    What may differ is the order of sums, for micro-batches are balanced by the tokens that run.
    """
    rollout = {"rollout": Rollout(max_new_tokens=4, num_generations=3, **rollout), "max_steps": 4}
    trainer, tokens, _ = run(objective, **rollout)
    monkeypatch.setattr(type(objective), "contributing", Objective.contributing)
    whole, all_tokens, _ = run(objective, **rollout)
    assert len(tokens) == len(all_tokens) == 8
    assert sum(tokens) < sum(all_tokens) or (isinstance(objective, GRPO) and objective.kl > 0)
    assert (weights(trainer) - weights(whole)).abs().max().item() <= 1e-10
    for ours, theirs in zip(trainer.state.log_history[:4], whole.state.log_history[:4], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)  # transformers adds it up in float32
        for name in ("grad_norm", *(n for n in theirs if n.startswith(("loss/", "clip_ratio/", "weight/")))):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-9, abs=1e-11), name


def test_the_tokens_that_run_are_counted_by_hand(run: Callable[..., Any]) -> None:
    """Oracle: a loop over the groups: a prompt with spread, and its samples off the mean without their last tokens."""
    trainer, tokens, batches = run(GRPO())
    expected, groups_run, members = [], 0, [0, 0]
    for batch in batches:
        count = 0
        for p in range(len(batch)):
            rewards = batch.rewards_PM[p, :3].tolist()
            lengths = batch.mask_PMT[p, :3].sum(-1).tolist()
            running = [n for r, n in zip(rewards, lengths, strict=True) if abs(r - sum(rewards) / 3) > 1e-9]
            members = [members[0] + len(running), members[1] + 3]
            if running:
                groups_run += 1
                count += int(batch.prompt_mask_PS[p].sum()) + sum(n - 1 for n in running)
        expected.append(count or 1)  # a micro-batch in which nothing runs keeps the graph alive by one token
    assert tokens == expected
    assert 0 < groups_run < 12
    lines = trainer.state.log_history[:3]
    assert sum(line["groups/not_run"] for line in lines) / 3 == pytest.approx(1 - groups_run / 12)
    assert sum(line["members/not_run"] for line in lines) / 3 == pytest.approx(1 - members[0] / members[1])


def test_nothing_has_weight(run: Callable[..., Any]) -> None:
    """Oracle: by definition: one token a forward pass, no loss, no gradient, no likelihood to speak of."""
    trainer, tokens, _ = run(GRPO(), all_alike)
    assert tokens == [1] * 6
    for line in trainer.state.log_history[:3]:
        assert line["loss"] == line["grad_norm"] == 0.0
        assert line["groups/not_run"] == line["members/not_run"] == 1.0
        assert "entropy" not in line
        assert "logprobs/samples" not in line


def test_where_everything_runs(run: Callable[..., Any], make_model: Callable[..., Any]) -> None:
    """Oracle: tokens of all members: on the steps of the monitor's KL, and with a router's load-balancing loss."""
    trainer, tokens, batches = run(GRPO(), all_alike, monitor=Monitor(kl_every=2))
    lines = trainer.state.log_history[:3]
    assert [line["groups/not_run"] for line in lines] == [0.0, 1.0, 0.0]
    assert ["kl" in line for line in lines] == ["entropy" in line for line in lines] == [True, False, True]
    assert tokens[2:4] == [1, 1]

    def everything(batch: GroupBatch) -> int:
        return int(batch.prompt_mask_PS.sum() + (batch.lengths_PM - 1).clamp(min=0).sum())

    assert [tokens[i] for i in (0, 1, 4, 5)] == [everything(batches[i]) for i in (0, 1, 4, 5)]
    for coefficient in (0.5, 0.0):
        model = make_model("qwen3_moe", router_aux_loss_coef=coefficient)
        _, tokens, batches = run(GRPO(), all_alike, model=model)
        assert tokens == [everything(batch) if coefficient else 1 for batch in batches]


def test_references_run_for_sft(run: Callable[..., Any]) -> None:
    """Oracle: the default weighs everyone with tokens."""
    trainer, tokens, batches = run(SFT())
    assert tokens == [int(b.prompt_mask_PS.sum() + (b.lengths_PM - 1).sum()) for b in batches]
    assert all(line["members/not_run"] == 0.0 for line in trainer.state.log_history[:3])
