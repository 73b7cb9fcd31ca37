from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from grao.configuration import build as build_config
from grao.rollout import LocalEngine, LocalEngineConfig, Rollout, make_engine, read_engine_config

ENGINE = """
class Fake:
    exact = True

    def __init__(self, model, tokenizer, progress, answers):
        self.model, self.answers = model, answers

    def open(self): ...
    def sync(self, model, version): ...
    def sample(self, requests, params): ...
    def close(self): ...


def half(model, tokenizer, progress):
    return object()
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
        ({"name": ["local"]}, "engine.name is ['local'] (did you mean 'local'?); known: local."),
        ({"name": "local", "max_row": 3}, "max_row"),
        ({"path": "nowhere.engines:Mine"}, "nowhere"),
        (7, "engine is 7. Write a section, such as {name: local}"),
    ],
)
def test_errors_name_the_setting(section: Any, message: str) -> None:
    """Oracle: the message names the key, the value found and what is needed."""
    with pytest.raises(ValueError, match=re.escape(message)):
        read_engine_config(section).make(None, None)


def test_a_path_that_makes_no_engine(tmp_path: Path) -> None:
    """Oracle: the message names the argument, or the methods that are missing."""
    (tmp_path / "fakes.py").write_text(ENGINE, encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be called: missing a required argument: 'answers'"):
        make_engine({"path": f"{tmp_path}/fakes.py:Fake", "kwargs": {"answer": 3}}, None, None)
    with pytest.raises(ValueError, match="made a object without exact, open, sync, sample, close"):
        make_engine({"path": f"{tmp_path}/fakes.py:half"}, None, None)


class Half:
    exact = True

    def sample(self, requests: Any, params: Any) -> Any: ...


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (Half(), "engine is a Half without open, sync, close. grao.rollout.Engine lists"),
        (Half, "engine is the class Half. Give an instance of it"),
    ],
)
def test_an_object_that_is_no_engine(engine: Any, message: str) -> None:
    """Oracle: the sentence: what was given, what it lacks."""
    with pytest.raises(ValueError, match=re.escape(message)):
        make_engine(engine, None, None)


def test_a_path_is_checked_where_the_settings_are_read(tmp_path: Path) -> None:
    """Oracle: the sentence, before there is a model: a run directory must not be made for it."""
    (tmp_path / "fakes.py").write_text(ENGINE, encoding="utf-8")
    for section, message in (
        ({"path": f"{tmp_path}/fakes.py:Fak"}, "has no attribute 'Fak' (nearest: Fake)"),
        ({"path": f"{tmp_path}/fakes.py:Fake"}, "cannot be called: missing a required argument: 'answers'"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            read_engine_config(section)


@pytest.mark.parametrize("key", ["dtype", "max_rows", "max_batch_tokens", "packed"])
def test_former_keys_of_the_rollout_name_their_new_place(key: str) -> None:
    """Oracle: the sentence."""
    with pytest.raises(ValueError, match=re.escape(f"rollout.{key}: unknown key; it is now engine.{key}")):
        build_config(Rollout, {key: 1}, "rollout")
