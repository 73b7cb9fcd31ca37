"""A data section: it takes the arguments of `load_examples` and reads the same rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import datasets
import pytest

from grao.data import HH, DataSource, Example, load_examples

SUMS = [{"question": f"{i} + 1 =", "answer": str(i + 1)} for i in range(5)]
NAMES = {"prompt": "question", "reference": "answer"}


def test_it_holds_every_argument_of_load_examples() -> None:
    """Oracle: the signature of `load_examples`, whose `**options` are one field here."""
    assert {f.name for f in fields(DataSource)} == set(signature(load_examples).parameters)


def test_every_argument_reaches_the_reader_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a stand-in for `datasets.load_dataset` that records its arguments; rows 1 to 3 by hand."""
    calls: list[Any] = []

    def load_dataset(*args: Any, **kwargs: Any) -> datasets.Dataset:
        calls.append((args, kwargs))
        return datasets.Dataset.from_list(SUMS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = DataSource("someone/sums", columns=NAMES, split="test", config="main", revision="v2", skip=1, limit=3)
    assert source.load().examples == (
        Example(1, "1 + 1 =", "2"),
        Example(2, "2 + 1 =", "3"),
        Example(3, "3 + 1 =", "4"),
    )
    assert calls == [(("someone/sums", "main"), {"split": "test", "revision": "v2"})]


def test_options_are_passed_to_the_format(jsonl: Callable[..., Path]) -> None:
    """Oracle: `load_examples` with the format as an object; without the option the prompt is a text."""
    rows = [{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}]
    path = str(jsonl(rows))
    as_messages = DataSource(path, format="hh", options={"as_messages": True}).load().examples
    assert as_messages == load_examples(path, HH(as_messages=True)).examples
    assert as_messages != DataSource(path, format="hh").load().examples


def test_an_invalid_value_is_refused() -> None:
    """Oracle: the message of `load_examples`."""
    with pytest.raises(ValueError, match="found skip=-1"):
        DataSource("rows.jsonl", skip=-1).load()
