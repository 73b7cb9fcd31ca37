"""Random batches for the objectives, their plain double-loop oracles, and one way to compare the two.

The oracles are written from the equations, member by member and token by token, on float64 scalars. They call nothing
in grao: what they share with it is only the layout of a batch. For the tests against TRL there is a saved tiny model.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests import shapes
from tests.objectives.policy_outputs import loss_of
from torch import Tensor

from grao.groups import Group, GroupBatch, Member, collate
from grao.objectives import Objective

PAD = 0


@pytest.fixture(autouse=True)
def _shapes_are_what_names_say() -> Iterator[None]:
    with shapes.checked():
        yield


@dataclass(frozen=True)
class Scored:
    """A batch with what a policy would have said about it."""

    batch: GroupBatch
    logprobs_PMT: Tensor
    """float64 leaf; 0 where masked."""


def random_group(
    rng: random.Random,
    row: int,
    rewards: Sequence[float | None],
    reference: float | str | None = "absent",
    rejected: bool = False,
    longest: int = 5,
    truncated: Sequence[int] = (),
) -> Group:
    """A group with these rewards and random tokens; `reference` is its reward, None unscored, "absent" for none."""

    def tokens() -> tuple[int, ...]:
        return tuple(rng.randrange(1, 30) for _ in range(rng.randint(1, longest)))

    samples = tuple(
        Member(tokens(), "", "length" if i in truncated else "stop", reward=reward) for i, reward in enumerate(rewards)
    )
    return Group(
        row=row,
        prompt="q",
        prompt_ids=tokens(),
        samples=samples,
        reference=None if reference == "absent" else Member(tokens(), "", reward=reference),  # type: ignore[arg-type]
        rejected=Member(tokens(), "") if rejected else None,
    )


def score(
    batch: GroupBatch, seed: int, *, behaviour: bool = False, frozen: bool = False, drift: float = 0.3
) -> Scored:
    """Random log-probs for a batch; behaviour and frozen ones lie around them, so that ratios straddle 1."""
    generator = torch.Generator().manual_seed(seed)

    def noise() -> Tensor:
        return torch.randn(batch.mask_PMT.shape, generator=generator, dtype=torch.float64)

    logprobs = (-noise().abs() - 0.05) * batch.mask_PMT
    extra: dict[str, Tensor | None] = {}
    if behaviour:
        extra["behaviour_logprobs_PMT"] = (logprobs + drift * noise()) * batch.mask_PMT
    if frozen:
        extra["frozen_logprobs_PMT"] = (logprobs + drift * noise()) * batch.mask_PMT
    return Scored(batch.with_(**extra), logprobs.requires_grad_())


def random_scored(
    seed: int,
    *,
    P: int = 3,
    G: int = 4,
    unscored: float = 0.2,
    levels: Sequence[float] = (-1.0, 0.0, 1.0, 0.35),
    rejected: bool = False,
    truncated: bool = False,
    mask_truncated: bool = False,
    **extra: bool,
) -> Scored:
    """Groups whose members are unscored now and then, with references of every kind."""
    rng = random.Random(seed)

    def reward() -> float | None:
        return None if rng.random() < unscored else rng.choice(levels)

    groups = [
        random_group(
            rng,
            row,
            [reward() for _ in range(G)],
            reward(),
            rejected=rejected,
            truncated=[i for i in range(G) if truncated and rng.random() < 0.4],
        )
        for row in range(P)
    ]
    return score(collate(groups, pad_token_id=PAD, mask_truncated=mask_truncated), seed, **extra)


def our_loss(objective: Objective, scored: Scored, denominator: Tensor | None = None) -> tuple[float, Tensor]:
    """Value of the loss and its gradient with respect to the log-probs."""
    logprobs = scored.logprobs_PMT.detach().clone().requires_grad_()
    batch = scored.batch.with_(advantages_PM=objective.advantages(scored.batch))
    denominator = objective.denominator(batch) if denominator is None else denominator
    loss = loss_of(objective, batch, logprobs, denominator).loss
    (gradient,) = torch.autograd.grad(loss, logprobs, allow_unused=True) if loss.requires_grad else (None,)
    return loss.item(), torch.zeros_like(logprobs) if gradient is None else gradient


def oracle_loss(oracle: Callable[[Scored, Tensor], Tensor], scored: Scored) -> tuple[float, Tensor]:
    """The same of an oracle."""
    logprobs = scored.logprobs_PMT.detach().clone().requires_grad_()
    loss = oracle(scored, logprobs)
    if not loss.requires_grad:
        return loss.item(), torch.zeros_like(logprobs)
    return loss.item(), torch.autograd.grad(loss, logprobs)[0]


def largest_difference(objective: Objective, oracle: Callable[[Scored, Tensor], Tensor], scored: Scored) -> float:
    """Largest absolute difference of value and gradient between an objective and its oracle."""
    value, gradient = our_loss(objective, scored)
    expected, expected_gradient = oracle_loss(oracle, scored)
    return max(abs(value - expected), (gradient - expected_gradient).abs().max().item())


# --- the equations, in loops -----------------------------------------------------------------------------------------


def reward_lists(batch: GroupBatch) -> list[list[float | None]]:
    """Rewards of every group's members as Python numbers, None where unscored."""
    return [[None if math.isnan(r) else r for r in row] for row in batch.rewards_PM.tolist()]


