from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from grao.rollout import LocalEngine, LocalEngineConfig, make_engine, read_engine_config

ENGINE = """
class Fake:
    exact = True

    def __init__(self, model, tokenizer, progress, answers):
        self.model, self.answers = model, answers

    def sample(self, requests, params): ...
"""


def test_settings_reach_the_local_engine(build: Callable[..., PreTrainedModel], tokenizer: Any) -> None:
    """Oracle: by hand; each setting in its place, and the defaults."""
    section = {"name": "local", "dtype": "bfloat16", "max_rows": 7, "max_batch_tokens": 900, "packed": False}
    set_ = make_engine(section, build("llama"), tokenizer)
    assert isinstance(set_, LocalEngine)
    assert (set_.dtype, set_.max_rows, set_.max_batch_tokens, set_.packed) == (torch.bfloat16, 7, 900, False)
    plain = make_engine(None, build("llama"), tokenizer)
    assert isinstance(plain, LocalEngine)
    assert (plain.dtype, plain.max_rows, plain.max_batch_tokens, plain.packed) == (None, 256, None, True)


def test_only_unchanged_weights_are_exact(build: Callable[..., PreTrainedModel], tokenizer: Any) -> None:
    """Oracle: the contract: log-probs of rounded weights are not the policy's."""
    assert make_engine({"dtype": "model"}, build("llama"), tokenizer).exact
    assert not make_engine(LocalEngineConfig(dtype="bfloat16"), build("llama"), tokenizer).exact


def test_an_engine_is_passed_through_and_a_path_is_imported(
    tmp_path: Path, build: Callable[..., PreTrainedModel], tokenizer: Any
) -> None:
    """Oracle: identity; the arguments that the file's class stores."""
    engine = LocalEngine(build("llama"), tokenizer)
    assert make_engine(engine, None, None) is engine
    (tmp_path / "fake.py").write_text(ENGINE, encoding="utf-8")
    model = build("llama")
    made: Any = make_engine({"path": f"{tmp_path}/fake.py:Fake", "kwargs": {"answers": 3}}, model, tokenizer)
    assert made.model is model
    assert made.answers == 3


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"max_rows": 0}, "max_rows is 0. Give 1 or more"),
        ({"max_batch_tokens": 0}, "max_batch_tokens is 0. Give 1 or more, or null"),
        ({"dtype": "int8"}, "'int8'"),
        ({"name": "locl"}, "engine.name is 'locl' (did you mean 'local'?)"),
        ({"name": "local", "max_row": 3}, "max_row"),
        ({"path": "nowhere.engines:Mine"}, "nowhere"),
        (7, "engine is 7. Write a section, such as {name: local}"),
    ],
)
def test_errors_name_the_setting(section: Any, message: str) -> None:
    """Oracle: the message names the key, the value found and what is needed."""
    with pytest.raises(ValueError, match=re.escape(message)):
        read_engine_config(section).make(None, None)
