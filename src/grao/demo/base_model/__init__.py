"""Base models trained on the spot: a tokenizer, a shape, a few hundred steps, an ordinary transformers directory."""

from grao.experiments.base_model.recipe import BaseModelConfig, base_model_from_config, main_from_config
from grao.experiments.base_model.spec import FAMILIES, ModelSpec
from grao.experiments.base_model.tokenizer import bpe_tokenizer, text_tokenizer, word_tokenizer
from grao.experiments.base_model.train import TrainedBase, train_base_model

__all__ = [
    "FAMILIES",
    "BaseModelConfig",
    "ModelSpec",
    "TrainedBase",
    "base_model_from_config",
    "bpe_tokenizer",
    "main_from_config",
    "text_tokenizer",
    "train_base_model",
    "word_tokenizer",
]
