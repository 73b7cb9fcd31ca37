"""The shape of a base model: its family and sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from transformers import LlamaConfig, PretrainedConfig, PreTrainedTokenizerBase, Qwen3Config, Qwen3MoeConfig


@dataclass(frozen=True)
class ModelSpec:
    """Family and sizes, named as in transformers. The defaults train in seconds on a CPU."""

    family: str = "llama"
    """A name in `FAMILIES`."""
    hidden_size: int = 64
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_key_value_heads: int = 4
    intermediate_size: int = 192
    """Width of a feed-forward block; in a sparse family, of a token's two experts together."""
    max_position_embeddings: int = 128
    """Longest prompt with its completion, in tokens."""
    initializer_range: float = 0.02
    """Standard deviation of the initial weights; 0.05 suits a width of 64."""

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"unknown model family {self.family!r}: choose one of {', '.join(FAMILIES)}")
        if self.hidden_size % self.num_attention_heads or self.hidden_size // self.num_attention_heads % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size} over num_attention_heads {self.num_attention_heads} must be an "
                f"even whole number: each head rotates its dimensions in pairs"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} must be a multiple of num_key_value_heads "
                f"{self.num_key_value_heads}"
            )

    def config(self, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
        """Return the transformers configuration, with the tokenizer's vocabulary, padding and end of sequence."""
        sizes = {name: size for name, size in asdict(self).items() if name != "family"}
        return FAMILIES[self.family](
            **sizes,
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=True,
        )


def _qwen3(**sizes: Any) -> PretrainedConfig:
    # The default head_dim of the family is 128; a small model needs the quotient.
    return Qwen3Config(head_dim=sizes["hidden_size"] // sizes["num_attention_heads"], **sizes)


def _qwen3_moe(**sizes: Any) -> PretrainedConfig:
    """Return a config with six experts, two per token, in every layer: the dense model's compute per token.

    `output_router_logits` stays off in the saved config, and training passes it: with it on, transformers' `generate`
    fails on a padded batch, as it applies the whole prompt's mask to the router's one new token.
    """
    return Qwen3MoeConfig(
        num_experts=6,
        num_experts_per_tok=2,
        moe_intermediate_size=sizes["intermediate_size"] // 2,
        decoder_sparse_step=1,
        norm_topk_prob=True,
        router_aux_loss_coef=0.01,
        **sizes,
    )


FAMILIES: dict[str, Callable[..., PretrainedConfig]] = {"llama": LlamaConfig, "qwen3": _qwen3, "qwen3_moe": _qwen3_moe}
"""Family → config. Qwen2 is left out: AutoTokenizer puts the Qwen2 pre-tokenizer on every saved tokenizer of that
type, so our words would silently become other tokens."""
