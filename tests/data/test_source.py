"""A source as a value: it takes what `load_examples` takes, and reads the rows that it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import datasets
import pytest

from grao.data import HH, DataSource, Example, load_examples
from grao.data import hub as hub_file

SUMS = [{"question": f"{i} + 1 =", "answer": str(i + 1)} for i in range(5)]
NAMES = {"prompt": "question", "reference": "answer"}


def test_it_holds_every_argument_of_load_examples() -> None:
    """Oracle: the signature of `load_examples`, whose `**options` are one field here."""
    assert {f.name for f in fields(DataSource)} == set(signature(load_examples).parameters)


def test_every_choice_reaches_the_reader_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a stand-in for `datasets.load_dataset` that notes what it was asked; rows 1 to 3 by hand."""
    asked: list[Any] = []

    def load_dataset(*args: Any, **kwargs: Any) -> datasets.Dataset:
        asked.append((args, kwargs))
        return datasets.Dataset.from_list(SUMS)

    monkeypatch.setattr(hub_file.datasets, "load_dataset", load_dataset)
    source = DataSource("someone/sums", columns=NAMES, split="test", config="main", revision="v2", skip=1, limit=3)
    assert source.load().examples == (
        Example(1, "1 + 1 =", "2"),
        Example(2, "2 + 1 =", "3"),
        Example(3, "3 + 1 =", "4"),
    )
    assert asked == [(("someone/sums", "main"), {"split": "test", "revision": "v2"})]


def test_options_are_choices_of_the_format(jsonl: Callable[..., Path]) -> None:
    """Oracle: `load_examples` with the format as an object; without the choice the prompt is a text."""
    rows = [{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}]
    path = str(jsonl(rows))
    as_messages = DataSource(path, format="hh", options={"as_messages": True}).load().examples
    assert as_messages == load_examples(path, HH(as_messages=True)).examples
    assert as_messages != DataSource(path, format="hh").load().examples


def test_what_cannot_be_loaded_says_why() -> None:
    """Oracle: the message of `load_examples`."""
    with pytest.raises(ValueError, match="found skip=-1"):
        DataSource("rows.jsonl", skip=-1).load()
