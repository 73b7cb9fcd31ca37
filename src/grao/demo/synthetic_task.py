"""What a synthetic task is: prompts that are held out for good, a true score, demonstrations and a base model."""

from __future__ import annotations

import hashlib
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
    """A task with programmatic ground truth: the score follows from the prompt's text and the reply's, nothing else.

    Prompts belong to a split for good (`split_of`). Base models are pre-trained on `train` prompts only, so a
    validation or test prompt is new to the base model as well as to whatever aligns it.
    """

    name: ClassVar[str]
    reward: ClassVar[str]
    """Dotted path of the reward to train with."""
    rubric: ClassVar[str]
    """Dotted path of the graded score, to report."""
    eps: ClassVar[float]
    """How often pre-training shows the wanted behaviour where it is rare, unless told otherwise."""
    spec: ClassVar[ModelSpec]
    """Shape of the base model, but for its family."""
    base_steps: ClassVar[int]
    """Optimiser steps that the base model is trained for, unless told otherwise."""
    base_batch_size: ClassVar[int]

    @abstractmethod
    def examples(self, split: Split, n: int, seed: int = 0) -> list[Example]:
        """`n` rows of a split, each with a reference and a rejected answer that scores strictly below it.

        Prompts of `validation` and `test` are unique; `columns["category"]` names the kind of prompt.

        Raises:
            ValueError: the split has fewer than `n` unique prompts.
        """

    @abstractmethod
    def score(self, prompt: str, text: str) -> float:
        """The true score of a reply.

        Raises:
            ValueError: the prompt is none of this task's.
        """

    @abstractmethod
    def pretraining_pairs(self, n: int, seed: int = 0, eps: float | None = None) -> list[tuple[str, str]]:
        """`n` (prompt, reply) texts of the quality a base model has, on prompts of `train` and background ones."""

    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """A tokenizer of whole words that knows every word of the task."""

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
        """Pre-train a base model for this task and save it with its tokenizer; see `train_base_model`."""
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
    """The split a prompt belongs to: its hash, in hundredths, laid along `shares` (percent, adding up to 100).

    A pure function of the key: no list of held-out prompts has to be stored, and none can drift.
    """
    place = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") % 100
    for split, share in shares.items():
        if place < share:
            return split
        place -= share
    raise AssertionError(f"shares {shares} do not add up to 100")
