from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

from grao.data import EncodedExample
from grao.groups import GroupBatch, Member, PolicyOutput
from grao.objectives import GRAO, GRPO, SFT, LossOutput, Needs, Objective, Progress
from grao.objectives.likelihood import mean_logprob
from grao.objectives.objective import pad_members
from grao.policy import LoRA, group_logprobs, install_scoring
from grao.policy.lora import add_adapters
from grao.records import RunDirectory, seal_checkpoint
from grao.rollout import LocalEngine, draw_seed
from grao.training import GroupTrainer, Monitor, NotFiniteError, Rollout

Make = Callable[..., GroupTrainer]


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.fixture
def train_and_collect(
    micro_batches: Callable[[GroupTrainer], list[GroupBatch]],
) -> Callable[[GroupTrainer], list[GroupBatch]]:
    """Trains, and gives the micro-batches that were trained on, in order."""

    def run(trainer: GroupTrainer) -> list[GroupBatch]:
        seen = micro_batches(trainer)
        trainer.train()
        return seen

    return run


# --- against plain PyTorch -------------------------------------------------------------------------------------------


def test_sft_equals_a_plain_loop(
    make_trainer: Make,
    make_model: Callable[..., PreTrainedModel],
    encoded: list[EncodedExample],
    train_and_collect: Callable[[GroupTrainer], list[GroupBatch]],
) -> None:
    """Oracle: a loop in PyTorch: AdamW, F.cross_entropy over the step's reference tokens, clipping; same rows.

    Gradients are accumulated over two micro-batches of unlike length, as the mean over *all* tokens of the step. In
    float64, because Adam's quotient blows up round-off where a gradient is nearly 0.
    """
    trainer = make_trainer(
        SFT(),
        make_model().double(),
        max_steps=5,
        gradient_accumulation_steps=2,
        weight_decay=0.1,
        max_grad_norm=0.5,
        learning_rate=5e-3,
    )
    steps = train_and_collect(trainer)
    assert len(steps) == 10

    model = make_model().double().train()
    decayed = [p for n, p in model.named_parameters() if p.dim() > 1]
    others = [p for n, p in model.named_parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0}], 5e-3
    )
    for step in range(5):
        rows = [row for batch in steps[2 * step : 2 * step + 2] for row in batch.rows_P.tolist()]
        assert len(rows) == 4
        logits, targets = [], []
        for example in (encoded[row] for row in rows):
            assert example.reference_ids is not None
            ids = torch.tensor([[*example.prompt_ids, *example.reference_ids]])
            logits.append(model(input_ids=ids).logits[0, len(example.prompt_ids) - 1 : -1])
            targets.append(ids[0, len(example.prompt_ids) :])
        loss = torch.nn.functional.cross_entropy(torch.cat(logits), torch.cat(targets))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        assert trainer.state.log_history[step]["loss"] == pytest.approx(loss.item(), abs=1e-6)
    ours = weights(trainer.model)
    for name, value in weights(model).items():
        torch.testing.assert_close(ours[name], value, atol=1e-10, rtol=0, msg=name)


@pytest.mark.slow
def test_an_epoch_gives_every_row_once_and_the_next_another_order(
    make_trainer: Make, train_and_collect: Callable[[GroupTrainer], list[GroupBatch]]
) -> None:
    """Oracle: counting: 12 rows, 2 prompts a step: 6 steps are a permutation of all rows."""
    trainer = make_trainer(SFT(), max_steps=12)
    seen = [row for batch in train_and_collect(trainer) for row in batch.rows_P.tolist()]
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))
    assert seen[:12] != seen[12:]


