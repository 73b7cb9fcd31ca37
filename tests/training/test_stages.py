"""A chain of stages against the same stages by hand: one run after the other, each a trainer of its own."""

from __future__ import annotations

import copy
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, TrainerCallback

from grao.data import EncodedExample
from grao.groups import GroupBatch
from grao.objectives import DPO, GRAO, GRPO, PPO, SFT, Needs, Objective
from grao.policy import LoRA, group_logprobs, install_scoring
from grao.policy.lora import add_adapters
from grao.training import CriticConfig, GroupTrainer, Monitor, Rollout, Stage, StageSequence

Make = Callable[..., GroupTrainer]
SameWeights = Callable[..., None]
MicroBatches = Callable[[GroupTrainer], list[GroupBatch]]


def trained(trainer: GroupTrainer) -> GroupTrainer:
    trainer.train()
    return trainer


def logged(trainer: GroupTrainer, name: str) -> list[float]:
    return [line[name] for line in trainer.state.log_history if name in line]


# --- a chain is its stages, one after the other ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("second", "critic"),
    [
        pytest.param(SFT(aggregation="sequence_mean"), None, id="sft", marks=pytest.mark.slow),
        pytest.param(DPO(), None, id="dpo", marks=pytest.mark.slow),
        pytest.param(GRPO(kl=0.05), None, id="grpo-kl", marks=pytest.mark.slow),
        pytest.param(PPO(), "shared", id="ppo-shared", marks=pytest.mark.slow),
        pytest.param(PPO(), "separate", id="ppo-separate"),
    ],
)
def test_a_chain_is_one_run_after_the_other(
    second: Objective,
    critic: Any,
    make_trainer: Make,
    make_model: Callable[..., PreTrainedModel],
    same_weights: SameWeights,
    fixed_engine: type,
    answers: dict[Any, Any],
    preferences: list[EncodedExample],
) -> None:
    """Oracle: two trainers, the second of them new, on the weights that the first one left: every bit.

    The first stage is one whole pass over the rows in their order, so that both second halves start at row 0. The
    second one's learning rate is half of the first's: a factor without round-off.
    """
    given: dict[str, Any] = {
        "rows": preferences,
        "engine": fixed_engine(answers),
        "train_sampling_strategy": "sequential",
        "weight_decay": 0.1,
        "critic": CriticConfig(critic) if critic else None,
    }
    chain = trained(make_trainer([Stage(SFT(), 6), Stage(second, 3, 5e-3)], **given))

    first = trained(make_trainer(SFT(), max_steps=6, **given))
    after_first = copy.deepcopy(first.model)
    alone = trained(make_trainer(second, first.model, prepared=True, max_steps=3, learning_rate=5e-3, **given))
    same_weights(chain.model, alone.model)
    if critic:
        same_weights(chain.critic, alone.critic)
    for name in ("loss", "grad_norm", "kl"):
        assert logged(chain, name) == logged(first, name) + logged(alone, name)
    with pytest.raises(AssertionError):  # the second stage did something
        same_weights(chain.model, after_first)


def test_samples_go_on_as_if_the_first_stage_had_stood_still(
    make_trainer: Make, same_weights: SameWeights, make_model: Callable[..., PreTrainedModel]
) -> None:
    """Oracle: a chain whose first stage has a learning rate of 0, from the weights of an SFT run: every bit.

    Its second stage makes the same steps of the run, hence draws the same samples from the same policy, and measures
    its KL from the same start.
    """
    chain = trained(make_trainer([Stage(SFT(), 2), Stage(GRPO(kl=0.05), 2)], weight_decay=0.1))
    first = trained(make_trainer(SFT(), max_steps=2, weight_decay=0.1))
    still = [Stage(SFT(), 2, 0.0), Stage(GRPO(kl=0.05), 2)]
    other = trained(make_trainer(still, first.model, prepared=True, weight_decay=0.1))
    same_weights(chain.model, other.model)
    assert logged(chain, "reward") == logged(other, "reward")
    assert logged(chain, "kl") == logged(other, "kl")
    assert logged(chain, "kl")[1] > 0


# --- learning rates --------------------------------------------------------------------------------------------------


class Rates(TrainerCallback):
    """The learning rates of all groups of the optimiser, as each step uses them."""

    def __init__(self) -> None:
        self.steps: list[list[float]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append([group["lr"] for group in kwargs["optimizer"].param_groups])


def test_every_stage_warms_up_and_decays_over_its_own_steps(make_trainer: Make) -> None:
    """Oracle: by hand: 0.01 over 4 steps and 0.004 over 5, each with 2 steps of warm-up, then a line down to 0."""
    stages = [Stage(SFT(), 4), Stage(SFT(aggregation="sequence_mean"), 5, 4e-3)]
    trainer = trained(make_trainer(stages, lr_scheduler_type="linear", warmup_steps=2))
    by_hand = [0.0, 0.005, 0.01, 0.005, 0.0, 0.002, 0.004, 0.004 * 2 / 3, 0.004 / 3]
    assert logged(trainer, "learning_rate") == pytest.approx(by_hand, rel=1e-12)


def test_a_schedule_that_ends_at_a_rate_ends_there_in_every_stage(make_trainer: Make) -> None:
    """Oracle: the cosine by hand, from each stage's rate to the same 0.002, half-way at the middle step."""
    settings = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 2e-3}}
    trainer = trained(make_trainer([Stage(SFT(), 2), Stage(SFT(), 4, 4e-3)], **settings))
    second = [0.002 + 0.002 * (1 + math.cos(math.pi * t / 4)) / 2 for t in range(4)]
    assert logged(trainer, "learning_rate") == pytest.approx([0.01, 0.006, *second], rel=1e-12)


