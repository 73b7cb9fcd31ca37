"""What `grao evaluate` reads: models, the rows they answer, and what scores the answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from grao.data import DataConfig
from grao.policy import ModelConfig
from grao.rewards import RewardConfig
from grao.rollout import SamplingParams
from grao.spelling import did_you_mean

VERIFIABLE = ("math", "exact_match")
"""Built-in rewards that say whether an answer is right."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel(ModelConfig):
    """One of the models that are compared. As `path`, a run directory stands for the model in it."""

    name: str
    """In tables, and of its files: letters, digits and any of `._+-`."""

    def __post_init__(self) -> None:
        if not _FILE_NAME.fullmatch(self.name):
            raise ValueError(f"name is {self.name!r}, but it names files: use letters, digits and any of ._+-")
        if self.lora is not None:
            raise ValueError(
                "lora describes adapters that are yet to be trained, which change no answer; to evaluate trained ones "
                "give their directory as path"
            )


@dataclass(frozen=True)
class Sampling(SamplingParams):
    """How every model answers: each with the same seeds, whatever else is evaluated."""

    temperature: float = 0.7
    """Logits are divided by it; 0 = greedy. The paper's 0.7."""
    num_samples: int = 1
    """Answers a prompt."""
    seed: int = 0
    """With the row and the number of the sample it keys a draw."""
    max_rows: int = 256
    """Answers under way at once: fewer take less memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_samples", "max_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if self.temperature == 0 and self.num_samples > 1:
            raise ValueError(
                f"num_samples is {self.num_samples} at temperature 0, where all answers to a prompt are one: give a "
                "temperature above 0, or num_samples 1"
            )


@dataclass(frozen=True)
class EvaluateConfig:
    """A whole evaluation: models × rows × scorers."""

    models: list[EvaluatedModel]
    """Those to compare, each with a `name` of its own. More can be added later: what is there is kept."""
    data: DataConfig
    rewards: list[RewardConfig]
    """What scores an answer, and its reference in the same call."""
    base: str | None = None
    """Name of the model that the others are held against (NAG, differences, KL); null = the first."""
    verifiable: list[str] | None = None
    """Names of rewards that say right (1) or wrong (0): accuracy, pass@k, maj@k. Null = math and exact_match."""
    sampling: Sampling = field(default_factory=Sampling)
    k: list[int] = field(default_factory=lambda: [1])
    """Of pass@k and maj@k; none above `sampling.num_samples`."""
    kl: bool = True
    """Measure each model's KL to the base, by one more answer a prompt. Holds the base in memory beside the model."""
    category_column: str | None = "category"
    """Column that says what kind of prompt a row is, where the data has it; null = no categories."""
    batch: int = 64
    """Prompts that are answered, scored and stored together: what a kill can cost. Fewer take less memory."""
    device: str | None = None
    """Where models answer, such as `cuda` or `cpu`; null = the GPU where there is one."""
    output_dir: str = "runs/evaluation"
    """Where answers and figures go. The same command again goes on where it stopped."""

    def __post_init__(self) -> None:
        names = [model.name for model in self.models]
        if not names:
            raise ValueError("models is empty; name at least one, such as {name: base, path: models/hh-base}")
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two models are named {repeated[0]!r}; give each a name of its own")
        if self.base is not None and self.base not in names:
            raise ValueError(f"base is {self.base!r}{did_you_mean(self.base, names)}; models are {', '.join(names)}")
        if not self.rewards:
            raise ValueError("rewards is empty, so nothing scores the answers; name at least one")
        if self.batch < 1:
            raise ValueError(f"batch is {self.batch}; give a number of prompts, 1 or more")
        self._check_k()

    def _check_k(self) -> None:
        for k in self.k:
            if not 1 <= k <= self.sampling.num_samples:
                raise ValueError(
                    f"k holds {k}, but sampling.num_samples is {self.sampling.num_samples}: pass@k needs at least k "
                    "answers a prompt"
                )

    @property
    def base_name(self) -> str:
        """The name of the base: `base`, or the first model."""
        return self.base or self.models[0].name