# --- accumulation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(GRAO(), id="grao"),
        pytest.param(GRAO.recommended(), id="grao-recommended", marks=pytest.mark.slow),
        pytest.param(GRAO(aggregation="token_mean"), id="grao-token-mean", marks=pytest.mark.slow),
        pytest.param(GRPO(kl=0.1, aggregation="token_mean"), id="grpo-kl"),
        pytest.param(SFT(aggregation="sequence_mean"), id="sft-sequence-mean", marks=pytest.mark.slow),
    ],
)
def test_accumulating_changes_nothing(
    objective: Objective,
    make_trainer: Make,
    make_model: Callable[..., PreTrainedModel],
    train_and_collect: Callable[[GroupTrainer], list[GroupBatch]],
) -> None:
    """Oracle: an identity: four micro-batches of 1 prompt are one of 4 prompts; same rows, samples and weights.

    In float64, because Adam's quotient blows up round-off where a gradient is nearly 0.
    """
    runs = []
    for accumulate in (1, 4):
        trainer = make_trainer(
            objective,
            make_model().double(),
            per_device_train_batch_size=4 // accumulate,
            gradient_accumulation_steps=accumulate,
            max_steps=3,
        )
        batches = train_and_collect(trainer)
        ids = [[], [], []]
        for i, batch in enumerate(batches):
            for p, row in enumerate(batch.rows_P.tolist()):
                members = batch.ids_PMT[p].masked_fill(~batch.mask_PMT[p], -1)
                ids[i // accumulate].append((row, [[t for t in m.tolist() if t >= 0] for m in members]))
        runs.append((trainer, [sorted(step) for step in ids], len(batches)))
    (whole, samples, one), (parts, same_samples, four) = runs
    assert (one, four) == (3, 12)
    assert samples == same_samples
    reached = weights(parts.model)
    start = weights(make_model().double())
    assert any(not torch.equal(start[name], value) for name, value in reached.items())
    for name, value in weights(whole.model).items():
        torch.testing.assert_close(reached[name], value, atol=1e-10, rtol=0, msg=name)
    for a, b in zip(whole.state.log_history[:3], parts.state.log_history[:3], strict=True):
        for name in a:
            if "time" not in name and "seconds" not in name:
                assert b[name] == pytest.approx(a[name], rel=1e-6, abs=1e-6), name


def test_an_incomplete_last_accumulation_is_weighed_by_its_own_size(
    make_trainer: Make,
    make_model: Callable[..., PreTrainedModel],
    encoded: list[EncodedExample],
    train_and_collect: Callable[[GroupTrainer], list[GroupBatch]],
) -> None:
    """Oracle: 3 rows, accumulation 2: the epoch's second step has one micro-batch; its loss is that row's own mean."""
    trainer = make_trainer(
        SFT(),
        rows=encoded[:3],
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        max_steps=2,
        learning_rate=0.0,
    )
    batches = train_and_collect(trainer)
    assert [len(b) for b in batches] == [1, 1, 1]
    model = make_model()
    install_scoring(model)
    last = group_logprobs(model, batches[2])
    expected = -(last.logprobs_PMT.sum() / batches[2].mask_PMT.sum()).item()
    assert trainer.state.log_history[1]["loss"] == pytest.approx(expected, abs=1e-6)


# --- a new objective -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BestOfN(Objective):
    needs = Needs(samples=True)

    def advantages(self, batch: GroupBatch) -> torch.Tensor:
        rewards_PG = batch.samples(batch.rewards_PM).nan_to_num(nan=-torch.inf)
        return pad_members(torch.nn.functional.one_hot(rewards_PG.argmax(1), batch.num_samples), batch)

    def loss(
        self, batch: GroupBatch, output: PolicyOutput, denominator: torch.Tensor, progress: Progress
    ) -> LossOutput:
        J_PM = mean_logprob(output.logprobs_PMT, batch.mask_PMT)
        assert batch.advantages_PM is not None
        return LossOutput({"imitation": -(batch.advantages_PM * J_PM).sum() / denominator[0]})


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(BestOfN(), id="best-of-n"),
        pytest.param(GRAO(), id="grao", marks=pytest.mark.slow),
        pytest.param(GRPO(), id="grpo", marks=pytest.mark.slow),
    ],
)
def test_the_reward_rises(objective: Objective, make_trainer: Make) -> None:
    """Oracle: the reward itself: from a random policy's quarter of vowels to over 0.7, by 12 lines."""
    trainer = make_trainer(
        objective,
        max_steps=25,
        per_device_train_batch_size=6,
        rollout=Rollout(max_new_tokens=4, num_generations=6),
        learning_rate=5e-3,
    )
    trainer.train()
    rewards = [line["reward"] for line in trainer.state.log_history if "reward" in line]
    assert len(rewards) == 25
    assert sum(rewards[:3]) / 3 < 0.4
    assert sum(rewards[-3:]) / 3 > 0.7


