"""What may be replaced inside models of transformers, and what must be refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Llama4TextConfig,
    LlamaConfig,
    PreTrainedModel,
    Qwen3Config,
)
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    causal_mask_function,
    sliding_window_causal_mask_function,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from grao.compat.transformers_attention import (
    AttentionRefusedError,
    attention_layers,
    avoid_uncapped_attention,
    check_attention_arguments,
    check_replaceable,
    is_causal_rule,
    register_attention,
    use_attention,
    use_attention_with_keyword,
)

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def made(config: Any) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture
def name() -> Any:
    """A name that is free, and free again afterwards."""
    name = "grao_test"
    yield name
    for table in (ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS):
        type(table)._global_mapping.pop(name, None)


class TestRegister:
    @torch.no_grad()
    def test_a_model_asks_both(self, name: str) -> None:
        """Oracle: counting what is called: a mask for the forward, and attention in each layer, which gets that mask;
        within `use_attention`, and nowhere else."""
        model, ids, asked = made(LlamaConfig(**SIZES)), torch.arange(5)[None], []
        usual = ALL_ATTENTION_FUNCTIONS["sdpa"]

        def attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **others: Any) -> Any:
            asked.append(mask)
            return usual(module, query, key, value, None, is_causal=True, **others)

        register_attention(name, attention, lambda **given: SimpleNamespace(rule=given["mask_function"]))
        before = model(ids).logits
        assert asked == []
        with use_attention(model.config, name):
            torch.testing.assert_close(model(ids).logits, before)
        assert len(asked) == 2
        assert asked[0] is asked[1]
        assert is_causal_rule(asked[0].rule)
        model(ids)
        assert len(asked) == 2

    def test_the_name_comes_back(self) -> None:
        """Oracle: the name before; in nested use, and after an error."""
        config = LlamaConfig(**SIZES, attn_implementation="eager")
        with use_attention(config, "outer"):
            with use_attention(config, "inner"):
                assert config._attn_implementation == "inner"
            assert config._attn_implementation == "outer"
        assert config._attn_implementation == "eager"
        with pytest.raises(KeyError), use_attention(config, "outer"):
            raise KeyError
        assert config._attn_implementation == "eager"


class TestKeyword:
    @torch.no_grad()
    def test_layers_follow_the_keyword(self, name: str) -> None:
        """Oracle: the config's attention as each layer's attention sees it, and after a call that fails."""
        model, seen = made(LlamaConfig(**SIZES)), []

        def attention(module: Any, query: Any, *_: Any, marker: Any = None, **__: Any) -> Any:
            seen.append((module.config._attn_implementation, marker))
            if marker == "broken":
                raise KeyError("broken")
            return query.transpose(1, 2), None

        register_attention(name, attention, lambda **_: None)
        use_attention_with_keyword(model, name, "marker")
        model(torch.arange(5)[None])
        assert seen == []
        model(torch.arange(5)[None], marker=3)
        assert seen == [(name, 3)] * 2
        assert model.config._attn_implementation == "sdpa"
        with pytest.raises(KeyError):
            model(torch.arange(5)[None], marker="broken")
        assert model.config._attn_implementation == "sdpa"

    def test_which_modules_are_attention_layers(self) -> None:
        """Oracle: the layers' own names: those that hold a config, the model itself and its backbone aside."""
        model = made(LlamaConfig(**SIZES))
        named = {id(module): name for name, module in model.named_modules()}
        found = [named[id(layer)] for layer in attention_layers(model)]
        assert {"model.layers.0.self_attn", "model.layers.1.self_attn"} <= set(found)
        assert not {"", "model"} & set(found)


class TestCaps:
    @torch.no_grad()
    @pytest.mark.parametrize("implementation", ["sdpa", "eager"])
    def test_capped_scores_are_never_left_to_sdpa(self, implementation: str) -> None:
        """Oracle: the same weights under eager attention, which caps; sdpa would ignore the cap without a word."""
        config = Gemma2Config(**SIZES, attn_logit_softcapping=0.1, initializer_range=1.0)
        capped = made(config)
        capped.set_attn_implementation("eager")
        expected = capped(torch.arange(9)[None]).logits
        model = made(config)
        model.config._attn_implementation = implementation  # as transformers 5.17 chooses by itself
        avoid_uncapped_attention(model)
        assert model.config._attn_implementation == "eager"
        assert torch.equal(model(torch.arange(9)[None]).logits, expected)

    def test_other_models_keep_theirs(self) -> None:
        """Oracle: the name before."""
        model = made(LlamaConfig(**SIZES))
        avoid_uncapped_attention(model)
        assert model.config._attn_implementation == "sdpa"


