"""From a hub id or a path to a policy: model, tokenizer, adapters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file, extract_commit_hash

from grao.policy.lora import LoRA, adapted_path, add_adapters
from grao.policy.scoring import Scoring, install_scoring

Dtype = Literal["float32", "bfloat16", "float16", "auto"]


@dataclass(frozen=True)
class ModelConfig:
    """Which model to align, and how to hold it."""

    path: str
    """Hub id or directory of a causal language model."""
    revision: str | None = None
    """Branch, tag or commit of `path` on the hub."""
    tokenizer: str | None = None
    """Hub id or directory of the tokenizer; the model's own by default."""
    dtype: Dtype = "float32"
    """Of the weights. For mixed precision keep float32 here and set `trainer.bf16: true`."""
    attn_implementation: str | None = None
    """`sdpa`, `eager`, `flash_attention_2`, `flex_attention`, …; transformers' choice by default."""
    lora: LoRA | None = None
    """Train low-rank adapters instead of the weights."""
    router_loss: float | None = None
    """Weight of a mixture of experts' load-balancing loss; its config's `router_aux_loss_coef` by default, 0 = off."""
    scoring: Scoring = "auto"
    """How log-probs are computed. `stream`: each prompt once for its whole group, no padding; an error where the model
    does not allow it. `padded`: a row for each member. `auto`: the stream where it is exact, else padded rows."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Off unless you write it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A model ready to be trained and scored, with its tokenizer."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    context_length: int | None
    """Longest sequence the model takes, in tokens; None where its config does not say."""


def load_policy(config: ModelConfig) -> Policy:
    """Load model and tokenizer, check that they belong together, add adapters.

    Raises:
        ValueError: no such model, no tokenizer, a tokenizer with more tokens than the model has embeddings, or a
            model that cannot be scored as `scoring` says.
    """
    _check_directory("model.path", config.path)
    tokenizer = load_tokenizer(config)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            config.path,
            revision=config.revision,
            dtype=config.dtype if config.dtype == "auto" else getattr(torch, config.dtype),
            attn_implementation=config.attn_implementation,
            trust_remote_code=config.trust_remote_code,
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot load a causal language model from model.path={config.path!r}: {error}") from error
    check_vocabulary(model, tokenizer, config.path)
    if config.router_loss is not None:
        model.config.get_text_config().router_aux_loss_coef = config.router_loss
    install_scoring(model, config.scoring)
    context_length = _positions(model.config)
    if config.lora is not None:
        model = add_adapters(model, config.lora)
    return Policy(model, tokenizer, context_length)


def check_vocabulary(model: Any, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Raise a `ValueError` if the tokenizer knows tokens that the model has no embedding for."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ValueError(
            f"the tokenizer of {where!r} has {len(tokenizer)} tokens, but the model embeds only {rows}: they do not "
            "belong together. Give model.tokenizer the tokenizer this model was trained with, or resize the model's "
            "embeddings"
        )


def _check_directory(setting: str, where: str) -> None:
    """Raise a `ValueError` for what can only be a directory and is none; the hub would be asked for it in vain."""
    directory = Path(where)
    if not directory.exists() and (where.startswith((".", "/", "~")) or len(directory.parts) > 2):
        raise ValueError(f"{setting}={where!r} looks like a path, but there is no such directory")


def read_context_length(config: ModelConfig) -> int | None:
    """`Policy.context_length` without loading the weights.

    Raises:
        ValueError: there is no model.
    """
    _check_directory("model.path", config.path)
    path = adapted_path(config.path) or config.path
    try:
        found = AutoConfig.from_pretrained(path, revision=config.revision, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot find a causal language model in model.path={config.path!r}: {error}") from error
    return _positions(found)


def _positions(config: Any) -> int | None:
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def model_directories(config: ModelConfig) -> dict[str, Path]:
    """The local directories that loading reads: of the model, and of the tokenizer and adapted model if elsewhere."""
    named = {"model": config.path, "tokenizer": config.tokenizer, "adapted": adapted_path(config.path)}
    return {part: Path(where) for part, where in named.items() if where is not None and Path(where).is_dir()}


def hub_commit(config: ModelConfig) -> str | None:
    """The commit that a model on the hub is at; None for a local directory."""
    if Path(config.path).is_dir():
        return None
    found = cached_file(config.path, "config.json", revision=config.revision)
    return extract_commit_hash(found, None)


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer alone, as `load_policy` loads it.

    Raises:
        ValueError: there is none.
    """
    where, setting = config.tokenizer or config.path, "model.tokenizer" if config.tokenizer else "model.path"
    _check_directory(setting, where)
    directory = Path(where)
    if directory.is_dir() and not any(directory.glob("tokenizer*")) and not any(directory.glob("*vocab*")):
        raise ValueError(
            f"{where!r} holds no tokenizer (no tokenizer.json, tokenizer_config.json or vocab file). Save one there "
            "with tokenizer.save_pretrained(...), or name one with model.tokenizer"
        )
    try:
        return AutoTokenizer.from_pretrained(
            where,
            revision=None if config.tokenizer else config.revision,
            trust_remote_code=config.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot load a tokenizer from {setting}={where!r}: {error}") from error
