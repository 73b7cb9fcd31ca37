"""What happens where a stage starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from grao.data import EncodedExample
from grao.groups import GroupBatch
from grao.training.rollout_constants import frozen_logprobs
from grao.training.step import make_batch, make_groups
from grao.training.step_state import StepState


def enter_stage(
    state: StepState,
    optimizer: Any,
    rows: Sequence[EncodedExample],
    progress: Callable[[str, int, int], None],
) -> None:
    """Prepare the stage of the next step, once when it starts and once when a run resumes in its middle.

    A stage that follows another starts with a fresh optimiser, a fresh critic and, as frozen policy, the policy as it
    is then.

    Args:
        state: The run's.
        optimizer: The optimiser, under accelerate's wrapper or not.
        rows: All training rows.
        progress: Called with (what, done, total).
    """
    place = state.stages.index(state.global_step)
    if place == state.entered_stage:
        return
    stage, begins = state.stage, state.global_step == state.stages.starts[place]
    if place > 0 or state.entered_stage is not None:  # a second `train()` enters the first stage from the last one
        if begins:
            getattr(optimizer, "optimizer", optimizer).state.clear()  # the moments of each weight
        if begins and state.critic is not None and stage.objective.needs.critic:
            state.critic.critic.restart(state.model)
        state.anchor.enter(place, begins, state.args)

    def to_batch(examples: Sequence[EncodedExample]) -> GroupBatch:
        return make_batch(state, make_groups(state, examples))

    def logprobs(batch: GroupBatch) -> Any:
        return frozen_logprobs(state, batch.to(state.device))

    state.anchor.tabulate(stage, rows, to_batch, logprobs, state.args, progress)
    state.entered_stage = place
