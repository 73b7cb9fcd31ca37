"""A whole optimiser step of `GroupTrainer` with GRPO against TRL's `GRPOTrainer`, both in float32 on the CPU.

    python benchmarks/training_step.py --threads 2 --repeats 5

Both sides load the same model from the same directory, read the same prompts in the same order, draw G = 8 completions
a prompt at temperature 1, score them by the same function, and make one update with the same settings (`SETTINGS`,
`KL` 0, σ of a sample, the mean over sequences). Each side has a process of its own; they take turns, step by step, and
the first step is not counted. The workloads:

- `even`: prompts and completions all of full length. Neither side can end a completion.
- `uneven`, `gsm8k`: real prompts, of HH-RLHF and of GSM8K, and completions that end. Ours end where the model ends
  them (see workload.py). Drawn anew, the other side's would differ in number by a tenth from step to step, and the
  ratio with them: so TRL's are made to end after as many tokens as ours, prompt by prompt and completion by
  completion. That the counts of both sides are equal is checked at every step, in every workload.

Parts: *rollout* is `Engine.sample`, and `_generate_single_turn`; *glue* is everything else from prompts to advantages;
then *forward* with the loss, *backward*, *optimiser* with clipping, and the *rest*. *Training* is forward, backward
and optimiser. Peak memory is the process's resident memory at its peak within a step, over that of the loaded model
and trainer before the first one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList, TrainerCallback

from comparison import Measured, Steps, comparison_parser, run_comparison
from generate import EndsAt
from side_by_side import OURS, take_turns
from speed_results import Ratio, Step, paired_ratio, print_table, recorded, spread
from step_meter import REST, StepMeter
from workload import Workload

SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-12,  # as much work as any other; at 1e-6 five steps made the completions half as long again
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "lr_scheduler_type": "constant",
    "optim": "adamw_torch_fused",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
    "gradient_accumulation_steps": 1,
}
"""transformers' arguments of both sides. TRL's defaults would be bf16 and activation checkpointing; both are off."""
KL = 0.0
CLIP = 0.2
ROLLOUT, GLUE, FORWARD, BACKWARD, OPTIMISER = "rollout", "glue", "forward", "backward", "optimiser"
PARTS = (ROLLOUT, GLUE, FORWARD, BACKWARD, OPTIMISER, REST)
TRAINING = (FORWARD, BACKWARD, OPTIMISER)
OVERHEAD = (GLUE, REST)
"""Everything but model arithmetic: tokenising, scoring, records, logging. What a rollout does besides is its own."""
TARGET = 0.05
"""At most this share of our step may be overhead."""
THEIRS = "TRL"


def characters(completions: Sequence[str], **_: Any) -> list[float]:
    """The reward: cheap, and different for each completion, so that every group has an advantage to learn from."""
    return [float(len(text)) for text in completions]


class Turns(TrainerCallback):
    """One turn is one step with its log line; between turns the trainer waits."""

    def __init__(self, trainer: Any, meter: StepMeter) -> None:
        self._trainer, self._meter = trainer, meter
        self.prompt_tokens: list[int] = []
        self.completion_tokens: list[list[int]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        clock, trainer = self._meter.clock, self._trainer
        clock.time(trainer, "compute_loss", FORWARD)
        clock.time(trainer.accelerator, "backward", BACKWARD)
        clock.time(trainer, "_clip_grad_norm", OPTIMISER)
        clock.time(trainer.optimizer, "step", OPTIMISER)
        self._meter.wait()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" not in logs:
            return  # the summary of the whole run
        self._meter.report(self.prompt_tokens, self.completion_tokens)
        if state.global_step < state.max_steps:
            self._meter.wait()


def run_grao(turns: Any, workload: Workload) -> None:
    grao_trainer(StepMeter(turns), workload).train()


def grao_trainer(meter: StepMeter, workload: Workload) -> Any:
    """Ours, ready to train on the workload, with every step under the meter."""
    from grao.data import Encoder, load_examples
    from grao.objectives import GRPO
    from grao.policy import ModelConfig, load_policy
    from grao.rewards import RewardSet, load_reward
    from grao.training import GroupTrainer, Monitor, Rollout
    from grao.training.trainer_arguments import check_trainer, make_arguments

    policy = load_policy(ModelConfig(str(workload.model)))
    rows = [{"prompt": prompt} for step in workload.prompts for prompt in step]
    settings = {
        **SETTINGS,
        "output_dir": str(workload.model.parent / "grao"),
        "max_steps": len(workload.prompts),
        "per_device_train_batch_size": len(workload.prompts[0]),
        "train_sampling_strategy": "sequential",
    }
    del settings["disable_tqdm"]  # ours anyway
    trainer = GroupTrainer(
        policy.model,
        GRPO(kl=KL, clip_low=CLIP, clip_high=CLIP, ddof=1, aggregation="sequence_mean"),
        policy.tokenizer,
        Encoder(policy.tokenizer).encode_all(load_examples(rows))[0],
        make_arguments(check_trainer(settings)),
        rewards=RewardSet([load_reward(characters)]),
        rollout=Rollout(max_new_tokens=workload.max_new_tokens, num_generations=workload.group),
        monitor=Monitor(kl_every=0, completions_every=0),
    )
    meter.clock.time(trainer, "get_batch_samples", GLUE)
    meter.clock.time(trainer.step.engine, "sample", ROLLOUT)
    trainer.add_callback(_GraoTurns(trainer, meter))
    return trainer


class _GraoTurns(Turns):
    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        groups = self._trainer.step.last_groups
        self.prompt_tokens = [len(group.prompt_ids) for group in groups]
        self.completion_tokens = [[len(sample.ids) for sample in group.samples] for group in groups]
        super().on_log(args, state, control, logs, **kwargs)


def run_trl(turns: Any, workload: Workload) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(workload.model)
    model = AutoModelForCausalLM.from_pretrained(workload.model, dtype="float32")
    config = GRPOConfig(
        **SETTINGS,
        output_dir=str(workload.model.parent / "trl"),
        max_steps=len(workload.prompts),
        per_device_train_batch_size=len(workload.prompts[0]) * workload.group,
        num_generations=workload.group,
        max_completion_length=workload.max_new_tokens,
        shuffle_dataset=False,
        temperature=1.0,
        beta=KL,
        epsilon=CLIP,
        loss_type="grpo",
        scale_rewards="group",
    )
    rows = Dataset.from_list([{"prompt": prompt} for step in workload.prompts for prompt in step])
    trainer = GRPOTrainer(model, characters, args=config, train_dataset=rows, processing_class=tokenizer)
    meter = StepMeter(turns)
    watched = Turns(trainer, meter)
    if workload.ends:
        _end_as_told(model, meter, workload)
    _count_tokens(trainer, watched, workload.group)
    meter.clock.time(trainer, "_prepare_inputs", GLUE)
    meter.clock.time(trainer, "_generate_single_turn", ROLLOUT)
    trainer.add_callback(watched)
    trainer.train()


def _end_as_told(model: Any, meter: StepMeter, workload: Workload) -> None:
    plain = model.generate

    def generate(**kwargs: Any) -> Any:
        ends = EndsAt(meter.turn["completion_tokens"], workload.max_new_tokens, model.config.eos_token_id)
        return plain(**kwargs, logits_processor=LogitsProcessorList([ends]))

    model.generate = generate


def _count_tokens(trainer: Any, watched: Turns, group: int) -> None:
    plain = trainer._generate_single_turn

    def generate(prompt_ids: list[list[int]], *args: Any) -> Any:
        completion_ids, logprobs = plain(prompt_ids, *args)
        lengths = [len(ids) for ids in completion_ids]
        watched.prompt_tokens = [len(ids) for ids in prompt_ids[::group]]
        watched.completion_tokens = [lengths[i : i + group] for i in range(0, len(lengths), group)]
        return completion_ids, logprobs

    trainer._generate_single_turn = generate


def ratios_of(name: str, steps: Steps) -> dict[str, Ratio]:
    """What this workload gives, by the names of benchmarks/README.md."""
    ours, theirs = steps[OURS], steps[THEIRS]

    def ratio(value: Any) -> Ratio:
        return paired_ratio([value(step) for step in theirs], [value(step) for step in ours])

    found = {f"step_{name}_vs_trl": ratio(lambda step: step["seconds"])}
    found[f"train_{name}_vs_trl"] = ratio(training_seconds)
    if all(step["peak_bytes"] for step in (*ours, *theirs)):
        found[f"memory_{name}_vs_trl"] = ratio(lambda step: step["peak_bytes"])
    return found


def training_seconds(step: Step) -> float:
    return sum(step["parts"][part] for part in TRAINING)


def overhead(step: Step) -> float:
    """Its share of the step."""
    return sum(step["parts"].get(part, 0.0) for part in OVERHEAD) / step["seconds"]


def show(workload: Workload, steps: Steps, ratios: dict[str, Ratio]) -> None:
    rows = {"step, s": [spread([step["seconds"] for step in side]) for side in steps.values()]}
    for part in PARTS:
        rows[f"  {part}, s"] = [spread([step["parts"].get(part, 0.0) for step in side]) for side in steps.values()]
    rows["glue and rest, %"] = [spread([overhead(step) for step in side], 0.01) for side in steps.values()]
    if all(step["peak_bytes"] for side in steps.values() for step in side):
        rows["peak memory, MiB"] = [spread([s["peak_bytes"] for s in side], 2**20) for side in steps.values()]
    print_table(
        f"{workload.title(steps[OURS])}; median [range] of {len(steps[OURS])} steps",
        tuple(steps),
        rows,
    )
    share = median(overhead(step) for step in steps[OURS])
    print(f"  everything but model arithmetic: {share:.2%} of our step; the target is under {TARGET:.0%}")
    for name, ratio in ratios.items():
        print(f"  {name:22s} {ratio}", flush=True)


def compare(threads: int, workload: Workload, logs: Path) -> Measured:
    """Both sides in turns."""
    steps = take_turns({OURS: run_grao, THEIRS: run_trl}, workload, threads=threads, logs=logs)
    ratios = ratios_of(workload.name, steps)
    show(workload, steps, ratios)
    return {workload.name: recorded(steps)}, ratios


def main(arguments: Sequence[str] | None = None) -> None:
    args = comparison_parser(__doc__).parse_args(arguments)
    run_comparison("training_step", partial(compare, args.threads), args, settings=SETTINGS)


if __name__ == "__main__":
    main()
