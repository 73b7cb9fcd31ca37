"""Synthetic tasks: held-out prompts, a true score for any reply, demonstrations, and a base model to start from."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from transformers import PreTrainedTokenizerBase

from grao.data.example import Example
from grao.demo.base_model import ModelSpec, TrainedBase, train_base_model

Split = Literal["train", "validation", "test"]


class Task(ABC):
    """A task with programmatic ground truth: the score depends on the prompt's and the reply's text alone.

    A prompt belongs to one split (`split_of`). Base models are pre-trained on `train` prompts only, so validation and
    test prompts are new to the base model and to every alignment method.
    """

    name: ClassVar[str]
    reward: ClassVar[str]
    """Dotted path of the reward to train with."""
    rubric: ClassVar[str]
    """Dotted path of the graded score to report."""
    eps: ClassVar[float]
    """Default share of pre-training texts that show the wanted behaviour, where that is rare."""
    spec: ClassVar[ModelSpec]
    """Shape of the base model, except its family."""
    base_steps: ClassVar[int]
    """Default number of optimiser steps of the base model."""
    base_batch_size: ClassVar[int]

    @abstractmethod
    def examples(self, split: Split, n: int, seed: int = 0) -> list[Example]:
        """Return `n` rows of a split, each with a reference and a rejected answer that scores strictly lower.

        Prompts of `validation` and `test` are unique; `columns["category"]` is the kind of prompt.

        Raises:
            ValueError: If the split has fewer than `n` unique prompts.
        """

    @abstractmethod
    def score(self, prompt: str, text: str) -> float:
        """Return the true score of a reply.

        Raises:
            ValueError: If the prompt does not belong to this task.
        """

    @abstractmethod
    def pretraining_pairs(self, n: int, seed: int = 0, eps: float | None = None) -> list[tuple[str, str]]:
        """Return `n` (prompt, reply) texts of a base model's quality, on prompts of `train` and background ones."""

    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return a tokenizer of whole words that knows every word of the task."""

    def base_model(
        self,
        directory: str | Path,
        *,
        family: str = "llama",
        eps: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        quiet: bool = False,
    ) -> TrainedBase:
        """Pre-train a base model for this task and save it with its tokenizer. See `train_base_model`."""
        steps = self.base_steps if steps is None else steps
        return train_base_model(
            self.pretraining_pairs(steps * self.base_batch_size, seed, eps),
            self.tokenizer(),
            replace(self.spec, family=family),
            directory,
            steps=steps,
            batch_size=self.base_batch_size,
            learning_rate=4e-3,
            seed=seed,
            quiet=quiet,
        )


def split_of(key: str, shares: Mapping[Split, int]) -> Split:
    """Return the split of a prompt: its hash modulo 100, laid along `shares` (percent, which add up to 100).

    A pure function of the key, so no list of held-out prompts has to be stored.
    """
    place = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") % 100
    for split, share in shares.items():
        if place < share:
            return split
        place -= share
    raise AssertionError(f"shares {shares} do not add up to 100")


def write_task(
    task: Task,
    directory: str | Path,
    *,
    n_train: int = 512,
    n_validation: int = 128,
    n_test: int = 300,
    family: str = "llama",
    eps: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> TrainedBase:
    """Write `train.jsonl`, `validation.jsonl`, `test.jsonl` and the base model `base/`, to name in a configuration.

    A row holds ``prompt``, ``reference``, ``rejected`` and the other columns. `eps` and `steps` default to the task's
    own. `seed` draws the rows and the base model.

    Raises:
        FileExistsError: If `base/` holds something other than a base model written here.
        ValueError: If a split has too few unique prompts.
    """
    directory = Path(directory)
    splits: dict[Split, int] = {"train": n_train, "validation": n_validation, "test": n_test}
    rows = {split: task.examples(split, n, seed) for split, n in splits.items()}
    base = task.base_model(directory / "base", family=family, eps=eps, steps=steps, seed=seed, quiet=quiet)
    for split, examples in rows.items():
        write_rows(directory / f"{split}.jsonl", examples)
    return base


def write_rows(path: Path, examples: list[Example]) -> None:
    """Write examples as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            row = {"prompt": example.prompt, "reference": example.reference, "rejected": example.rejected}
            file.write(json.dumps({**row, **example.columns}) + "\n")