def standardise_loop(values: Sequence[float | None], over: Sequence[float | None], ddof: int = 0) -> list[float]:
    """(v − μ)/σ with μ, σ over the scored of `over`, by Python's statistics module."""
    scored = [r for r in over if r is not None]
    if len(scored) < 2:
        return [0.0] * len(values)
    sigma = statistics.stdev(scored) if ddof else statistics.pstdev(scored)
    if sigma < 1e-6:
        return [0.0] * len(values)
    mu = statistics.fmean(scored)
    return [0.0 if v is None else (v - mu) / sigma for v in values]


def centre_loop(rewards: Sequence[float | None]) -> list[float]:
    """R − μ over the scored."""
    scored = [r for r in rewards if r is not None]
    if len(scored) < 2 or max(scored) == min(scored):
        return [0.0] * len(rewards)
    return [0.0 if r is None else r - statistics.fmean(scored) for r in rewards]


def leave_one_out_loop(rewards: Sequence[float | None]) -> list[float]:
    """R_i minus the mean of the others, literally."""
    out = []
    for i, r in enumerate(rewards):
        others = [x for j, x in enumerate(rewards) if j != i and x is not None]
        out.append(0.0 if r is None or not others else r - statistics.fmean(others))
    return out


def sft_oracle(aggregation: str, length: int | None) -> Callable[[Scored, Tensor], Tensor]:
    """−log π(y), added up as `aggregation` says."""

    def loss(scored: Scored, logprobs: Tensor) -> Tensor:
        batch, total, rows, tokens = scored.batch, torch.zeros((), dtype=torch.float64), 0, 0
        y = batch.reference_index
        for p in range(len(batch)):
            places = [t for t in range(batch.mask_PMT.shape[2]) if batch.mask_PMT[p, y, t]]
            tokens += len(places)
            rows += bool(places)
            for t in places:
                weight = {"token_mean": 1.0, "sequence_mean": 1 / len(places), "constant": 1 / (length or 1)}
                total = total - logprobs[p, y, t] * weight[aggregation]
        return total / max(tokens if aggregation == "token_mean" else rows, 1)

    return loss


def grpo_oracle(objective: object) -> Callable[[Scored, Tensor], Tensor]:
    """Clipped surrogate minus kl · k3, sample by sample and token by token."""
    o = SimpleNamespace(**vars(objective))

    def loss(scored: Scored, logprobs: Tensor) -> Tensor:
        batch = scored.batch
        total, samples, tokens = torch.zeros((), dtype=torch.float64), 0, 0
        for p, rewards in enumerate(reward_lists(batch)):
            rewards = rewards[: batch.num_samples]
            if sum(r is not None for r in rewards) < 2:
                continue
            advantages = {
                "standardised": lambda r: standardise_loop(r, r, o.ddof),
                "centred": centre_loop,
                "leave_one_out": leave_one_out_loop,
            }[o.baseline](rewards)
            for i, (reward, advantage) in enumerate(zip(rewards, advantages, strict=True)):
                if reward is None:
                    continue
                samples += 1
                places = [t for t in range(batch.mask_PMT.shape[2]) if batch.mask_PMT[p, i, t]]
                tokens += len(places)
                for t in places:
                    new = logprobs[p, i, t]
                    old = (
                        new.detach() if batch.behaviour_logprobs_PMT is None else batch.behaviour_logprobs_PMT[p, i, t]
                    )
                    ratio = torch.exp(new - old)
                    if ratio > 1 + o.clip_high and advantage > 0:
                        gain = torch.tensor((1 + o.clip_high) * advantage, dtype=torch.float64)
                    elif ratio < 1 - o.clip_low and advantage < 0:
                        gain = torch.tensor((1 - o.clip_low) * advantage, dtype=torch.float64)
                    else:
                        gain = ratio * advantage
                    if o.kl:
                        q = torch.exp(batch.frozen_logprobs_PMT[p, i, t] - new)
                        gain = gain - o.kl * (q - torch.log(q) - 1)
                    weight = {
                        "sequence_mean": 1 / len(places),
                        "token_mean": 1.0,
                        "constant": 1 / (o.length or 1),
                    }[o.aggregation]
                    total = total - weight * gain
        return total / max(tokens if o.aggregation == "token_mean" else samples, 1)

    return loss


