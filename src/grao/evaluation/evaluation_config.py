"""Configuration of `grao evaluate`: models, the rows they answer, and the rewards that score the answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

from grao.data import DataConfig
from grao.policy import ModelConfig
from grao.rewards import RewardConfig
from grao.rollout import SamplingParams, read_engine_config
from grao.spelling import did_you_mean

VERIFIABLE = ("math", "exact_match")
"""Built-in rewards that are 1 for a right answer and 0 for a wrong one."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel(ModelConfig):
    """A model to evaluate. If `path` is a run directory, the model trained in it."""

    name: str
    """Name in tables and of files: letters, digits and any of `._+-`."""

    def __post_init__(self) -> None:
        if not _FILE_NAME.fullmatch(self.name):
            raise ValueError(f"name is {self.name!r}, but it names files: use letters, digits and any of ._+-")
        if self.lora is not None:
            raise ValueError(
                "lora describes adapters to be trained, which change no answer. To evaluate trained adapters, give "
                "their directory as path"
            )


@dataclass(frozen=True)
class Sampling(SamplingParams):
    """How every model answers, with the same seeds for all models."""

    moved_keys: ClassVar[dict[str, str]] = {"max_rows": "engine.max_rows"}

    temperature: float = 0.7
    """Divisor of the logits; 0 = greedy. The paper uses 0.7."""
    num_samples: int = 1
    """Answers per prompt."""
    seed: int = 0
    """Keys every draw, together with the row and the number of the sample."""

    @classmethod
    def like(cls, rollout: SamplingParams, *, temperature: float = 0.0, **changes: Any) -> Sampling:
        """Return greedy answers that end as the rollout's do: its length limit, stop strings and stop tokens."""
        ends = {name: getattr(rollout, name) for name in ("max_new_tokens", "stop", "stop_token_ids")}
        return cls(**{**ends, "temperature": temperature, **changes})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_samples < 1:
            raise ValueError(f"num_samples is {self.num_samples}; give 1 or more")
        if self.temperature == 0 and self.num_samples > 1:
            raise ValueError(
                f"num_samples is {self.num_samples} at temperature 0, where all answers to a prompt are the same. "
                "Give a temperature above 0, or num_samples 1"
            )


@dataclass(frozen=True)
class EvaluateConfig:
    """A whole evaluation: models × rows × rewards."""

    models: list[EvaluatedModel]
    """Models to compare, each with a unique `name`. Models can be added later; stored answers are kept."""
    data: DataConfig
    rewards: list[RewardConfig]
    """Rewards that score each answer, and its reference in the same call."""
    base: str | None = None
    """Name of the model that the others are compared with (NAG, differences, KL); null = the first."""
    verifiable: list[str] | None = None
    """Names of rewards that are 1 (right) or 0 (wrong), for pass@k and maj@k. Null = math and exact_match."""
    sampling: Sampling = field(default_factory=Sampling)
    engine: dict[str, Any] = field(default_factory=dict)
    """Which engine answers, and its settings, as for training; `{max_rows: 64}` takes less memory than 256."""
    k: list[int] = field(default_factory=lambda: [1])
    """k of pass@k and maj@k; at most `sampling.num_samples`."""
    kl: bool = True
    """Measure each model's KL to the base, with one more answer per prompt. Holds the base in memory beside it."""
    category_column: str | None = "category"
    """Column with the category of a prompt, if the data has it; null = no categories."""
    batch: int = 64
    """Prompts that are answered, scored and stored together: the most that a kill costs. Fewer take less memory."""
    device: str | None = None
    """Device of the models, such as `cuda` or `cpu`; null = the GPU if there is one."""
    output_dir: str = "runs/evaluation"
    """Directory of answers and metrics. The same command again continues where it stopped."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "engine", read_engine_config(self.engine))
        names = [model.name for model in self.models]
        if not names:
            raise ValueError("models is empty; name at least one, such as {name: base, path: models/hh-base}")
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two models are named {repeated[0]!r}; give each a unique name")
        if self.base is not None and self.base not in names:
            raise ValueError(f"base is {self.base!r}{did_you_mean(self.base, names)}; models are {', '.join(names)}")
        if not self.rewards:
            raise ValueError("rewards is empty, so nothing scores the answers; name at least one")
        if self.batch < 1:
            raise ValueError(f"batch is {self.batch}; give a number of prompts, 1 or more")
        for k in self.k:
            if not 1 <= k <= self.sampling.num_samples:
                raise ValueError(
                    f"k holds {k}, but sampling.num_samples is {self.sampling.num_samples}: pass@k needs k from 1 to "
                    "the number of answers per prompt"
                )

    @property
    def base_name(self) -> str:
        """The name of the base: `base`, or the first model."""
        return self.base or self.models[0].name