# --- metrics ---------------------------------------------------------------------------------------------------------

PROMISED = [
    "reward",
    "reward_std",
    "frac_reward_zero_std",
    "rewards/vowels/mean",
    "completions/mean_length",
    "completions/clipped_ratio",
    "kl",
    "entropy",
    "num_tokens",
    "step_time",
    "loss/exploration",
    "loss/imitation",
    "loss/regulariser",
    "advantage/reference_mean",
    "advantage/reference_negative",
    "groups/all_win",
    "groups/all_lose",
    "groups/zero_variance",
    "groups/unscored",
    "grad/second_moment",
    "loss",
    "grad_norm",
    "learning_rate",
    "epoch",
]


def test_every_promised_metric_is_logged(make_trainer: Make) -> None:
    """Oracle: the list of names in the design; identities between the numbers of a line."""
    trainer = make_trainer(GRAO(), monitor=Monitor(kl_every=1), max_steps=3, gradient_accumulation_steps=2)
    trainer.train()
    for line in trainer.state.log_history[:3]:
        assert [name for name in PROMISED if name not in line] == []
        terms = sum(value for name, value in line.items() if name.startswith("loss/"))
        assert line["loss"] == pytest.approx(terms, abs=1e-6)
        assert line["grad/second_moment"] == pytest.approx(line["grad_norm"] ** 2, rel=1e-6)
        assert line["reward"] == pytest.approx(line["rewards/vowels/mean"])
        assert line["step_time"] > 0


def test_clip_ratios_are_logged_for_grpo(make_trainer: Make) -> None:
    """Oracle: one update follows each collection, so every ratio is 1 and nothing is clipped."""
    trainer = make_trainer(GRPO(), max_steps=2)
    trainer.train()
    for line in trainer.state.log_history[:2]:
        assert [line[f"clip_ratio/{kind}_mean"] for kind in ("low", "high", "region")] == [0.0, 0.0, 0.0]
        assert line["loss/policy"] == pytest.approx(line["loss"])


def test_num_tokens_counts_every_prompt_once(
    make_trainer: Make, train_and_collect: Callable[[GroupTrainer], list[GroupBatch]]
) -> None:
    """Oracle: lengths added up by hand over the micro-batches, running total."""
    trainer = make_trainer(GRAO(), max_steps=3)
    batches = train_and_collect(trainer)
    total = 0
    for line, batch in zip(trainer.state.log_history[:3], batches, strict=True):
        total += int(batch.prompt_mask_PS.sum()) + int(batch.mask_PMT.sum())
        assert line["num_tokens"] == total


@pytest.mark.slow
def test_logging_every_third_step_averages_over_three(make_trainer: Make) -> None:
    """Oracle: the same run logged every step; means of three lines, as every group is scored."""
    lines = {}
    for every in (1, 3):
        trainer = make_trainer(GRAO(), max_steps=6, logging_steps=every)
        trainer.train()
        lines[every] = [line for line in trainer.state.log_history if "loss" in line]
    assert (len(lines[1]), len(lines[3])) == (6, 2)
    for name in (
        "loss",
        "loss/exploration",
        "loss/imitation",
        "reward",
        "advantage/reference_mean",
        "grad/second_moment",
    ):
        for i, line in enumerate(lines[3]):
            expected = sum(one[name] for one in lines[1][3 * i : 3 * i + 3]) / 3
            assert line[name] == pytest.approx(expected, abs=1e-6), name


# --- gradient shares -------------------------------------------------------------------------------------------------


