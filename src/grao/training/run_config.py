"""One YAML file is a run. Each section is the dataclass that runs; nothing is declared twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from grao.configuration import apply_overrides, build, load_yaml, to_mapping
from grao.data import DataConfig
from grao.evaluation import Sampling
from grao.objectives import Needs, Objective, parse_objective, resolve_objective
from grao.policy import ModelConfig
from grao.rewards import RewardConfig, RewardFunction, RewardSet
from grao.rollout import Rollout, read_engine_config, ready_engine
from grao.training.critic_training import CriticConfig
from grao.training.monitor import Monitor
from grao.training.run_checks import check_objective
from grao.training.stages import Stage, StageSequence
from grao.training.trainer_arguments import check_trainer, make_arguments, plain_value


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out rows, answered and scored every N steps."""

    data: DataConfig
    rewards: list[RewardConfig] = field(default_factory=list)
    """Scores the answers, independent of what is trained on; the training's own `rewards` by default."""
    every: int = 50
    """Steps between evaluations; the trained model is evaluated at the end in any case."""
    at_start: bool = True
    """Evaluate the untrained policy first: `eval_nag` compares with its answers, and is left out without them."""
    num_samples: int = 1
    """Answers per prompt."""
    temperature: float = 0.0
    """Of the answers; 0 = greedy. `grao evaluate` uses the paper's 0.7."""
    max_new_tokens: int | None = None
    """Longest answer; null = `rollout.max_new_tokens`."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every is {self.every}. Give a number of steps, 1 or more.")
        self.sampling(Rollout())  # raises for settings that contradict each other

    def sampling(self, rollout: Rollout) -> Sampling:
        """Return how held-out prompts are answered, with the rollout's stop strings and stop tokens."""
        length = {} if self.max_new_tokens is None else {"max_new_tokens": self.max_new_tokens}
        return Sampling.like(rollout, temperature=self.temperature, num_samples=self.num_samples, **length)


@dataclass(frozen=True)
class RunConfig:
    """A whole run. Python code may pass objects where YAML names them: an objective, stages, reward functions."""

    model: ModelConfig
    data: DataConfig
    objective: dict[str, Any] | list[dict[str, Any]]
    """`name` (grao, grao-recommended, grpo, dr-grpo, dapo, rloo, ppo, dpo, sft) or `path` (package.module:Class) and
    its fields; or `sum`, a list of such objectives, each with a `weight`; or a list of stages, one after the other:
    any of these, each with its `steps` and, optionally, its own `learning_rate`."""
    rewards: list[RewardConfig] = field(default_factory=list)
    """Scores samples and references; at least one where the objective samples."""
    rollout: Rollout = field(default_factory=Rollout)
    engine: dict[str, Any] = field(default_factory=dict)
    """Which engine samples, and its settings: `name: local` (in the training process), or `path` and `kwargs`."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    monitor: Monitor = field(default_factory=Monitor)
    evaluation: EvaluationConfig | None = None
    """Held-out evaluation while training; null = none."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """transformers' TrainingArguments; `per_device_train_batch_size` counts prompts. See TRAINER_DEFAULTS."""

    def __post_init__(self) -> None:
        self._check_objects()
        object.__setattr__(self, "trainer", check_trainer(self._with_steps_of_stages()))
        if ready_engine(self.engine) is None:
            object.__setattr__(self, "engine", read_engine_config(self.engine))
        for i, stage in enumerate(self.stages):
            check_objective(
                f"objective{f'[{i}]' if self._is_sequence else ''} {stage.objective.title}",
                stage.objective,
                has_rewards=bool(self.rewards),
                num_generations=self.rollout.num_generations,
                prefix="rollout.",
            )
        if self.evaluation is not None and not (self.evaluation.rewards or self.rewards):
            raise ValueError(
                "evaluation scores held-out answers, but rewards is empty. Give at least one, or evaluation.rewards."
            )

    def _check_objects(self) -> None:
        """Raise a `ValueError` for an argument of another type: Python code passes objects without `build`."""
        for name, needed in _OBJECTS.items():
            if not isinstance(getattr(self, name), needed):
                raise ValueError(f"{name} is {getattr(self, name)!r}. Give an instance of {needed.__name__}.")

    def _with_steps_of_stages(self) -> dict[str, Any]:
        """Return the `trainer` section; with stages, their total steps are its `max_steps`."""
        if isinstance(self.objective, Mapping):
            for key, instead in (("steps", "max_steps"), ("learning_rate", "learning_rate")):
                if key in self.objective:
                    raise ValueError(f"objective.{key} belongs to a list of stages. Set trainer.{instead} instead.")
        if not self._is_sequence:
            return dict(self.trainer)
        if not self.objective:
            raise ValueError("objective is an empty list. Give one objective, or stages with a name and steps each.")
        steps = sum(stage.steps for stage in self.stages)
        if self.trainer.get("max_steps", steps) != steps or "num_train_epochs" in self.trainer:
            raise ValueError(
                f"objective is a list of stages with {steps} steps in total, which is the length of the run. "
                "Leave out trainer.max_steps and trainer.num_train_epochs."
            )
        return {**self.trainer, "max_steps": steps}

    @property
    def stages(self) -> list[Stage]:
        """What the `objective` section describes; a single objective is one stage without an end of its own."""
        made = self.make_objective()
        return [Stage(made, steps=1)] if isinstance(made, Objective) else made

    @property
    def needs(self) -> Needs:
        """The union of what the stages need."""
        return StageSequence(self.stages).needs

    def make_objective(self) -> Objective | list[Stage]:
        """Return the objective, or the stages, that the `objective` section describes."""
        if isinstance(self.objective, Objective):
            return self.objective
        if isinstance(self.objective, Mapping):
            return parse_objective(self.objective)
        if isinstance(self.objective, str) or not isinstance(self.objective, Sequence):
            raise ValueError(f"objective is {self.objective!r}. Give an object such as GRAO(), or a list of stages.")
        return [
            described if isinstance(described, Stage) else _stage(described, f"objective[{i}]")
            for i, described in enumerate(self.objective)
        ]

    @property
    def run_directory(self) -> Path:
        """Return the directory of the run, `trainer.output_dir`."""
        return Path(self.trainer["output_dir"])

    def training_arguments(self) -> TrainingArguments:
        """Return the `trainer` section as transformers' arguments, with what other sections decide."""
        if self.evaluation is None:
            return make_arguments(self.trainer)
        return make_arguments(self.trainer, self.evaluation.every, at_start=self.evaluation.at_start)

    def resolved(self) -> dict[str, Any]:
        """Return the whole configuration with every default written out, as plain YAML data."""
        objectives = [_resolved(one) for one in (self.objective if self._is_sequence else [self.objective])]
        evaluation: dict[str, Any] | None = None
        if self.evaluation is not None:
            evaluation = {f.name: getattr(self.evaluation, f.name) for f in fields(self.evaluation)}
            evaluation |= {
                "data": to_mapping(self.evaluation.data),
                "rewards": _resolved_rewards(self.evaluation.rewards),
            }
        return {
            "model": to_mapping(self.model),
            "data": to_mapping(self.data),
            "objective": objectives if self._is_sequence else objectives[0],
            "rewards": _resolved_rewards(self.rewards),
            "rollout": to_mapping(self.rollout),
            "engine": self._resolved_engine(),
            "critic": to_mapping(self.critic),
            "monitor": to_mapping(self.monitor),
            "evaluation": evaluation,
            "trainer": dict(self.trainer),
        }

    def _resolved_engine(self) -> dict[str, Any]:
        """Return the engine's settings; an engine that is an object is described by its class only."""
        if ready_engine(self.engine) is None and is_dataclass(self.engine):
            return to_mapping(self.engine)
        return {"path": f"{type(self.engine).__module__}:{type(self.engine).__qualname__}"}

    @property
    def _is_sequence(self) -> bool:
        return isinstance(self.objective, Sequence)


