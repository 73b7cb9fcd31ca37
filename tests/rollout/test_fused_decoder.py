from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config, Qwen3Config

from grao.compat.torch_packed_linear import can_pack
from grao.compat.transformers_llama_step import LlamaLayer, can_fuse
from grao.rollout import LocalEngine, SamplingParams, local_engine
from grao.rollout.fused_decoder import FusedDecoder

pytestmark = pytest.mark.skipif(not can_pack(nn.Linear(4, 4)), reason="this CPU, or this torch, packs no weights")

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES),
    "llama, biases and wide heads": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, head_dim=24),
    "llama, llama3's frequencies, tied": LlamaConfig(**SIZES, rope_parameters=LLAMA3, tie_word_embeddings=True),
    "llama, one head a key": LlamaConfig(**{**SIZES, "num_key_value_heads": 4}),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=16, rms_norm_eps=1e-3),
}
PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7], [9, 3, 2, 3, 8]]
STEPS = 12


def model_of(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Random weights, norms and biases too: with ones and zeros a norm that is forgotten would not be noticed."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[name]))
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.normal_(1.0, 0.3)
    return model.to(dtype).eval()


def answers(rows: int) -> Tensor:
    return torch.randint(0, 96, (rows, STEPS), generator=torch.Generator().manual_seed(1))


def forwarded(model: PreTrainedModel, prompt: list[int], answer: list[int]) -> Tensor:
    """Logits after the prompt and after each token, by one full forward."""
    ids = torch.tensor([[*prompt, *answer]])
    return model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :]


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_logits(name: str) -> None:
    """Oracle: plain full forwards in float32, through rows that leave and a prompt that joins in the middle."""
    model, ids = model_of(name), answers(6)
    assert can_fuse(model)
    of_row = [0, 0, 0, 1, 2, 2]
    expected = [forwarded(model, PROMPTS[of_row[n]], ids[n].tolist()) for n in range(6)]
    decoder = FusedDecoder(model)
    rows, places = [0, 1, 2, 3], [0] * 6
    logits = decoder.join(PROMPTS[:2], [3, 1])
    for t in range(STEPS - 2):
        assert relative(logits, torch.stack([expected[n][places[n]] for n in rows])) <= 2e-6
        if t == 3:
            decoder.keep([0, 2, 3])
            rows, logits = [0, 2, 3], logits[[0, 2, 3]]
        if t == 5:
            logits, rows = torch.cat([logits, decoder.join(PROMPTS[2:], [2])]), [*rows, 4, 5]
        logits = decoder.step(torch.stack([ids[n, places[n]] for n in rows]))
        for n in rows:
            places[n] += 1
    assert rows == [0, 2, 3, 4, 5]


@torch.no_grad()
def test_in_bfloat16() -> None:
    """Oracle: a plain full forward of the same weights in float32; what is left is bfloat16's rounding of them all,
    and of the plain forward in bfloat16 it leaves as much."""
    model, ids = model_of("qwen3", torch.bfloat16), answers(1)
    expected = forwarded(model_of("qwen3").to(torch.bfloat16).float(), PROMPTS[1], ids[0].tolist())[: STEPS - 1]
    decoder = FusedDecoder(model)
    found = torch.cat([decoder.join(PROMPTS[1:2], [1]), *(decoder.step(ids[:, t]) for t in range(STEPS - 2))])
    plain = forwarded(model, PROMPTS[1], ids[0].tolist())[: STEPS - 1]
    assert found.dtype == torch.bfloat16
    assert relative(found, expected) <= 1.5 * relative(plain, expected) <= 0.05


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of decoders that samples are drawn with."""
    found: list[str] = []
    plain = local_engine.sample_completions

    def watched(decoder: Any, *others: Any, **options: Any) -> Any:
        found.append(type(decoder).__name__)
        return plain(decoder, *others, **options)

    monkeypatch.setattr(local_engine, "sample_completions", watched)
    return found


FUSED = {"qwen2", "qwen3", "llama"}
"""Of the families in conftest.py; Mistral's has a window."""


def test_which_families(
    family: str, build: Callable[..., PreTrainedModel], ask: Callable[..., Any], tokenizer: Any, kinds: list[str]
) -> None:
    """Oracle: the table above, and the same draws layer by layer: ids equal, log-probs to rounding."""
    model, requests = build(family), ask([3, 17, 9], 3)
    model.generation_config.eos_token_id = list(range(0, 256, 16))
    params = SamplingParams(max_new_tokens=16)
    samples = LocalEngine(model, tokenizer).sample(requests, params)
    plain = LocalEngine(model, tokenizer, packed=False).sample(requests, params)
    assert (kinds[0] == "FusedDecoder") is (family in FUSED)
    assert kinds[1] != "FusedDecoder"
    for members, others in zip(samples, plain, strict=True):
        for member, other in zip(members, others, strict=True):
            assert member.ids == other.ids
            assert member.logprobs == pytest.approx(other.logprobs, abs=5e-6)


def windowed(model: Any) -> Any:
    model.config.sliding_window = 8
    return model


def gelu(model: Any) -> Any:
    model.config.hidden_act = "gelu"
    return model


def adapted(model: Any) -> Any:
    with torch.random.fork_rng():
        return peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))


def replaced(model: Any) -> Any:
    model.model.layers[0].mlp.forward = lambda x: x
    return model


def of_another_class(model: Any) -> Any:
    class LlamaForCausalLM(type(model)):  # type: ignore[misc]
        pass

    model.__class__ = LlamaForCausalLM
    return model


@pytest.mark.parametrize(
    "change", [windowed, gelu, adapted, replaced, of_another_class, nn.Module.double], ids=lambda f: f.__name__
)
def test_what_is_not_fused(change: Callable[[Any], Any]) -> None:
    """Oracle: the definition: each is a Llama whose layers are something else. The Llama itself is fused."""
    assert can_fuse(model_of("llama"))
    assert not can_fuse(change(model_of("llama")))


def test_not_under_autocast() -> None:
    """Oracle: the definition."""
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_fuse(model_of("llama"))


def test_a_step_that_is_wrong_is_not_used(
    qwen: Any,
    ask: Callable[..., Any],
    tokenizer: Any,
    kinds: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Oracle: a step whose queries are scaled by a thousandth too much; one line says so, for two calls."""
    plain = LlamaLayer.step

    def wrong(self: Any, *state: Any) -> Tensor:
        self.scaling *= 1.001
        return plain(self, *state)

    monkeypatch.setattr(LlamaLayer, "step", wrong)
    engine = LocalEngine(qwen, tokenizer)
    with caplog.at_level(logging.WARNING, logger="grao"):
        for _ in range(2):
            engine.sample(ask([3, 5], 2), SamplingParams(max_new_tokens=3))
    assert kinds == ["GroupDecoder"] * 2
    assert caplog.text.count("samples layer by layer, not by fused steps: a check on a few tokens found logits") == 1


def test_weights_are_packed_again(qwen: Any, ask: Callable[..., Any], tokenizer: Any) -> None:
    """Oracle: an engine that never saw the old weights; those of a trainer change between two calls."""
    engine, params = LocalEngine(qwen, tokenizer), SamplingParams(max_new_tokens=6)
    old = engine.sample(ask([3, 5], 2), params)
    with torch.no_grad():
        for weight in qwen.parameters():
            weight.mul_(-1.01)
    new = engine.sample(ask([3, 5], 2), params)
    assert new == LocalEngine(qwen, tokenizer).sample(ask([3, 5], 2), params) != old