def test_gradient_shares_equal_autograd_and_change_nothing(
    make_trainer: Make,
    make_model: Callable[..., PreTrainedModel],
    train_and_collect: Callable[[GroupTrainer], list[GroupBatch]],
) -> None:
    """Oracle: each term differentiated by itself over the whole step; a run without the measurement."""
    trainer = make_trainer(GRAO(), monitor=Monitor(kl_every=0, gradient_shares_every=2), gradient_accumulation_steps=2)
    batches = train_and_collect(trainer)
    lines = trainer.state.log_history

    model = make_model()
    install_scoring(model)
    denominator = sum(GRAO().denominator(batch) for batch in batches[:2])
    gradients = {}
    for name in ("exploration", "imitation", "regulariser"):
        model.zero_grad()
        for batch in batches[:2]:
            GRAO().loss(batch, group_logprobs(model, batch), denominator, Progress(0, 1)).terms[name].backward()
        gradients[name] = torch.cat([p.grad.flatten() for p in model.parameters()])  # type: ignore[union-attr]
    norms = {name: float(g.norm()) for name, g in gradients.items()}
    whole = sum(gradients.values())
    for name, gradient in gradients.items():
        assert lines[0][f"grad/share/{name}"] == pytest.approx(norms[name] / sum(norms.values()), abs=1e-5)
        cosine = float(gradient @ whole / (gradient.norm() * whole.norm()))
        assert lines[0][f"grad/cosine/{name}"] == pytest.approx(cosine, abs=1e-5)
    for step, line in enumerate(lines[:4]):
        shares = [value for name, value in line.items() if name.startswith("grad/share/")]
        assert len(shares) == (3 if step % 2 == 0 else 0)
        if shares:
            assert sum(shares) == pytest.approx(1.0)

    unwatched = make_trainer(GRAO(), gradient_accumulation_steps=2)
    unwatched.train()
    left, right = weights(trainer.model), weights(unwatched.model)
    assert all(torch.equal(left[name], right[name]) for name in left)


# --- the frozen policy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "adapters", [pytest.param(False, id="weights"), pytest.param(True, id="lora", marks=pytest.mark.slow)]
)
def test_grpo_with_kl_is_anchored_where_it_started(
    adapters: bool,
    make_trainer: Make,
    make_model: Callable[..., PreTrainedModel],
    train_and_collect: Callable[[GroupTrainer], list[GroupBatch]],
) -> None:
    """Oracle: the start's own log-probs, and k3 token by token; 0 at the first step, more later."""
    model: Any = make_model()
    install_scoring(model)
    start = copy.deepcopy(model)
    if adapters:
        torch.manual_seed(0)
        model = add_adapters(model, LoRA(r=4, alpha=8))
    trainer = make_trainer(GRPO(kl=0.05), model, prepared=True, max_steps=5, learning_rate=3e-2)
    batches = train_and_collect(trainer)
    lines = trainer.state.log_history[:5]
    assert lines[0]["kl"] == 0.0
    assert all(line["kl"] > 1e-4 for line in lines[2:])
    for batch in batches:
        assert batch.frozen_logprobs_PMT is not None
        with torch.no_grad():
            expected = group_logprobs(start, batch).logprobs_PMT
        torch.testing.assert_close(batch.frozen_logprobs_PMT, expected, atol=1e-5, rtol=0)

    # The last step's KL needs the policy before the last update: train one step less and score its samples.
    shorter = make_trainer(GRPO(kl=0.05), _again(make_model, adapters), prepared=True, max_steps=4, learning_rate=3e-2)
    shorter.train()
    shorter.model.eval()  # type: ignore[union-attr]
    with torch.no_grad():
        own = group_logprobs(shorter.model, batches[4]).logprobs_PMT
    total, tokens, penalty = 0.0, 0, 0.0
    P, G, T = batches[4].samples(batches[4].ids_PMT).shape
    for p in range(P):
        for g in range(G):
            of_sample = []
            for t in range(T):
                if batches[4].mask_PMT[p, g, t]:
                    difference = float(batches[4].frozen_logprobs_PMT[p, g, t] - own[p, g, t])  # type: ignore[index]
                    of_sample.append(math.exp(difference) - difference - 1)
            total, tokens = total + sum(of_sample), tokens + len(of_sample)
            penalty += 0.05 * sum(of_sample) / len(of_sample) / (P * G)
    assert lines[4]["kl"] == pytest.approx(total / tokens, rel=1e-4)
    assert lines[4]["loss/kl"] == pytest.approx(penalty, rel=1e-4)


