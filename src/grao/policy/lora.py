"""Low-rank adapters through peft. The frozen policy is then the base with its adapters off, without a copy."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel


@dataclass(frozen=True)
class LoRA:
    """Low-rank adaptation (arXiv 2106.09685): W + (α/r)·B·A, where only A and B are trained."""

    r: int = 16
    """Rank of the update."""
    alpha: int = 32
    """α; the update is scaled by α/r."""
    dropout: float = 0.0
    """Dropout of the adapters' input in training."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of the layers that get adapters, or `all-linear` for every linear layer except the head."""


def add_adapters(model: PreTrainedModel, lora: LoRA) -> PeftModel:
    """Return the model with new adapters (B = 0, so that the policy starts as the base)."""
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type=TaskType.CAUSAL_LM,
    )
    model.enable_input_require_grads()  # activation checkpointing needs an input to differentiate
    return get_peft_model(model, config)


def adapted_path(path: str) -> str | None:
    """Return the path of the model that the adapters in a directory were trained on; None without adapters."""
    file = Path(path) / "adapter_config.json"
    if not file.is_file():
        return None
    return str(json.loads(file.read_bytes())["base_model_name_or_path"])


def has_adapters(model: Any) -> bool:
    """Return whether the model is wrapped by peft."""
    return isinstance(model, PeftModel)


def adapters_off(model: PeftModel) -> AbstractContextManager[None]:
    """Return a context in which the model is its base."""
    return model.disable_adapter()
