"""One optimiser step, top to bottom: how a prompt becomes a gradient.

    rows → samples → rewards → advantages → micro-batches → log-probs → loss → backward

`GroupTrainer` hangs these functions into transformers' hooks: `prepare_step` runs once per optimiser step with the
current weights, `micro_batch_loss` once per micro-batch, and transformers calls backward on what it returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from grao.data import EncodedExample
from grao.groups import Group, GroupBatch, collate
from grao.policy import group_logprobs
from grao.rewards import RewardError
from grao.rollout import EngineError, draw_seed
from grao.training.collect import collect
from grao.training.completion_rows import completion_rows
from grao.training.failures import not_finite
from grao.training.gradient_shares import GradientShares
from grao.training.group_metrics import add_sample_metrics, group_metrics, likelihood_metrics, scoring_metrics
from grao.training.micro_batches import balance, group_tokens
from grao.training.rollout_constants import add_constants
from grao.training.rollout_reuse import RolloutBatch
from grao.training.step_state import StepState


def prepare_step(state: StepState, loader: Iterator, num_batches: int) -> tuple[list[GroupBatch], Tensor] | None:
    """Do everything that precedes the gradient: roll out, score, cut.

    Args:
        state: What the step reads and changes.
        loader: Yields batches of ``{"examples": [...]}``.
        num_batches: Batches per optimiser step, hence micro-batches.

    Returns:
        the micro-batches and the denominator of the whole step; None when the data has run out.
    """
    served = state.stages.updates_served(state.global_step)
    if served == 0:
        state.rollout_batch = roll_out(state, loader, num_batches)
    elif state.rollout_batch is None:
        raise ValueError(
            "Cannot resume mid-rollout: rollouts are not checkpointed. Resume from a checkpoint at a rollout boundary."
        )
    if state.rollout_batch is None:
        return None
    groups, batch = state.rollout_batch.part(served)
    to_score = mask_unused(state, batch)
    measure(state, groups, batch, to_score)

    cut = balance(group_tokens(to_score), state.rollout_batch.micro_batches // state.rollout_batch.mini_batches)
    micro_batches = [batch.select(places).to(state.device) for places in cut]
    state.micro_batches_left = len(micro_batches)
    state.groups_in_step = int(state.sum_over_ranks(torch.tensor(len(batch))))
    state.shares = GradientShares(state.trained_parameters) if state.shares_are_due else None
    return micro_batches, state.sum_over_ranks(state.objective.denominator(batch))


def roll_out(state: StepState, loader: Iterator, num_batches: int) -> RolloutBatch | None:
    """Prompts → samples → rewards → constant log-probs → advantages; None when the data has run out."""
    updates = state.stages.updates_per_rollout(state.stage)
    mini_batches = state.rollout.num_mini_batches if updates > 1 else 1
    pulled = list(islice(loader, num_batches * updates))
    pulled = pulled[: len(pulled) * mini_batches // updates]  # the rest holds the places of later passes
    if not pulled:
        return None
    groups = make_groups(state, [example for batch in pulled for example in batch["examples"]])
    batch = make_batch(state, groups)
    batch = add_constants(state, batch, balance(group_tokens(batch), len(pulled)))
    batch = state.objective.with_advantages(batch)
    if state.record is not None and state.is_main_process and batch.num_samples:
        state.record.write_completions(state.global_step + 1, completion_rows(groups, batch))
    return RolloutBatch(groups, batch, len(pulled), mini_batches, draw_seed(state.seed, state.global_step, 0, 0))


def make_groups(state: StepState, examples: Sequence[EncodedExample]) -> list[Group]:
    """Turn rows into groups; sample and score them where the objective needs samples."""
    needs = state.objective.needs
    if not needs.rejected:
        examples = [replace(example, rejected_ids=None) for example in examples]
    if not needs.samples:
        return [example.as_group() for example in examples]
    assert state.rewards is not None, "check_objective requires rewards"
    failed = None
    try:
        state.engine.sync(state.model, version=str(state.global_step))
        with state.autocast():
            groups, report = collect(
                examples,
                step=state.global_step,
                seed=state.seed,
                engine=state.engine,
                rewards=state.rewards,
                rollout=state.rollout,
            )
    except (RewardError, EngineError) as error:
        failed = error
    state.last_step.stop_together(failed, state.global_step)
    for name, value in report.metrics().items():
        state.meter.add_value(name, value)
    return groups


def make_batch(state: StepState, groups: Sequence[Group]) -> GroupBatch:
    """Collate groups into tensors, masked as rollout and objective demand."""
    batch = collate(
        groups,
        pad_token_id=state.pad_token_id,
        mask_truncated=state.rollout.truncated == "mask",
        mask_reference=not state.objective.needs.reference,
        sampling_is_exact=state.engine.exact,
    )
    return batch if state.rollout.is_comparable else batch.with_(sampling_logprobs_PMT=None)


def mask_unused(state: StepState, batch: GroupBatch) -> GroupBatch:
    """Mask every member whose log-probs neither the loss nor the monitor reads, for scoring only.

    The loss takes lengths and denominators from the whole batch. The load-balancing loss of a mixture of experts and
    the KL are about all tokens: where they are measured, everything is scored.
    """
    if batch.frozen_logprobs_PMT is not None or state.router_coefficient > 0:
        return batch
    return batch.with_(mask_PMT=batch.mask_PMT & state.objective.contributing(batch, state.progress)[..., None])


def micro_batch_loss(state: StepState, model: Any, batch: GroupBatch, denominator: Tensor) -> Tensor:
    """Return the micro-batch's share of the step's loss: over all micro-batches and ranks they add up to it.

    Args:
        state: What the step reads and changes.
        model: The policy, in the wrapper whose `forward` training goes through.
        batch: One micro-batch of `prepare_step`.
        denominator: Of the whole step.

    Raises:
        NotFiniteError: The loss is NaN or infinite.
    """
    needs, to_score = state.objective.needs, mask_unused(state, batch)
    output = group_logprobs(model, to_score, temperature=state.rollout.loss_temperature, entropy_grad=needs.entropy)
    if needs.critic:
        assert state.critic is not None, "needs.critic makes one"
        output = replace(output, values_PMT=state.critic.values(model, batch))
    result = state.objective.loss(batch, output, denominator, state.progress)
    loss = result.loss
    if output.router_loss is not None:
        loss = loss + state.router_coefficient * output.router_loss * len(batch) / state.groups_in_step
        state.meter.add_value("aux_loss", output.router_loss.item())
    if not bool(torch.isfinite(loss)):
        terms = ", ".join(f"{name} {term.item():g}" for name, term in result.terms.items())
        found = f"the loss is {loss.item():g} ({terms})"
        raise not_finite(found, state.global_step + 1, batch.rows_P.tolist(), state.output_dir)

    # Terms add up over a step's micro-batches and ranks, and are averaged over steps: one part counts the step.
    steps = 1.0 if state.micro_batches_left == 1 and state.is_main_process else 0.0
    for name, term in result.terms.items():
        state.meter.add_share(f"loss/{name}", term.item(), steps)
    state.meter.add(result.metrics)
    with torch.no_grad():
        state.meter.add(likelihood_metrics(to_score, output.logprobs_PMT.detach(), output.entropy_PMT.detach()))
    if state.shares is not None:
        state.shares.add(result.terms)
    state.micro_batches_left -= 1
    return loss


def measure(state: StepState, groups: list[Group], batch: GroupBatch, to_score: GroupBatch) -> None:
    """Put what the groups say into the meter, and count their tokens."""
    state.last_groups = groups
    state.meter.add({**group_metrics(batch), **scoring_metrics(batch, to_score)})
    add_sample_metrics(state.meter, groups, batch)
    state.count_tokens(batch)