def _again(make_model: Callable[..., PreTrainedModel], adapters: bool) -> Any:
    model: Any = make_model()
    install_scoring(model)
    if adapters:
        torch.manual_seed(0)
        model = add_adapters(model, LoRA(r=4, alpha=8))
    return model


@pytest.mark.slow
def test_the_kl_is_watched_now_and_then_without_a_penalty(make_trainer: Make) -> None:
    """Oracle: `kl_every` counted by hand; and watching changes no weight."""
    watched = make_trainer(GRAO(), monitor=Monitor(kl_every=2), max_steps=4)
    watched.train()
    assert ["kl" in line for line in watched.state.log_history[:4]] == [True, False, True, False]
    blind = make_trainer(GRAO(), max_steps=4)
    blind.train()
    assert blind.frozen_policy is None
    left, right = weights(watched.model), weights(blind.model)
    assert all(torch.equal(left[name], right[name]) for name in left)


# --- adapters and experts --------------------------------------------------------------------------------------------


def test_lora_trains_adapters_only(make_trainer: Make, make_model: Callable[..., PreTrainedModel]) -> None:
    """Oracle: the base's weights bit by bit; B starts at 0, so any B that is not 0 was trained."""
    model = _again(make_model, adapters=True)
    before = weights(model)
    trainer = make_trainer(GRAO(), model, prepared=True)
    trainer.train()
    after = weights(trainer.model)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {n for n in before if "lora_" in n}
    for name, value in after.items():
        if "lora_" not in name:
            assert torch.equal(value, before[name]), name
    assert all(float(value.abs().max()) > 0 for name, value in after.items() if "lora_B" in name)


def test_the_router_loss_of_experts_is_trained_on(
    make_trainer: Make,
    make_model: Callable[..., PreTrainedModel],
    train_and_collect: Callable[[GroupTrainer], list[GroupBatch]],
) -> None:
    """Oracle: coefficient × transformers' own loss of the tokens that ran, whose gradient reaches the routers.

    Those are the prompt, once, and the members without their last tokens. The reward is constant, so no term of GRAO
    has a gradient: what moves is moved by the router loss alone.
    """
    from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

    from grao.rewards import RewardSet

    def constant(completions: list[str], **columns: Any) -> list[float]:
        return [1.0 for _ in completions]

    def run(**changes: Any) -> tuple[GroupTrainer, list[GroupBatch]]:
        trainer = make_trainer(
            GRAO(),
            make_model("qwen3_moe", **changes),
            rewards=RewardSet([constant]),
            max_steps=1,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=0.0,
            per_device_train_batch_size=1,
        )
        return trainer, train_and_collect(trainer)

    trainer, [batch] = run()
    line = trainer.state.log_history[0]
    model = make_model("qwen3_moe").train()
    model.config.output_router_logits = True
    prompt = batch.prompt_ids_PS[0][batch.prompt_mask_PS[0]]
    longest = len(prompt) + int(batch.lengths_PM.max())
    ids, ran = torch.zeros(3, longest, dtype=torch.long), torch.zeros(3, longest, dtype=torch.long)
    for m in range(3):
        row = torch.cat([prompt, batch.ids_PMT[0, m][batch.mask_PMT[0, m]]])
        ids[m, : len(row)] = row
        ran[m, (0 if m == 0 else len(prompt)) : len(row) - 1] = 1
    routed = model(input_ids=ids, output_router_logits=True).router_logits
    aux_loss = load_balancing_loss_func(routed, model.config.num_experts, model.config.num_experts_per_tok, ran)
    assert line["aux_loss"] == pytest.approx(float(aux_loss.detach()), rel=1e-5)
    assert line["loss"] == pytest.approx(0.5 * float(aux_loss.detach()), rel=1e-5)
    (0.5 * aux_loss).backward()
    moved = weights(trainer.model)
    for name, parameter in model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(moved[name], parameter.detach() - 0.1 * gradient, atol=1e-6, rtol=1e-5, msg=name)
    assert any(
        ".gate." in n and float(p.grad.abs().max()) > 0 for n, p in model.named_parameters() if p.grad is not None
    )

    still, _ = run(router_aux_loss_coef=0.0)
    assert "aux_loss" not in still.state.log_history[0]
    assert still.state.log_history[0]["loss"] == 0.0