def test_a_single_stage_has_its_own_rate_too(make_trainer: Make) -> None:
    """Oracle: by hand."""
    trainer = trained(make_trainer([Stage(SFT(), 2, 4e-3)], lr_scheduler_type="linear"))
    assert logged(trainer, "learning_rate") == pytest.approx([0.004, 0.002], rel=1e-12)


@pytest.mark.parametrize(("rate", "expected"), [(None, [0.004, 0.002]), (8e-3, [0.008, 0.004])])
def test_the_rate_of_a_critic_in_a_stage(rate: float | None, expected: list[float], make_trainer: Make) -> None:
    """Oracle: by hand: the policy's of this stage, or one of its own in every stage; the schedule applies to both."""
    rates = Rates()
    make_trainer(
        [Stage(SFT(), 2), Stage(PPO(), 2, 4e-3)],
        lr_scheduler_type="linear",
        critic=CriticConfig(learning_rate=rate),
        callbacks=[rates],
    ).train()
    policy, own = [0.01, 0.005, 0.004, 0.002], [rate or 0.01, (rate or 0.01) / 2, *expected]
    assert len(rates.steps) == 4
    for step, found in enumerate(rates.steps):  # two groups each: with and without weight decay
        assert found == pytest.approx([policy[step]] * 2 + [own[step]] * 2, rel=1e-12)


# --- what a stage starts with ----------------------------------------------------------------------------------------


class Moments(TrainerCallback):
    """How many weights the optimiser knows before each update, and how often it has updated them after it."""

    def __init__(self) -> None:
        self.known: list[int] = []
        self.updates: list[set[int]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.known.append(len(kwargs["optimizer"].state))

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.updates.append({int(moments["step"]) for moments in kwargs["optimizer"].state.values()})


def test_moments_end_with_their_stage(make_trainer: Make) -> None:
    """Oracle: counting: AdamW knows no weight at the first update of a stage, and counts its updates from 1."""
    moments = Moments()
    make_trainer([Stage(SFT(), 2), Stage(GRAO(), 3)], callbacks=[moments]).train()
    assert [known > 0 for known in moments.known] == [False, True, False, True, True]
    assert moments.updates == [{1}, {2}, {1}, {2}, {3}]


def test_training_twice_enters_the_first_stage_from_the_last(make_trainer: Make) -> None:
    """Oracle: the KL to the policy that a stage starts from is 0 at its first step, also when it runs again."""
    trainer = make_trainer([Stage(GRPO(kl=0.1), 2), Stage(SFT(), 1)], monitor=Monitor(kl_every=1))
    for _ in range(2):
        trainer.train()
        first, second, _ = [line for line in trainer.state.log_history if "loss" in line]
        assert first["kl"] == pytest.approx(0, abs=1e-6)
        assert second["kl"] > 1e-4


@pytest.mark.parametrize(
    "adapters", [pytest.param(False, id="weights"), pytest.param(True, id="lora", marks=pytest.mark.slow)]
)
def test_a_stage_is_anchored_where_it_starts(
    adapters: bool, make_trainer: Make, make_model: Callable[..., PreTrainedModel], micro_batches: MicroBatches
) -> None:
    """Oracle: the log-probs of the policy that the first stage alone leaves; they are not those of the base."""

    def policy() -> Any:
        model: Any = make_model()
        install_scoring(model)
        if adapters:
            torch.manual_seed(0)
            model = add_adapters(model, LoRA(r=4, alpha=8))
        return model

    start = trained(make_trainer(SFT(), policy(), prepared=True, max_steps=3, learning_rate=3e-2)).model
    base = make_model()
    install_scoring(base)
    chain = make_trainer([Stage(SFT(), 3), Stage(GRPO(kl=0.05), 2)], policy(), prepared=True, learning_rate=3e-2)
    batches = micro_batches(chain)
    chain.train()
    start.eval()  # type: ignore[union-attr]
    for batch in batches[3:]:
        assert batch.frozen_logprobs_PMT is not None
        with torch.no_grad():
            anchor, before = (group_logprobs(model, batch).logprobs_PMT for model in (start, base))
        torch.testing.assert_close(batch.frozen_logprobs_PMT, anchor, atol=1e-6, rtol=0)
        assert float((batch.frozen_logprobs_PMT - before).abs().max()) > 0.1


def test_the_kl_starts_anew_in_every_stage(make_trainer: Make) -> None:
    """Oracle: KL of a policy to itself: 0 at the first step of both stages, and at no other."""
    stages = [Stage(GRPO(kl=0.05), 3), Stage(GRPO(kl=0.01), 3)]
    kl = logged(trained(make_trainer(stages, learning_rate=3e-2)), "kl")
    assert [round(value, 9) == 0 for value in kl] == [True, False, False] * 2


@pytest.mark.slow
def test_the_kl_is_watched_in_a_stage_without_a_penalty(make_trainer: Make) -> None:
    """Oracle: as above; `kl_every` counts the steps of the run: 4 and 6 are watched, 3 and 5 are not."""
    trainer = trained(
        make_trainer([Stage(SFT(), 4), Stage(GRAO(), 3)], monitor=Monitor(kl_every=2), learning_rate=3e-2)
    )
    assert ["kl" in line for line in trainer.state.log_history[:7]] == [False] * 4 + [True, False, True]
    first, second = logged(trainer, "kl")
    assert abs(first) < 1e-6 < 1e-3 < second


# --- resumed in the middle of a stage --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "remedy"),
    [
        pytest.param(GRPO(kl=0.05), "", id="kl"),
        pytest.param(GRPO(), ", or set monitor.kl_every to 0", id="watched"),
    ],
)
def test_resuming_needs_the_policy_that_the_stage_started_from(
    objective: Objective,
    remedy: str,
    make_trainer: Make,
    same_weights: SameWeights,
    tmp_path: Path,
) -> None:
    """Oracle: the uninterrupted run, every bit; without the file the sentence, and the remedy where there is one."""
    stages = [Stage(SFT(), 2), Stage(objective, 3)]
    given: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "monitor": Monitor(kl_every=1)}
    whole = trained(make_trainer(stages, **given))
    kept = tmp_path / "run" / "stages" / "1" / "frozen_policy.safetensors"
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]

    resumed = make_trainer(stages, **given)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    same_weights(resumed.model, whole.model)
    assert logged(resumed, "kl") == logged(whole, "kl")

    shutil.rmtree(kept.parent)
    message = f"{kept} is missing: it holds the frozen policy of stage 2. Start the run over{remedy}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_trainer(stages, **given).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    again = make_trainer(stages, **given)  # from the border the stage starts over, and needs no file
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    same_weights(again.model, whole.model)


