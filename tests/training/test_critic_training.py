"""A critic in training: PPO against a plain loop; how its critic is clipped, scheduled, taught, and saved."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel, TrainerCallback

from grao.configuration import build
from grao.data import EncodedExample
from grao.groups import GroupBatch, Member
from grao.objectives import GRAO, PPO
from grao.rewards import RewardSet
from grao.training import CriticConfig, GroupTrainer, Rollout, RunConfig, train

Make = Callable[..., GroupTrainer]
KINDS = ("shared", "separate")
every_kind = pytest.mark.parametrize("kind", KINDS)
shared_is_slow = pytest.mark.parametrize("kind", [pytest.param("shared", marks=pytest.mark.slow), "separate"])


def randomise(trainer: GroupTrainer) -> GroupTrainer:
    """A random head: a fresh one is 0, sends no gradient to the hidden states, and would hide everything."""
    generator = torch.Generator().manual_seed(5)
    assert trainer.critic is not None
    with torch.no_grad():
        for parameter in trainer.critic.head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return trainer


def logged(trainer: GroupTrainer, name: str) -> list[float]:
    return [line[name] for line in trainer.state.log_history if name in line]


# --- against a plain loop --------------------------------------------------------------------------------------------


class PlainPPO:
    """PPO as its equations: one forward pass a sample, one Python number a token, AdamW over policy and critic."""

    def __init__(self, model: Any, head: torch.nn.Linear, kind: str, objective: PPO, limit: float) -> None:
        self.objective, self.limit = objective, limit
        self.model, self.head, self.frozen = model, head, copy.deepcopy(model)
        self.backbone = copy.deepcopy(model.model) if kind == "separate" else model.model
        critic = [*head.parameters(), *(self.backbone.parameters() if kind == "separate" else ())]
        self.parameters = [*model.parameters(), *critic]
        decayed, others = ([p for p in self.parameters if (p.dim() > 1) is decays] for decays in (True, False))
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], 1e-2
        )

    def logprobs(self, model: Any, prompt: tuple[int, ...], ids: tuple[int, ...]) -> torch.Tensor:
        logits = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
        return logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]

    def values(self, prompt: tuple[int, ...], ids: tuple[int, ...]) -> torch.Tensor:
        hidden = self.backbone(input_ids=torch.tensor([[*prompt, *ids]])).last_hidden_state[0]
        return self.head(hidden[len(prompt) - 1 : -1])[:, 0]

    @torch.no_grad()
    def collect(self, samples: list[tuple[tuple[int, ...], tuple[int, ...], float]]) -> list[dict[str, Any]]:
        """Constants of every sample (prompt, ids, reward): behaviour, values, advantages, returns."""
        collection: list[dict[str, Any]] = []
        for prompt, ids, reward in samples:
            behaviour = self.logprobs(self.model, prompt, ids)
            frozen, values = self.logprobs(self.frozen, prompt, ids), self.values(prompt, ids).tolist()
            rewards = [-self.objective.kl * float(behaviour[t] - frozen[t]) for t in range(len(ids))]
            rewards[-1] += reward
            advantages = [
                sum(
                    (self.objective.gamma * self.objective.gae_lambda) ** (k - t)
                    * (rewards[k] + self.objective.gamma * (values[k + 1] if k + 1 < len(ids) else 0) - values[k])
                    for k in range(t, len(ids))
                )
                for t in range(len(ids))
            ]
            returns = [a + v for a, v in zip(advantages, values, strict=True)]
            collection.append(
                {"prompt": prompt, "ids": ids, "behaviour": behaviour, "values": values, "returns": returns}
                | {"advantages": advantages}
            )
        tokens = [a for sample in collection for a in sample["advantages"]]
        mean = sum(tokens) / len(tokens)
        std = (sum((a - mean) ** 2 for a in tokens) / len(tokens)) ** 0.5
        for sample in collection:
            sample["advantages"] = [(a - mean) / std for a in sample["advantages"]]
        return collection

    def update(self, collection: list[dict[str, Any]]) -> tuple[float, float]:
        """One step on these samples; the loss and the norm of the gradient before clipping."""
        o, policy, value, tokens = self.objective, 0, 0, sum(len(s["ids"]) for s in collection)
        for sample in collection:
            logprobs = self.logprobs(self.model, sample["prompt"], sample["ids"])
            values = self.values(sample["prompt"], sample["ids"])
            for t in range(len(sample["ids"])):
                A, ret, old = sample["advantages"][t], sample["returns"][t], sample["values"][t]
                ratio = (logprobs[t] - sample["behaviour"][t]).exp()
                policy = policy - torch.minimum(ratio * A, ratio.clamp(1 - o.clip_low, 1 + o.clip_high) * A)
                held = old + (values[t] - old).clamp(-o.value_clip, o.value_clip)  # type: ignore[operator]
                value = value + 0.5 * torch.maximum((values[t] - ret) ** 2, (held - ret) ** 2)
        loss = (policy + o.value_weight * value) / tokens
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.limit)
        self.optimizer.step()
        return loss.item(), float(norm)  # type: ignore[union-attr]


@pytest.mark.usefixtures("float64_throughout")
@pytest.mark.parametrize(
    ("kind", "generations"),
    [
        pytest.param("shared", 2, id="shared"),
        pytest.param("separate", 2, id="separate"),
        pytest.param("shared", 1, id="one-sample-a-prompt", marks=pytest.mark.slow),
    ],
)
def test_ppo_equals_a_plain_loop(
    kind: Any,
    generations: int,
    make_trainer: Make,
    make_model: Callable[..., PreTrainedModel],
    micro_batches: Callable[[GroupTrainer], list[GroupBatch]],
    same_weights: Callable[..., None],
    fixed_engine: type,
    answers: dict[tuple[int, ...], list[Member]],
    encoded: list[EncodedExample],
) -> None:
    """Oracle: `PlainPPO` above: two collections, two updates each, so that KL, ratio and both clippings are at work.

    One norm over policy and critic is clipped; matrices decay and vectors do not, in both. In float64 throughout (the
    model's norms would round to float32, and prompts computed once round elsewhere than whole rows) with 1e-10,
    because Adam's quotient blows up round-off where a gradient is nearly 0; logged numbers are float32.
    """
    objective = PPO(kl=0.3, value_clip=0.02, clip_low=0.05, clip_high=0.05, value_weight=0.5)
    trainer = make_trainer(
        objective,
        make_model().double(),
        engine=fixed_engine(answers),
        rollout=Rollout(max_new_tokens=4, num_generations=generations, num_iterations=2),
        critic=CriticConfig(kind),
        per_device_train_batch_size=3,
        max_grad_norm=0.5,
        weight_decay=0.1,
    )
    seen = micro_batches(randomise(trainer))
    assert trainer.critic is not None
    head = copy.deepcopy(trainer.critic.head)
    trainer.train()

    plain = PlainPPO(make_model().double().train(), head, kind, objective, limit=0.5)
    for number in (0, 1):
        rows = seen[2 * number].rows_P.tolist()
        assert seen[2 * number + 1].rows_P.tolist() == rows
        samples = [
            (encoded[row].prompt_ids, member.ids, sum(word in "aei" for word in words) / len(words))
            for row in rows
            for member in answers[encoded[row].prompt_ids][:generations]
            for words in [member.text.split()]
        ]
        collection = plain.collect(samples)
        for step in (2 * number, 2 * number + 1):
            loss, norm = plain.update(collection)
            assert trainer.state.log_history[step]["loss"] == pytest.approx(loss, abs=1e-6)
            assert trainer.state.log_history[step]["grad_norm"] == pytest.approx(norm, rel=1e-6)
            assert norm > 0.5
    same_weights(trainer.model, plain.model, atol=1e-10)
    same_weights(trainer.critic.head, plain.head, atol=1e-10)
    if kind == "separate":
        same_weights(trainer.critic.backbone, plain.backbone, atol=1e-10)
    assert max(logged(trainer, "value/clip_ratio")) > 0
    assert max(logged(trainer, "clip_ratio/region_mean")) > 0
    assert max(map(abs, logged(trainer, "kl/behaviour"))) > 1e-3


# --- invariances -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["shared", pytest.param("separate", marks=pytest.mark.slow)])
def test_accumulating_changes_nothing(
    kind: Any, make_trainer: Make, make_model: Callable[..., PreTrainedModel], same_weights: Callable[..., None]
) -> None:
    """Oracle: an identity: two micro-batches of 2 prompts are one of 4; to 1e-10 in float64."""
    runs = []
    for accumulate in (1, 2):
        trainer = make_trainer(
            PPO(),
            make_model().double(),
            critic=CriticConfig(kind),
            per_device_train_batch_size=4 // accumulate,
            gradient_accumulation_steps=accumulate,
            max_steps=3,
        )
        randomise(trainer).train()
        runs.append(trainer)
    whole, parts = runs
    same_weights(parts.model, whole.model, atol=1e-10)
    same_weights(parts.critic, whole.critic, atol=1e-10)
    for name in ("loss", "grad_norm", "value/explained_variance", "reward"):
        assert logged(parts, name) == pytest.approx(logged(whole, name), rel=1e-6, abs=1e-6), name


@pytest.mark.slow
def test_a_sample_without_reward_teaches_nothing(
    make_trainer: Make,
    make_model: Callable[..., PreTrainedModel],
    same_weights: Callable[..., None],
    fixed_engine: type,
    answers: dict[tuple[int, ...], list[Member]],
) -> None:
    """Oracle: a run that never drew it: every second answer is unscored, or there is only the first; to 1e-10."""
    marked = {
        prompt: [members[0], replace(members[1], text=f"silent {members[1].text}")]
        for prompt, members in answers.items()
    }

    def refuses(completions: list[str], **columns: Any) -> list[float | None]:
        return [None if "silent" in c else float("a" in c) - 0.5 * float("i" in c) for c in completions]

    runs = []
    for generations in (2, 1):
        trainer = make_trainer(
            PPO(),
            make_model().double(),
            engine=fixed_engine(marked),
            rewards=RewardSet([refuses]),
            rollout=Rollout(max_new_tokens=4, num_generations=generations),
        )
        randomise(trainer).train()
        runs.append(trainer)
    same_weights(runs[0].model, runs[1].model, atol=1e-10)
    same_weights(runs[0].critic, runs[1].critic, atol=1e-10)
    assert logged(runs[0], "groups/unscored") == [0.5] * 4
    assert logged(runs[0], "reward") == logged(runs[1], "reward")


# --- gradients and rates ---------------------------------------------------------------------------------------------


class Gradients(TrainerCallback):
    """The policy's gradient at the first update, and the norm over it and the critic's."""

    trainer: GroupTrainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            assert self.trainer.critic is not None
            ours = [p.grad for p in self.trainer.critic.parameters() if p.grad is not None]
            self.policy = {n: p.grad.clone() for n, p in kwargs["model"].named_parameters() if p.grad is not None}
            self.norm = float(torch.cat([g.flatten() for g in (*self.policy.values(), *ours)]).norm())


@every_kind
def test_whose_gradient_the_value_loss_is(kind: Any, make_trainer: Make) -> None:
    """Oracle: the gradient without a value loss: the policy's own, bit for bit, under a separate critic only.

    Without clipping the logged norm is still that of policy and critic together.
    """
    found = []
    for weight in (0.0, 0.5):
        watch = Gradients()
        trainer = make_trainer(
            PPO(value_weight=weight),
            critic=CriticConfig(kind),
            max_grad_norm=0.0,
            callbacks=[watch],
            max_steps=1,
        )
        watch.trainer = randomise(trainer)
        trainer.train()
        assert trainer.state.log_history[0]["grad_norm"] == pytest.approx(watch.norm, rel=1e-6)
        found.append(watch)
    without, with_value = found
    assert without.policy.keys() == with_value.policy.keys()
    same = all(torch.equal(without.policy[name], with_value.policy[name]) for name in without.policy)
    assert same is (kind == "separate")
    assert with_value.norm > without.norm * 1.01


@shared_is_slow
def test_the_critic_has_a_rate_of_its_own(kind: Any, make_trainer: Make, make_model: Callable[..., Any]) -> None:
    """Oracle: a rate of 0 moves no bit: of the critic, or of the policy; the other one moves."""

    def moved(policy: float, critic: float) -> tuple[bool, bool]:
        trainer = make_trainer(PPO(), critic=CriticConfig(kind, critic), learning_rate=policy, max_steps=2)
        assert trainer.critic is not None
        before = [copy.deepcopy(m.state_dict()) for m in (trainer.model, trainer.critic)]  # type: ignore[union-attr]
        trainer.train()
        after = [m.state_dict() for m in (trainer.model, trainer.critic)]  # type: ignore[union-attr]
        policy_moved, critic_moved = (
            any(not torch.equal(old[name], new[name]) for name in old) for old, new in zip(before, after, strict=True)
        )
        return policy_moved, critic_moved

    assert moved(1e-2, 0.0) == (True, False)
    assert moved(0.0, 1e-2) == (False, True)


def test_a_rate_that_is_none() -> None:
    """Oracle: the sentence."""
    with pytest.raises(ValueError, match=r"^learning_rate is -1\.0\. Give 0 or more\.$"):
        CriticConfig(learning_rate=-1.0)


@shared_is_slow
def test_values_at_collection_are_those_of_the_first_update_in_half_precision(kind: Any, make_trainer: Make) -> None:
    """Oracle: an identity: nothing was learnt in between, so both are the same bits, also under bfloat16."""
    trainer = randomise(make_trainer(PPO(), bf16=True, max_steps=2, critic=CriticConfig(kind)))
    gaps, sizes = [], []
    critic = trainer.step.critic
    assert critic is not None
    plain = critic.values

    def values(model: Any, batch: GroupBatch) -> torch.Tensor:
        found = plain(model, batch)
        if batch.values_PMT is not None:  # in an update, not at the rollout
            gaps.append(float((found.detach() - batch.values_PMT).abs().max()))
            sizes.append(float(batch.values_PMT.abs().max()))
        return found

    critic.values = values  # type: ignore[method-assign]
    trainer.train()
    assert gaps == [0.0, 0.0]
    assert min(sizes) > 0.1


# --- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@every_kind
def test_the_critic_learns_what_the_prompt_predicts(
    kind: Any,
    make_trainer: Make,
    fixed_engine: type,
    answers: dict[tuple[int, ...], list[Member]],
) -> None:
    """Oracle: explained variance: 0 for a constant critic, near 1 once it knows which prompts are rewarded."""

    def early_letter(completions: list[str], prompts: list[str], **columns: Any) -> list[float]:
        return [float(prompt[0] < "f") for prompt in prompts]

    trainer = make_trainer(
        PPO(kl=0.0, value_clip=None, value_weight=1.0),
        engine=fixed_engine(answers),
        rewards=RewardSet([early_letter]),
        rollout=Rollout(max_new_tokens=4, num_generations=1),
        critic=CriticConfig(kind),
        learning_rate=3e-3,
        per_device_train_batch_size=12,
        max_steps=35,
    )
    trainer.train()
    explained = logged(trainer, "value/explained_variance")
    assert abs(explained[0]) < 1e-6
    assert min(explained[-3:]) > 0.9


@pytest.mark.slow
@every_kind
def test_the_reward_rises_with_one_sample_a_prompt(kind: Any, make_trainer: Make) -> None:
    """Oracle: the reward itself: from a random policy's quarter of vowels to over 0.6; no group is compared."""
    trainer = make_trainer(
        PPO(kl=0.0),
        rollout=Rollout(max_new_tokens=4, num_generations=1),
        critic=CriticConfig(kind),
        per_device_train_batch_size=12,
        learning_rate=5e-3,
        max_steps=40,
    )
    trainer.train()
    rewards = logged(trainer, "reward")
    assert sum(rewards[:3]) / 3 < 0.4
    assert sum(rewards[-3:]) / 3 > 0.6


# --- beside other objectives, and on disk ----------------------------------------------------------------------------


def test_no_critic_where_none_is_needed(make_trainer: Make) -> None:
    """Oracle: by hand: none is made, and the optimiser has transformers' two groups."""
    trainer = make_trainer(GRAO(), critic=CriticConfig("separate"), max_steps=1)
    trainer.train()
    assert trainer.critic is None
    assert len(trainer.optimizer.param_groups) == 2  # type: ignore[union-attr]


@shared_is_slow
def test_the_exported_policy_is_an_ordinary_model(
    kind: Any, config: dict[str, Any], make_model: Callable[..., PreTrainedModel]
) -> None:
    """Oracle: the names of an untrained model's weights; the critic lies in each checkpoint, and there alone."""
    config |= {"objective": {"name": "ppo"}, "critic": {"kind": kind}}
    run = train(build(RunConfig, config))
    exported = AutoModelForCausalLM.from_pretrained(run.model)
    names = set(make_model().state_dict())
    assert set(exported.state_dict()) == names
    assert set(load_file(run.model / "model.safetensors")) <= names
    checkpoints = sorted(run.directory.glob("checkpoint-*"))
    assert [path.name for path in checkpoints] == ["checkpoint-2", "checkpoint-3"]
    assert [path.parent for path in sorted(run.directory.rglob("critic.safetensors"))] == checkpoints
    for path in checkpoints:
        assert set(load_file(path / "model.safetensors")) <= names
    assert run.trainer.critic is not None
    last = load_file(checkpoints[-1] / "critic.safetensors")
    assert all(torch.equal(last[name], value) for name, value in run.trainer.critic.state_dict().items())