# --- masked and unscored ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["mask", "unscored"])
def test_samples_cut_off_push_nothing(
    choice: str,
    fixed_engine: type,
    make_trainer: Make,
    make_model: Callable[..., PreTrainedModel],
    encoded: list[EncodedExample],
) -> None:
    """Oracle: two answers that were both cut off: with GRPO there is nothing to learn, and no weight moves."""
    cut = [Member((3, 4), "a b", "length", (0.0, 0.0)), Member((3, 7), "a e", "length", (0.0, 0.0))]
    for truncated, moves in ((choice, False), ("keep", True)):
        trainer = make_trainer(
            GRPO(),
            rows=encoded[:1],
            engine=fixed_engine({encoded[0].prompt_ids: cut}),
            rollout=Rollout(num_generations=2, truncated=truncated),  # type: ignore[arg-type]
            max_steps=1,
            weight_decay=0.0,
        )
        trainer.train()
        before, after = weights(make_model()), weights(trainer.model)
        assert all(torch.equal(before[name], after[name]) for name in before) is not moves
        line = trainer.state.log_history[0]
        assert line["completions/clipped_ratio"] == 1.0
        assert line["groups/unscored"] == (1.0 if truncated == "unscored" else 0.0)
        assert ("reward" in line) == (truncated != "unscored")


def test_unscored_answers_are_left_out_and_counted(
    fixed_engine: type,
    make_trainer: Make,
    encoded: list[EncodedExample],
    train_and_collect: Callable[[GroupTrainer], list[GroupBatch]],
) -> None:
    """Oracle: None for one of three samples: mean over the other two, and a third of the samples counted."""
    from grao.rewards import RewardSet

    def refuses(completions: list[str], **columns: Any) -> list[float | None]:
        return [None if c == "c" else float(c == "a") for c in completions]

    answers = [Member((i,), text, "stop", (0.0,)) for i, text in ((3, "a"), (4, "b"), (5, "c"))]
    trainer = make_trainer(
        GRPO(),
        rows=encoded[:1],
        rewards=RewardSet([refuses]),
        engine=fixed_engine({encoded[0].prompt_ids: answers}),
        rollout=Rollout(num_generations=3),
        max_steps=1,
    )
    [batch] = train_and_collect(trainer)
    line = trainer.state.log_history[0]
    assert batch.advantages_PM is not None
    assert batch.advantages_PM[0, :3].tolist() == pytest.approx([1.0, -1.0, 0.0])
    assert (line["reward"], line["groups/unscored"]) == (0.5, pytest.approx(1 / 3))
    assert line["rewards/refuses/unscored"] == 1.0


# --- not finite ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Breaks(Objective):
    """Learns the reference until it meets a row; then the loss is NaN, or finite with an infinite gradient."""

    needs = Needs(reference=True)
    row: int = -1
    gradient_only: bool = False

    def loss(
        self, batch: GroupBatch, output: PolicyOutput, denominator: torch.Tensor, progress: Progress
    ) -> LossOutput:
        J = mean_logprob(output.logprobs_PMT, batch.mask_PMT).sum()
        if self.row not in batch.rows_P:
            return LossOutput({"imitation": -J})
        wrong = (J - J.detach()).clamp(min=0).sqrt() if self.gradient_only else J * math.nan
        return LossOutput({"imitation": -J, "wrong": wrong})


class Seals(TrainerCallback):
    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seal_checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}")


