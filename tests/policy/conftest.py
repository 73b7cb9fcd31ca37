"""Tiny random models of every family, random groups, and the plain way to score them: one full forward a sequence."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor

from grao.groups import Group, GroupBatch, Member, collate
from grao.policy import Scoring, install_scoring

VOCABULARY = 50
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # large, so that log-probs differ and a wrong place would show
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
WINDOW = {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8}
EXPERTS = {"num_experts_per_tok": 2, "router_aux_loss_coef": 0.02, "output_router_logits": True}

CONFIGS: dict[str, Callable[[], tf.PretrainedConfig]] = {
    "qwen2": lambda: tf.Qwen2Config(**SIZES),
    "qwen3": lambda: tf.Qwen3Config(**SIZES, head_dim=8),
    "llama": lambda: tf.LlamaConfig(**SIZES, tie_word_embeddings=True),
    "gpt2": lambda: tf.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=16,
        n_layer=2,
        n_head=4,
        n_positions=64,
        initializer_range=0.3,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=1,
    ),
    "gemma2": lambda: tf.Gemma2Config(**SIZES, **WINDOW, attn_logit_softcapping=5.0, final_logit_softcapping=0.7),
    "gemma3": lambda: tf.Gemma3TextConfig(
        **SIZES, **WINDOW, layer_types=["sliding_attention", "full_attention"], final_logit_softcapping=None
    ),
    "mistral": lambda: tf.MistralConfig(**SIZES, sliding_window=8),
    "cohere": lambda: tf.CohereConfig(**SIZES, logit_scale=0.0625),
    "granite": lambda: tf.GraniteConfig(**SIZES, logits_scaling=8.0),
    "qwen3_moe": lambda: tf.Qwen3MoeConfig(
        **SIZES, head_dim=8, moe_intermediate_size=12, num_experts=6, **EXPERTS, experts_implementation="eager"
    ),
    "mixtral": lambda: tf.MixtralConfig(**SIZES, num_local_experts=6, **EXPERTS, experts_implementation="eager"),
    "deepseek_v3": lambda: tf.DeepseekV3Config(
        **{**SIZES, "num_key_value_heads": 4},
        moe_intermediate_size=12,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=8,
        v_head_dim=8,
        n_shared_experts=1,
        experts_implementation="eager",
    ),
}


def tiny_model(
    family: str = "qwen2",
    *,
    scored: bool = True,
    scoring: Scoring = "auto",
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Any:
    """A tiny random model of a family, ready to score groups."""
    torch.manual_seed(seed)
    model = tf.AutoModelForCausalLM.from_config(CONFIGS[family]()).to(dtype).eval()
    if scored:
        install_scoring(model, scoring)
    return model


def random_batch(seed: int = 0, *, P: int = 3, G: int = 3, longest: int = 11) -> GroupBatch:
    """Groups of many lengths: some members masked, a reference missing, a mask with a hole."""
    rng = random.Random(seed)

    def member(finish: str = "given") -> Member:
        return Member(tuple(rng.randrange(2, VOCABULARY) for _ in range(rng.randint(1, longest))), "", finish)  # type: ignore[arg-type]

    groups = [
        Group(
            row,
            "",
            tuple(rng.randrange(2, VOCABULARY) for _ in range(rng.randint(1, longest))),
            tuple(member("length" if rng.random() < 0.2 else "stop") for _ in range(G)),
            reference=None if row == 1 else member(),
        )
        for row in range(P)
    ]
    batch = collate(groups, pad_token_id=0, mask_truncated=True)
    mask = batch.mask_PMT.clone()
    mask[0, 0, 0] = False  # a hole
    return batch.with_(mask_PMT=mask)


def plain_logprobs(
    model: Any, batch: GroupBatch, temperature: float = 1.0, *, entropy_grad: bool = False
) -> tuple[Tensor, Tensor]:
    """log-probs and entropies [P, M, T], member by member: no padding, no chunks, the model's own logits."""
    rows, entropies = [], []
    T = batch.ids_PMT.shape[2]
    for p in range(len(batch)):
        prompt = batch.prompt_ids_PS[p][batch.prompt_mask_PS[p]]
        for m in range(batch.ids_PMT.shape[1]):
            places = batch.mask_PMT[p, m].nonzero()[:, 0]
            zeros = torch.zeros(T, dtype=model.dtype)
            if len(places) == 0:
                rows.append(zeros)
                entropies.append(zeros)
                continue
            length = int(places.max()) + 1
            ids = torch.cat([prompt, batch.ids_PMT[p, m, :length]])
            logits = model(input_ids=ids[None], use_cache=False).logits[0, len(prompt) - 1 : -1] / temperature
            chosen = logits.log_softmax(-1).gather(-1, ids[len(prompt) :, None])[:, 0]
            entropy = torch.distributions.Categorical(logits=logits).entropy()
            rows.append(zeros.index_put((places,), chosen[places]))
            entropy = entropy if entropy_grad else entropy.detach()
            entropies.append(zeros.index_put((places,), entropy[places]))
    shape = batch.ids_PMT.shape
    return torch.stack(rows).reshape(shape), torch.stack(entropies).reshape(shape)


def gradients(model: Any, logprobs_PMT: Tensor) -> dict[str, Tensor]:
    """Gradients of a fixed random weighting of the log-probs, by parameter name."""
    weights = torch.randn(logprobs_PMT.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    model.zero_grad(set_to_none=True)
    (logprobs_PMT * weights.to(logprobs_PMT.dtype)).sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def relative(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Relative difference of two gradients, over all parameters together."""
    assert ours.keys() == theirs.keys()
    a, b = (torch.cat([g[n].flatten() for n in theirs]) for g in (ours, theirs))
    assert b.norm() > 0
    return ((a - b).norm() / b.norm()).item()


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """Everything above, for test modules (a conftest cannot be imported)."""
    functions = (tiny_model, random_batch, plain_logprobs, gradients, relative)
    return SimpleNamespace(CONFIGS=CONFIGS, VOCABULARY=VOCABULARY, **{f.__name__: f for f in functions})


@pytest.fixture(scope="session", params=sorted(CONFIGS))
def family(request: pytest.FixtureRequest) -> str:
    return request.param
