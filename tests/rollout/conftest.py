"""Small models of many families, a byte-level tokenizer, and the oracle of sampling: a plain full forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    Qwen3NextConfig,
)

from grao.groups import Member
from grao.rollout import SampleRequest

MERGES = [("t", "h"), ("th", "e"), ("E", "N"), ("D", "!"), ("\u010a", "\u010a"), ("a", "E")]
"""Tokens of more than one byte, some of which begin or end within the stop strings of the tests."""

VOCABULARY = 272
"""Rows of the tests' embedding matrices: the tokenizer's 265 ids and some padding."""

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,  # spreads the logits: the next tokens' probabilities differ by orders of magnitude
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}

CONFIGS: dict[str, Callable[[], Any]] = {
    "qwen2": lambda: Qwen2Config(**SMALL),
    "qwen3": lambda: Qwen3Config(**SMALL),
    "llama": lambda: LlamaConfig(**SMALL),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=None,
    ),
    "qwen3_moe": lambda: Qwen3MoeConfig(**SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24),
    # Small caps and windows: with large ones a sampler that skips them would hardly be noticed.
    "gemma2": lambda: Gemma2Config(
        **SMALL,
        sliding_window=6,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
        query_pre_attn_scalar=8,
        attn_implementation="eager",
    ),
    "gemma3": lambda: Gemma3TextConfig(
        **SMALL,
        sliding_window=6,
        query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "mistral_window": lambda: MistralConfig(**SMALL, sliding_window=6),
    "deepseek_v3": lambda: DeepseekV3Config(
        **{**SMALL, "num_key_value_heads": 4, "head_dim": 4},
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=4,
        qk_nope_head_dim=8,
        v_head_dim=8,
        n_routed_experts=4,
        n_shared_experts=1,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=24,
        first_k_dense_replace=1,
    ),
    "qwen3_next": lambda: Qwen3NextConfig(
        **SMALL,
        layer_types=["linear_attention", "full_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        shared_expert_intermediate_size=24,
    ),
}


SHARES_PROMPTS = {
    "qwen2": True,
    "qwen3": True,
    "llama": True,
    "gpt2": True,
    "qwen3_moe": True,
    "gemma2": True,
    "gemma3": True,
    "mistral_window": True,
    "deepseek_v3": True,
    "qwen3_next": False,
}
"""Whether a family's prompts are kept once for all their samples; one that should and does not is a defect."""


@pytest.fixture(scope="session", params=CONFIGS)
def family(request: pytest.FixtureRequest) -> str:
    """Every family in turn."""
    return request.param


@pytest.fixture(scope="session")
def shares_prompts(family: str) -> bool:
    """Whether this family's prompts are kept once."""
    return SHARES_PROMPTS[family]


@pytest.fixture(scope="session")
def build() -> Callable[..., PreTrainedModel]:
    """A random model of a family; its weights are drawn under a fork of the global generator."""

    def build(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return AutoModelForCausalLM.from_config(CONFIGS[family](), experts_implementation="eager").to(dtype).eval()

    return build


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, a few merges, and the special tokens <eos>, <pad> and <turn>; 265 ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(left + right for left, right in MERGES)]
    bytes_ = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=MERGES))
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=bytes_,
        eos_token="<eos>",
        pad_token="<pad>",
        additional_special_tokens=["<turn>"],
    )


@pytest.fixture
def qwen(build: Callable[..., PreTrainedModel]) -> PreTrainedModel:
    return build("qwen3")


@pytest.fixture(scope="session")
def ask() -> Callable[..., list[SampleRequest]]:
    """Requests with prompts of these lengths, of unlike tokens, and with unlike seeds."""

    def ask(lengths: Sequence[int], samples: int) -> list[SampleRequest]:
        return [
            SampleRequest(
                prompt_ids=tuple((7 * i + 31 * j + 13) % 256 for j in range(length)),
                seeds=tuple(1000 * i + g for g in range(samples)),
            )
            for i, length in enumerate(lengths)
        ]

    return ask


@pytest.fixture(scope="session")
def teacher_forced() -> Callable[..., torch.Tensor]:
    """log-probs of a member's tokens by one full forward of prompt and member: no cache, no padding, no batch."""

    @torch.no_grad()
    def teacher_forced(
        model: PreTrainedModel, prompt: Sequence[int], member: Member, temperature: float = 1.0
    ) -> torch.Tensor:
        ids = torch.tensor([[*prompt, *member.ids]])
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        logprobs = (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(-1)
        return logprobs.gather(-1, torch.tensor(member.ids)[:, None])[:, 0]

    return teacher_forced
