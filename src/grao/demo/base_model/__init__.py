"""Small base models trained from scratch, saved as ordinary transformers directories."""

from grao.demo.base_model.base_model_config import BaseModelConfig, base_model_from_config, main_from_config
from grao.demo.base_model.model_spec import FAMILIES, ModelSpec
from grao.demo.base_model.pretraining import TrainedBase, train_base_model
from grao.demo.base_model.small_tokenizers import bpe_tokenizer, word_tokenizer

__all__ = [
    "FAMILIES",
    "BaseModelConfig",
    "ModelSpec",
    "TrainedBase",
    "base_model_from_config",
    "bpe_tokenizer",
    "main_from_config",
    "train_base_model",
    "word_tokenizer",
]