def load_reward_set(rewards: Sequence[RewardConfig | RewardFunction]) -> RewardSet | None:
    """Load rewards, described or ready; None without any."""
    loaded = [reward.load() if isinstance(reward, RewardConfig) else reward for reward in rewards]
    return RewardSet(loaded) if loaded else None


_OBJECTS = {"model": ModelConfig, "data": DataConfig, "rollout": Rollout, "critic": CriticConfig, "monitor": Monitor}

_STAGE_KEYS = ("steps", "learning_rate")


def _stage(described: Mapping[str, Any], where: str) -> Stage:
    if not isinstance(described, Mapping):
        raise ValueError(f"{where} is {described!r}. Give a stage such as Stage(GRAO(), steps=100).")
    if described.get("steps") is None:
        raise ValueError(
            f"{where} is a stage without steps. Write {{name: {described.get('name', 'sft')}, steps: 100}}."
        )
    steps = plain_value(f"{where}.steps", described["steps"], "int")
    rate = plain_value(f"{where}.learning_rate", described.get("learning_rate"), "float | null")
    return Stage(parse_objective(_without_stage_keys(described), where), steps, rate)


def _without_stage_keys(described: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in described.items() if key not in _STAGE_KEYS}


def _resolved(described: Any) -> dict[str, Any]:
    """Return an objective or a stage with every default written out."""
    if isinstance(described, Stage):
        return {
            **_resolved(described.objective),
            "steps": described.steps,
            "learning_rate": described.learning_rate,
        }
    if isinstance(described, Objective):
        return resolve_objective(described)
    stage = {key: described[key] for key in _STAGE_KEYS if key in described}
    return {**resolve_objective(_without_stage_keys(described)), **stage}


def _resolved_rewards(rewards: Sequence[RewardConfig | RewardFunction]) -> list[dict[str, Any]]:
    return [
        to_mapping(reward) if isinstance(reward, RewardConfig) else {"path": reward.name, "weight": reward.weight}
        for reward in rewards
    ]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file, apply dotted overrides (``--objective.beta 0.3``), check everything.

    Raises:
        ValueError: An unknown key, with the nearest known one; a wrong type; a value out of range.
    """
    return build(RunConfig, apply_overrides(load_yaml(path), overrides))