# --- the chain by itself ---------------------------------------------------------------------------------------------


def test_which_stage_makes_a_step() -> None:
    """Oracle: by hand: stages of 2, 6 and 1 steps, two updates a collection where something is drawn."""
    chain = StageSequence([Stage(SFT(), 2), Stage(GRPO(), 6), Stage(DPO(), 1)], updates=2)
    assert (chain.starts, chain.steps) == ((0, 2, 8), 9)
    assert [chain.index(step) for step in range(11)] == [0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2]
    assert [chain.updates_served(step) for step in range(9)] == [0, 0, 0, 1, 0, 1, 0, 1, 0]
    assert chain.reuses
    assert not StageSequence([Stage(SFT(), 3)], updates=2).reuses


def test_a_chain_needs_what_any_of_its_stages_needs() -> None:
    """Oracle: by hand, from what each objective says."""
    assert StageSequence([Stage(SFT(), 1)]).needs == Needs(reference=True)
    assert StageSequence([Stage(SFT(), 1), Stage(GRPO(kl=0.1), 1)]).needs == Needs(
        samples=True, reference=True, frozen_policy=True, behaviour="reused"
    )
    every = Needs(samples=True, reference=True, rejected=True, frozen_policy=True, behaviour="always", critic=True)
    assert StageSequence([Stage(PPO(), 1), Stage(GRPO(), 1), Stage(DPO(), 1)]).needs == every


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stage(SFT(), 0), "The stage SFT has 0 steps. Give 1 or more."),
        (lambda: Stage(GRPO(), 2, -1e-3), "The stage GRPO has a learning rate of -0.001. Give 0 or more."),
        (lambda: Stage(GRPO(), 2, math.nan), "The stage GRPO has a learning rate of nan. Give 0 or more."),
        (lambda: StageSequence([]), "The list of stages is empty. Give at least one stage."),
        (
            lambda: StageSequence([Stage(SFT(), 3), Stage(GRPO(), 5)], updates=2),
            "The stage GRPO has 5 steps, but each rollout serves 2 (num_iterations × "
            "num_mini_batches). Give a multiple of 2.",
        ),
    ],
)
def test_what_cannot_be_a_chain(make: Callable[[], Any], message: str) -> None:
    """Oracle: the sentence."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


def test_the_rows_of_a_stage_have_what_it_needs(make_trainer: Make) -> None:
    """Oracle: the sentences: of the second stage's needs, before the first one starts."""
    with pytest.raises(ValueError, match="DPO needs a rejected answer in every row, but row 0 has none"):
        make_trainer([Stage(SFT(), 2), Stage(DPO(), 2)])
    with pytest.raises(ValueError, match="num_generations is 1, but GRPO compares the samples of a group"):
        make_trainer([Stage(SFT(), 2), Stage(GRPO(), 2)], rollout=Rollout(num_generations=1))