@pytest.mark.parametrize("gradient_only", [False, True], ids=["loss", "gradient"])
@pytest.mark.parametrize(
    "saved", [pytest.param(False, id="no-checkpoint", marks=pytest.mark.slow), pytest.param(True, id="checkpoint")]
)
def test_what_is_not_finite_stops_the_run_before_the_update(
    gradient_only: bool,
    saved: bool,
    make_trainer: Make,
    tmp_path: Path,
    train_and_collect: Callable[[GroupTrainer], list[GroupBatch]],
) -> None:
    """Oracle: the sentence; the weights are those of a run that ended two steps in."""
    whole = train_and_collect(make_trainer(Breaks(), max_steps=3))
    third = whole[2].rows_P.tolist()
    before = make_trainer(Breaks(), max_steps=2)
    before.train()

    trainer = make_trainer(
        Breaks(third[1], gradient_only), max_steps=6, save_strategy="steps" if saved else "no", save_steps=2
    )
    trainer.add_callback(Seals())
    with pytest.raises(NotFiniteError) as error:
        trainer.train()
    said = str(error.value)
    assert said.startswith(f"Step 3: {'the gradient' if gradient_only else 'the loss is nan (imitation '}")
    assert f"Rows of this batch: {third}. No update was made; " in said
    good = (
        f"the last good checkpoint is {tmp_path / 'run' / 'checkpoint-2'}. " if saved else "there is no checkpoint yet"
    )
    assert good in said
    left, right = weights(trainer.model), weights(before.model)
    assert all(torch.equal(left[name], right[name]) for name in left)


# --- evaluation ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_evaluation_does_not_touch_training(
    make_trainer: Make, make_model: Callable[..., PreTrainedModel], encoded: list[EncodedExample], tmp_path: Path
) -> None:
    """Oracle: the same run without evaluation, weight by weight, with dropout on; the records of the one with."""
    runs = []
    for evaluates in (False, True):
        given: dict[str, Any] = {}
        record = RunDirectory.create(tmp_path / f"records-{evaluates}", {})
        if evaluates:
            given = {"eval_strategy": "steps", "eval_steps": 2, "eval_on_start": True, "eval_examples": encoded[8:]}
        trainer = make_trainer(GRAO(), make_model(attention_dropout=0.2), record=record, rows=encoded[:8], **given)
        torch.manual_seed(3)
        trainer.train()
        runs.append((trainer, record))
    (plain, _), (evaluated, record) = runs
    left, right = weights(plain.model), weights(evaluated.model)
    assert all(torch.equal(left[name], right[name]) for name in left)
    lines = [line for line in evaluated.state.log_history if "eval_reward" in line]
    assert [line["step"] for line in lines] == [0, 2, 4]
    for line in lines:
        assert line["eval_reward_low"] <= line["eval_reward"] <= line["eval_reward_high"]
        assert line["eval_win_rate_low"] <= line["eval_win_rate"] <= line["eval_win_rate_high"]
        assert line["eval_n"] == 4
    names = sorted(path.name for path in record.folder(held_out=True).iterdir())
    assert names == [f"completions_{step:05d}.parquet" for step in (0, 2, 4)]