def grao_oracle(objective: object) -> Callable[[Scored, Tensor], Tensor]:
    """Eq. 3 as printed, three terms, then the choice on a reference whose total weight is negative."""
    o = SimpleNamespace(**vars(objective))

    def loss(scored: Scored, logprobs: Tensor) -> Tensor:
        batch, y = scored.batch, scored.batch.num_samples
        everything = reward_lists(batch)
        counted = [p for p, r in enumerate(everything) if sum(x is not None for x in r[: y + 1]) >= 2]
        members = [(p, m) for p in counted for m in range(y + 1) if everything[p][m] is not None]
        mean_length = sum(int(batch.mask_PMT[p, m].sum()) for p, m in members) / max(len(members), 1)

        def J(p: int, m: int, gate: bool = False) -> Tensor:
            places = [t for t in range(batch.mask_PMT.shape[2]) if batch.mask_PMT[p, m, t]]
            total = torch.zeros((), dtype=torch.float64)
            for t in places:
                total = total + logprobs[p, m, t] * (logprobs[p, m, t].detach().exp() if gate else 1.0)
            own = {"sequence_mean": max(len(places), 1), "token_mean": mean_length, "constant": o.length}
            return total / own[o.aggregation]

        objective_value = torch.zeros((), dtype=torch.float64)
        for p, rewards in enumerate(everything):
            samples, joint = rewards[:y], rewards[: y + 1]
            over_samples, over_joint = standardise_loop(joint, samples), standardise_loop(joint, joint)
            A = {
                "joint": over_joint,
                "samples": over_samples,
                "split": [*over_samples[:-1], over_joint[-1]],
            }[o.advantages_over]
            G = max(sum(r is not None for r in samples), 1)
            for i in range(y):
                objective_value = objective_value + o.exploration * A[i] * J(p, i) / G
                objective_value = objective_value + o.lam * A[i] * (J(p, i) - J(p, y)) / G
            objective_value = objective_value + o.beta * A[y] * J(p, y)
            c_y = o.beta * A[y] - o.lam * sum(A[:y]) / G
            if c_y < 0 and o.negative_reference != "keep":
                kept = torch.zeros((), dtype=torch.float64)
                if o.negative_reference == "gate":
                    kept = J(p, y, gate=True)
                if o.negative_reference == "taper":
                    drift = sum(
                        float(logprobs[p, y, t].detach() - batch.frozen_logprobs_PMT[p, y, t])
                        for t in range(batch.mask_PMT.shape[2])
                        if batch.mask_PMT[p, y, t]
                    )
                    kept = min(1.0, math.exp(drift)) * J(p, y)
                objective_value = objective_value + c_y * (kept - J(p, y))
        return -objective_value / max(len(counted), 1)

    return loss


@pytest.fixture(scope="session")
def plain() -> SimpleNamespace:
    """Everything above, for test modules (a conftest cannot be imported)."""
    names = (
        Scored, random_group, score, random_scored, our_loss, largest_difference,
        standardise_loop, centre_loop, leave_one_out_loop, sft_oracle, grpo_oracle, grao_oracle,
    )  # fmt: skip
    return SimpleNamespace(PAD=PAD, **{f.__name__: f for f in names})


# --- what TRL's trainers and our path both start from ----------------------------------------------------------------


@pytest.fixture(scope="session")
def save_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """Saves a tiny random model of a family and a word-level tokenizer, the way users hold them.

    Ids: 0 <pad>, 1 <eos>, then the words w2, w3, … up to `vocabulary`.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    def save(family: str, vocabulary: int) -> Path:
        folder = tmp_path_factory.mktemp(family)
        words = ["<pad>", "<eos>", *(f"w{i}" for i in range(2, vocabulary))]
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
        fast.save_pretrained(folder)
        config = AutoConfig.for_model(
            family,
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.3,
            pad_token_id=PAD,
            eos_token_id=1,
            bos_token_id=None,
        )
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        return folder

    return save