def test_the_causal_rule() -> None:
    """Oracle: transformers' own functions; a window hides more than what comes later."""
    assert is_causal_rule(causal_mask_function)
    assert not is_causal_rule(sliding_window_causal_mask_function(4))
    assert not is_causal_rule(lambda batch, head, query, key: key <= query)  # may be, but who knows


class TestReplaceable:
    @pytest.mark.parametrize(
        "config",
        [
            LlamaConfig(**SIZES),
            Qwen3Config(**SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=1),
            Llama4TextConfig(**SIZES, num_local_experts=2, attn_temperature_tuning=False, attention_chunk_size=8),
        ],
        ids=["full", "sliding", "chunked"],
    )
    def test_attention_to_a_sequence(self, config: Any) -> None:
        """Oracle: transformers' configurations: full, sliding and chunked attention are rules about places."""
        check_replaceable(made(config))

    def test_attention_outside_the_interface(self) -> None:
        """Oracle: the message; Bloom computes attention in its own code."""
        config = BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2)
        with pytest.raises(AttentionRefusedError, match="outside transformers' attention interface"):
            check_replaceable(made(config))

    def test_models_of_several_models(self) -> None:
        """Oracle: the message; text and vision have a configuration each."""
        config = Gemma3Config(
            text_config={**SIZES, "layer_types": ["full_attention"] * 2},
            vision_config={
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 28,
                "patch_size": 14,
            },
        )
        with torch.device("meta"), pytest.raises(AttentionRefusedError, match="made of several models"):
            check_replaceable(Gemma3ForConditionalGeneration(config))

    def test_layers_that_are_no_attention(self) -> None:
        """Oracle: the message names the kind of layer."""
        model = made(LlamaConfig(**SIZES))
        model.config.layer_types = ["full_attention", "linear_attention"]
        with pytest.raises(AttentionRefusedError, match="kind linear_attention"):
            check_replaceable(model)

    def test_attention_that_counts_places_itself(self) -> None:
        """Oracle: the message; Llama 4's scale depends on what its own cache holds, beyond 8192 tokens."""
        config = Llama4TextConfig(**SIZES, num_local_experts=2, attn_temperature_tuning=True)
        with pytest.raises(AttentionRefusedError, match="attn_temperature_tuning"):
            check_replaceable(made(config))


class TestArguments:
    @pytest.mark.parametrize(
        ("dropout", "is_causal", "others", "reason"),
        [
            (0.1, None, {}, r"drops attention weights out in training \(p = 0.1\)"),
            (0.0, False, {}, "not causal"),
            (0.0, None, {"s_aux": torch.zeros(2)}, "unknown here: s_aux"),
            (0.0, None, {"b": 0, "a": 0.0, "position_ids": None}, "unknown here: a, b"),
            (0.0, True, {"head_mask": torch.ones(2)}, "unknown here: head_mask"),
            (0.0, None, {"softmax_scale": True}, "unknown here: softmax_scale"),
        ],
    )
    def test_what_would_be_ignored_is_refused(
        self, dropout: float, is_causal: bool | None, others: dict[str, Any], reason: str
    ) -> None:
        """Oracle: the message names it; a number is an answer even where it is zero."""
        with pytest.raises(AttentionRefusedError, match=reason):
            check_attention_arguments(dropout, is_causal, others)

    @pytest.mark.parametrize("is_causal", [True, None])
    def test_what_changes_nothing_passes(self, is_causal: bool | None) -> None:
        """Oracle: by definition; unset arguments, switches that are off, and what the tensors say already."""
        others = {"output_attentions": False, "head_mask": None, "position_ids": torch.arange(3), "use_cache": True}
        check_attention_arguments(0.0, is_causal, others)
