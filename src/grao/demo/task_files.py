"""Write a task to disk, so that an ordinary training configuration can point at it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from grao.data.example import Example
from grao.demo.base_model import TrainedBase
from grao.demo.synthetic_task import Split, Task


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
    swapped: float = 0.0,
    seed: int = 0,
    quiet: bool = False,
) -> TrainedBase:
    """Write `train.jsonl`, `validation.jsonl`, `test.jsonl` and the base model `base/`.

    A row holds ``prompt``, ``reference``, ``rejected`` and the other columns. `eps` and `steps` default to the
    task's own; `seed` draws the rows and the base model alike. `swapped` is the share of training rows, drawn from
    the same seed, whose reference and rejected answer change places: demonstrations that are wrong.

    Raises:
        FileExistsError: `base/` holds something else than a base model made here.
        ValueError: a split has fewer unique prompts than asked for.
    """
    directory = Path(directory)
    splits: dict[Split, int] = {"train": n_train, "validation": n_validation, "test": n_test}
    rows = {split: task.examples(split, n, seed) for split, n in splits.items()}
    rows["train"] = _with_swapped(rows["train"], swapped, random.Random(f"swapped {seed}"))
    base = task.base_model(directory / "base", family=family, eps=eps, steps=steps, seed=seed, quiet=quiet)
    for split, examples in rows.items():
        _write_jsonl(directory / f"{split}.jsonl", examples)
    return base


def _with_swapped(examples: list[Example], share: float, rng: random.Random) -> list[Example]:
    chosen = set(rng.sample(range(len(examples)), round(share * len(examples))))
    return [
        replace(example, reference=example.rejected, rejected=example.reference) if i in chosen else example
        for i, example in enumerate(examples)
    ]


def _write_jsonl(path: Path, examples: Iterable[Example]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            row = {"prompt": example.prompt, "reference": example.reference, "rejected": example.rejected}
            file.write(json.dumps({**row, **example.columns}) + "\n")