def test_an_evaluation_by_itself_closes_the_engine(
    fixed_engine: type, make_trainer: Make, encoded: list[EncodedExample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the calls by hand: an evaluation inside of training leaves the engine open, one outside closes it."""
    calls: list[str] = []
    for name in ("open", "close"):
        monkeypatch.setattr(fixed_engine, name, lambda self, name=name: calls.append(name))
    engine = fixed_engine({e.prompt_ids: [Member((3,), "a", "stop", (0.0,))] * 2 for e in encoded})
    trainer = make_trainer(GRPO(), engine=engine, max_steps=1, eval_examples=encoded[:2])
    trainer.evaluate()
    assert calls == ["open", "close"]
    trainer = make_trainer(
        GRPO(), engine=engine, max_steps=1, eval_examples=encoded[:2], eval_strategy="steps", eval_steps=1
    )
    trainer.train()
    assert calls[2:] == ["open", "open", "close"]


def test_evaluation_without_rewards_says_what_is_missing(make_trainer: Make) -> None:
    """Oracle: the sentence."""
    with pytest.raises(ValueError, match="Evaluation needs held-out rows and rewards"):
        make_trainer(SFT()).evaluate()


# --- what is refused -------------------------------------------------------------------------------------------------


def test_what_an_objective_needs_is_asked_for_at_once(make_trainer: Make, encoded: list[EncodedExample]) -> None:
    """Oracle: the sentences."""
    with pytest.raises(ValueError, match="GRPO scores samples, but no rewards are given"):
        make_trainer(GRPO(), rewards=None)
    with pytest.raises(ValueError, match="num_generations is 1, but GRAO compares the samples of a group"):
        make_trainer(GRAO(), rollout=Rollout(num_generations=1))
    from dataclasses import replace

    holed = [*encoded[:4], replace(encoded[4], reference_ids=None)]
    with pytest.raises(ValueError, match="SFT needs a reference answer in every row, but row 4 has none"):
        make_trainer(SFT(), rows=holed)


def test_the_engine_is_told_of_new_weights_before_every_collection(
    fixed_engine: type,
    make_trainer: Make,
    encoded: list[EncodedExample],
    train_and_collect: Callable[[GroupTrainer], list[GroupBatch]],
) -> None:
    """Oracle: the versions counted: one a step; `draw_seed` of the run's seed and the step for each row and member."""
    answers = {e.prompt_ids: [Member((3,), "a", "stop", (0.0,)), Member((4,), "b", "stop", (0.0,))] for e in encoded}
    engine = fixed_engine(answers)
    trainer = make_trainer(GRPO(), engine=engine, max_steps=3, seed=11)
    steps = train_and_collect(trainer)
    assert engine.versions == ["0", "1", "2"]
    expected = [
        tuple(draw_seed(11, step, row, j) for j in range(2))
        for step in range(3)
        for row in steps[step].rows_P.tolist()
    ]
    assert sorted(engine.seeds) == sorted(expected)


def test_samples_are_drawn_from_the_newest_weights(make_trainer: Make, tokenizer: PreTrainedTokenizerFast) -> None:
    """Oracle: the engine's own log-probs equal those of the loss's forward at every step: no weights a step old."""
    trainer = make_trainer(GRPO(), max_steps=3, learning_rate=5e-2)
    gaps = []
    plain = trainer.compute_loss

    def compute_loss(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        batch = inputs["groups"]
        with torch.no_grad():
            own = batch.samples(group_logprobs(model, batch).logprobs_PMT)
        drawn = batch.samples(batch.sampling_logprobs_PMT)
        gaps.append(float((own - drawn).masked_fill(~batch.samples(batch.mask_PMT), 0).abs().max()))
        return plain(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute_loss  # type: ignore[method-assign]
    assert isinstance(trainer.step.engine, LocalEngine)
    trainer.train()
    assert len(gaps) == 3
    assert max(gaps) < 1e-5


@pytest.mark.parametrize(("dtype", "low", "high"), [("model", 0, 1e-6), ("bfloat16", 1e-4, 1e-1)])
def test_rounded_weights_are_seen_in_the_log(make_trainer: Make, dtype: str, low: float, high: float) -> None:
    """Oracle: bfloat16 keeps 8 bits, so log-probs of a few nats differ by about 1e-3 to 1e-2; float32's are equal.

    The policy itself is not rounded: after a step without a learning rate it is bit by bit what it was.
    """
    trainer = make_trainer(
        GRPO(), max_steps=1, learning_rate=0.0, rollout=Rollout(max_new_tokens=6), engine={"dtype": dtype}
    )
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.train()
    assert low <= trainer.state.log_history[0]["sampling/logprob_difference"] < high
    assert all(torch.equal(weight, before[name]) for name, weight in trainer.model.state_dict().items())


def test_logprobs_of_another_temperature_are_not_compared(make_trainer: Make) -> None:
    """Oracle: the definition; samples at temperature 0.5, a loss at 1, and a loss at the samples' temperature."""
    for at, compared in (("one", False), ("sampling", True)):
        rollout = Rollout(max_new_tokens=6, temperature=0.5, logprob_temperature=at)
        trainer = make_trainer(GRPO(), max_steps=1, rollout=rollout)
        trainer.train()
        assert ("sampling/logprob_difference" in trainer.state.log_history[0]) is compared
