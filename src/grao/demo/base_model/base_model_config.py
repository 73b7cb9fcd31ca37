"""A base model from a YAML file: rows of a data set, a byte-level BPE trained on them, a small transformer."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from grao.configuration import apply_overrides, build, load_yaml
from grao.data import DataSource, Example
from grao.demo.base_model.model_spec import ModelSpec
from grao.demo.base_model.pretraining import LossOn, TrainedBase, train_base_model
from grao.demo.base_model.small_tokenizers import bpe_tokenizer


@dataclass(frozen=True)
class BaseData(DataSource):
    """The rows to learn from. Use `skip` and `limit` to keep them apart from the rows of alignment."""

    answers: Literal["reference", "rejected", "both"] = "reference"
    """Which answers to learn: the reference, the rejected one, or both as separate pairs."""
    drop_final_line: float = 0.0
    """Probability that an answer of several lines loses its last line, so that the model seldom ends on `#### 7`."""

    def __post_init__(self) -> None:
        if not 0 <= self.drop_final_line <= 1:
            raise ValueError(f"drop_final_line is {self.drop_final_line}: give a probability between 0 and 1")


@dataclass(frozen=True)
class BaseTraining:
    """How the base model is trained."""

    steps: int = 300
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup_steps: int = 20
    loss_on: LossOn = "everything"
    """`everything` learns prompts and answers, `completion` only answers."""
    length_pool: int = 8
    """Number of batches sorted by length together, to save padding; 1 sorts nothing."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "length_pool"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give 1 or more")


@dataclass(frozen=True)
class BaseModelConfig:
    """The configuration of a base model."""

    output: str
    """Directory of the model: new, empty, or with a base model written here."""
    data: BaseData
    model: ModelSpec = field(default_factory=ModelSpec)
    training: BaseTraining = field(default_factory=BaseTraining)
    vocab_size: int = 4096
    """Size of the byte-level BPE, which is trained on the same rows."""
    seed: int = 0


def base_model_from_config(
    config: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), *, quiet: bool = False
) -> TrainedBase:
    """Train the base model of a YAML file, or of its content as a mapping.

    Args:
        overrides: Dotted keys as on the command line, such as ``["--training.steps", "10"]``.
        quiet: Show no progress bar.

    Raises:
        ValueError: If a key is unknown (the message names the nearest one) or a value does not fit.
        FileExistsError: See `train_base_model`.
    """
    mapping = config if isinstance(config, Mapping) else load_yaml(config)
    return _train(build(BaseModelConfig, apply_overrides(mapping, overrides)), quiet)


def main_from_config(config: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Run `grao base CONFIG`: train, print a line about the model, return its directory."""
    trained = base_model_from_config(config, overrides)
    print(trained.summary)
    return trained.directory


def _train(config: BaseModelConfig, quiet: bool) -> TrainedBase:
    pairs = text_pairs(config.data.load(), config.data, random.Random(f"final lines {config.seed}"))
    tokenizer = bpe_tokenizer((text for pair in pairs for text in pair), config.vocab_size)
    return train_base_model(
        pairs,
        tokenizer,
        config.model,
        config.output,
        **vars(config.training),
        seed=config.seed,
        quiet=quiet,
    )


def text_pairs(examples: Sequence[Example], data: BaseData, rng: random.Random) -> list[tuple[str, str]]:
    """Return the (prompt, answer) pairs of rows."""
    pairs = []
    for example in examples:
        if not isinstance(example.prompt, str):
            raise ValueError(
                f"row {example.row}: the prompt is a conversation, but a base model learns plain text: leave out "
                "as_messages"
            )
        answers = {"reference": example.reference, "rejected": example.rejected}
        for name in answers if data.answers == "both" else (data.answers,):
            answer = answers[name]
            if answer is None:
                raise ValueError(f"row {example.row} has no {name} answer: set data.answers to one the rows have")
            cut = rng.random() < data.drop_final_line
            pairs.append((example.prompt, without_final_line(answer) if cut else answer))
    return pairs


def without_final_line(text: str) -> str:
    r"""Return a text of several lines without its last line; a single line stays.

    >>> without_final_line("3 + 4 = 7\n#### 7")
    '3 + 4 = 7'
    """
    return text.rpartition("\n")[0] or text
