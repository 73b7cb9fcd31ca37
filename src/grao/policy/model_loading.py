"""Load a policy from a hub id or a path: model, tokenizer, adapters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file, extract_commit_hash

from grao.policy.lora import LoRA, adapted_path, add_adapters
from grao.policy.scorer import Scoring, install_scoring

Dtype = Literal["float32", "bfloat16", "float16", "auto"]


@dataclass(frozen=True)
class ModelConfig:
    """The model to align, and how to load it."""

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
    """Weight of the load-balancing loss of a mixture of experts; `router_aux_loss_coef` of its config by default."""
    scoring: Scoring = "auto"
    """How log-probs are computed. `stream`: each prompt once for its whole group, no padding; an error where the model
    does not allow it. `padded`: one row per member. `auto`: the stream where it is exact, else padded rows."""
    trust_remote_code: bool = False
    """Run code that comes with the model."""


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A model ready to be trained and scored, with its tokenizer."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    context_length: int | None
    """Longest sequence the model takes, in tokens; None if its config does not say."""


def load_policy(config: ModelConfig) -> LoadedPolicy:
    """Load model and tokenizer, check that they belong together, add adapters.

    Raises:
        ValueError: There is no such model or no tokenizer, the tokenizer has more tokens than the model has
            embeddings, or the model cannot be scored as `scoring` says.
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
    return LoadedPolicy(model, tokenizer, context_length)


def check_vocabulary(model: Any, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Check that the model has an embedding for every token of the tokenizer.

    Raises:
        ValueError: It has not.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ValueError(
            f"the tokenizer of {where!r} has {len(tokenizer)} tokens, but the model embeds only {rows}. Set "
            "model.tokenizer to the one this model was trained with, or resize the model's embeddings."
        )


def _check_directory(setting: str, where: str) -> None:
    """Raise a `ValueError` for what can only be a directory and is none, before the hub is asked for it."""
    directory = Path(where)
    if not directory.exists() and (where.startswith((".", "/", "~")) or len(directory.parts) > 2):
        raise ValueError(f"{setting}={where!r} looks like a path, but there is no such directory")


def read_context_length(config: ModelConfig) -> int | None:
    """`LoadedPolicy.context_length` without loading the weights.

    Raises:
        ValueError: There is no model.
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
    """Return the local directories that loading reads: of the model, and of a separate tokenizer or adapted model."""
    named = {"model": config.path, "tokenizer": config.tokenizer, "adapted": adapted_path(config.path)}
    return {part: Path(where) for part, where in named.items() if where is not None and Path(where).is_dir()}


def hub_commit(config: ModelConfig) -> str | None:
    """Return the commit of a model on the hub; None for a local directory."""
    if Path(config.path).is_dir():
        return None
    found = cached_file(config.path, "config.json", revision=config.revision)
    return extract_commit_hash(found, None)


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer alone, as `load_policy` does.

    Raises:
        ValueError: There is none.
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
