"""How long a run is and what does not go together, before anything is trained or written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from grao.objectives import DPO, GRAO, GRPO, PPO, SFT
from grao.training import Rollout, Stage
from grao.training.run_schedule import RunSchedule, make_schedule, prompts_per_step

TWICE = Rollout(max_new_tokens=4, num_generations=2, num_iterations=2)
FOUR = Rollout(max_new_tokens=4, num_generations=2, num_iterations=2, num_mini_batches=2)
ONCE = Rollout(max_new_tokens=4, num_generations=2)


@pytest.fixture
def arguments(tmp_path: Path) -> Callable[..., TrainingArguments]:
    """Two prompts a step and no checkpoints, unless told otherwise."""

    def make(**given: Any) -> TrainingArguments:
        settings = {"per_device_train_batch_size": 2, "save_strategy": "no", "use_cpu": True, "report_to": "none"}
        return TrainingArguments(str(tmp_path / "run"), **(settings | given))

    return make


def steps_of_a_loop(rows: int, batch: int, accumulate: int, epochs: float, drop_last: bool) -> int:
    """Optimiser steps, by walking through the batches of an epoch and making a step when enough have come."""
    sizes = [min(batch, rows - start) for start in range(0, rows, batch)]
    batches = [size for size in sizes if size == batch or not drop_last]
    steps, waiting = 0, 0
    for place, _ in enumerate(batches):
        waiting += 1
        if waiting == accumulate or place == len(batches) - 1:
            steps, waiting = steps + 1, 0
    return math.ceil(epochs * steps)


@pytest.mark.parametrize("rows", [4, 10, 11, 12])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize(("epochs", "drop_last"), [(1.0, False), (2.0, True), (1.5, False), (0.1, False)])
def test_epochs_as_steps(
    rows: int, accumulate: int, epochs: float, drop_last: bool, arguments: Callable[..., TrainingArguments]
) -> None:
    """Oracle: a loop over the batches of an epoch; `max_steps` stays with transformers, which counts the same."""
    args = arguments(num_train_epochs=epochs, gradient_accumulation_steps=accumulate, dataloader_drop_last=drop_last)
    plan = make_schedule(GRAO(), ONCE, args, rows)
    assert plan.stages.steps == steps_of_a_loop(rows, 2, accumulate, epochs, drop_last)
    assert (plan.sampler, args.max_steps) == (None, -1)


@pytest.mark.parametrize(
    ("rollout", "epochs", "steps"),
    [
        (TWICE, 1.0, 10),  # 5 collections of 2 in 11 rows, 2 updates each
        (TWICE, 2.0, 20),
        (TWICE, 0.5, 6),  # 2.5 collections are 3
        (FOUR, 1.0, 8),  # 2 collections of 4, 4 updates each
        (FOUR, 0.1, 4),  # at least one collection
    ],
)
def test_epochs_of_reused_collections(
    rollout: Rollout, epochs: float, steps: int, arguments: Callable[..., TrainingArguments]
) -> None:
    """Oracle: by hand: whole collections in a pass over 11 rows, times the updates of each."""
    args = arguments(num_train_epochs=epochs)
    plan = make_schedule(GRPO(), rollout, args, 11)
    assert (plan.stages.steps, args.max_steps) == (steps, steps)
    assert plan.sampler is not None
    assert len(plan.sampler) == 2 * steps


def test_prompts_of_a_step(arguments: Callable[..., TrainingArguments]) -> None:
    """Oracle: the product."""
    assert prompts_per_step(arguments(per_device_train_batch_size=3, gradient_accumulation_steps=4)) == 12


def test_stages_decide_the_length_of_the_run(arguments: Callable[..., TrainingArguments]) -> None:
    """Oracle: the sum; asked twice, the plan is the same."""
    args = arguments()
    stages = [Stage(SFT(), 3), Stage(GRPO(), 4)]
    assert make_schedule(stages, TWICE, args, 12).stages.steps == args.max_steps == 7
    assert make_schedule(stages, TWICE, args, 12).stages.steps == args.max_steps == 7


@pytest.mark.parametrize(
    ("given", "rollout", "saves"),
    [
        pytest.param({"save_steps": 4}, FOUR, True, id="a-multiple"),
        pytest.param({"save_steps": 2}, FOUR, False, id="half-a-collection"),
        pytest.param({"save_steps": 3}, TWICE, False, id="not-a-multiple"),
        pytest.param({"save_steps": 9}, TWICE, True, id="only-at-the-end"),
        pytest.param({"save_steps": 0}, TWICE, True, id="never"),
        pytest.param({"save_steps": 0.25}, TWICE, True, id="a-quarter-of-8-steps"),
        pytest.param({"save_steps": 0.1}, TWICE, False, id="a-tenth-of-8-steps"),
        pytest.param({"save_steps": 1}, ONCE, True, id="nothing-is-reused"),
        pytest.param({"save_strategy": "no", "save_steps": 1}, TWICE, True, id="none-at-all"),
        pytest.param({"save_strategy": "epoch", "save_steps": 1}, TWICE, True, id="epochs"),
        pytest.param({"save_strategy": "best", "eval_steps": 3}, TWICE, False, id="the-best"),
        pytest.param({"save_strategy": "best", "eval_steps": 4}, TWICE, True, id="the-best-of-whole-collections"),
    ],
)
def test_checkpoints_fall_between_collections(
    given: dict[str, Any], rollout: Rollout, saves: bool, arguments: Callable[..., TrainingArguments]
) -> None:
    """Oracle: by hand: 8 steps, of which each collection serves 1, 2 or 4; what is refused is said with a remedy."""
    best = {"eval_strategy": "steps", "metric_for_best_model": "reward"} if "eval_steps" in given else {}
    args = arguments(max_steps=8, **{"save_strategy": "steps", **given, **best})
    if saves:
        assert make_schedule(GRPO(), rollout, args, 12).stages.steps == 8
        return
    every = {0.1: 1}.get(given.get("save_steps", 3), given.get("save_steps", 3))
    key = "trainer.save_steps" if "save_steps" in given else "evaluation.every"
    message = (
        f"{key} is {every}, which puts a checkpoint at "
        f"step {every}, in the middle of a rollout. Give a multiple of {rollout.updates} "
        "(num_iterations × num_mini_batches)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_schedule(GRPO(), rollout, args, 12)


def test_checkpoints_of_a_chain_are_counted_from_its_stages(arguments: Callable[..., TrainingArguments]) -> None:
    """Oracle: by hand: with 3 steps of SFT first, collections start at steps 3, 5, 7: so never at 4 or 6."""
    stages = [Stage(SFT(), 3), Stage(GRPO(), 6)]
    with pytest.raises(ValueError, match=r"save_steps is 4, which puts a checkpoint at step 4"):
        make_schedule(stages, TWICE, arguments(save_strategy="steps", save_steps=4), 12)
    with pytest.raises(ValueError, match=r"save_steps is 3, which puts a checkpoint at step 6"):
        make_schedule(stages, TWICE, arguments(save_strategy="steps", save_steps=3), 12)
    assert make_schedule(stages, TWICE, arguments(save_strategy="steps", save_steps=5), 12).stages.steps == 9


@pytest.mark.parametrize(
    ("objective", "rollout", "given", "rows", "message"),
    [
        pytest.param(
            [Stage(SFT(), 2), Stage(GRPO(), 4)],
            ONCE,
            {"max_steps": 7},
            12,
            "max_steps is 7, but the stages have 6 steps. Leave it out.",
            id="max-steps",
        ),
        pytest.param(
            SFT(),
            TWICE,
            {"max_steps": 4},
            12,
            "num_iterations and num_mini_batches repeat updates on samples, but no stage samples. Leave "
            "them at 1 and set trainer.num_train_epochs.",
            id="nothing-drawn",
        ),
        pytest.param(
            [Stage(SFT(), 2), Stage(DPO(), 2)],
            TWICE,
            {},
            12,
            "num_iterations and num_mini_batches repeat updates on samples, but no stage samples. Leave "
            "them at 1 and set trainer.num_train_epochs.",
            id="nothing-drawn-in-any-stage",
        ),
        pytest.param(
            PPO(),
            FOUR,
            {"max_steps": 6},
            12,
            "The stage PPO has 6 steps, but each rollout serves 4 (num_iterations × "
            "num_mini_batches). Give a multiple of 4.",
            id="steps",
        ),
        pytest.param(
            GRAO(),
            FOUR,
            {"max_steps": 4, "gradient_accumulation_steps": 2},
            7,
            "A rollout takes 8 prompts (prompts per step × num_mini_batches), but there are 7 rows. Lower "
            "trainer.per_device_train_batch_size, trainer.gradient_accumulation_steps or rollout.num_mini_batches.",
            id="rows",
        ),
        pytest.param(
            [Stage(SFT(), 2), Stage(GRPO(), 2)],
            ONCE,
            {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 1},
            12,
            "trainer.lr_scheduler_type reduce_lr_on_plateau depends on more than the step, which stages do not "
            "support. Choose constant, constant_with_warmup, linear or cosine.",
            id="schedule",
        ),
        pytest.param(
            [Stage(SFT(), 2), Stage(GRPO(), 2)],
            ONCE,
            {"lr_scheduler_type": "cosine_with_min_lr"},
            12,
            "One of min_lr or min_lr_rate should be set through the `lr_scheduler_kwargs`",
            id="settings-of-the-schedule",
        ),
        pytest.param(
            [Stage(SFT(), 2), Stage(GRPO(), 2, 1e-3)],
            ONCE,
            {"learning_rate": 0.0},
            12,
            "trainer.learning_rate is 0, but the stage GRPO scales it. Set trainer.learning_rate above 0, and "
            "learning_rate: 0 in stages that must not train.",
            id="nothing-to-multiply",
        ),
        pytest.param(
            GRPO(),
            TWICE,
            {"max_steps": 4, "train_sampling_strategy": "sequential"},
            12,
            "trainer.train_sampling_strategy is 'sequential', but rollouts that serve several updates need random. "
            "Set it to random, or num_iterations and num_mini_batches to 1.",
            id="order",
        ),
    ],
)
def test_what_does_not_go_together(
    objective: Any,
    rollout: Rollout,
    given: dict[str, Any],
    rows: int,
    message: str,
    arguments: Callable[..., TrainingArguments],
) -> None:
    """Oracle: the sentence."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_schedule(objective, rollout, arguments(**given), rows)


def test_a_stage_that_stands_still_has_a_plan(arguments: Callable[..., TrainingArguments]) -> None:
    """Oracle: rates by hand: 0 for a stage, and a whole run without learning, have a schedule like any other."""
    plan = make_schedule([Stage(SFT(), 2, 0.0), Stage(GRPO(), 2)], ONCE, arguments(), 12)
    assert isinstance(plan, RunSchedule)
    assert make_schedule([Stage(SFT(), 2), Stage(GRPO(), 2)], ONCE, arguments(learning_rate=0.0), 12).stages.steps == 4
