"""log-probs by the token stream against those by padded rows, which test_scorer.py holds against plain forwards."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as tf
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from grao.compat.transformers_attention import AttentionRefusedError
from grao.groups import Group, GroupBatch, Member, collate
from grao.policy import FrozenPolicy, LoRA, group_logprobs, install_scoring
from grao.policy.logprobs import padded_logprobs, stream_logprobs
from grao.policy.lora import add_adapters
from grao.policy.scorer import scorer_of
from grao.policy.shared_prompt_attention import attend_to_shared_prompts
from grao.policy.stream_attention import NAME, Longest, StreamMask, attend_one_by_one, attend_stream, stream_mask
from grao.policy.stream_check import two_groups
from grao.policy.token_layout import token_stream

float64_throughout = pytest.mark.usefixtures("float64_throughout")


def hard_batch() -> GroupBatch:
    """What can go wrong in one batch.

    A prompt of one token, members of one token, a member with holes (the first token and one amid), a masked member, a
    group that is masked whole, a missing reference, members of equal length, and lengths from 1 to 21.
    """

    def member(start: int, length: int, finish: str = "stop") -> Member:
        return Member(tuple(2 + (start + 5 * i * i) % 48 for i in range(length)), "", finish)  # type: ignore[arg-type]

    groups = [
        Group(0, "", (7,), (member(1, 6), member(2, 1)), member(3, 9)),
        Group(1, "", tuple(range(3, 16)), (member(4, 21), member(5, 7, "length")), None),
        Group(2, "", (5, 9, 8), (member(6, 4, "length"), member(7, 3, "length")), None),
        Group(3, "", (30, 4, 11, 12), (member(8, 5), member(9, 5)), member(10, 1)),
    ]
    batch = collate(groups, pad_token_id=0, mask_truncated=True)
    mask = batch.mask_PMT.clone()
    mask[0, 0, 0] = mask[0, 0, 3] = False
    return batch.with_(mask_PMT=mask)


BATCHES: dict[str, Callable[[SimpleNamespace], GroupBatch]] = {
    "hard": lambda tiny: hard_batch(),
    "random": lambda tiny: tiny.random_batch(5),
}


def assert_agree(tiny: SimpleNamespace, model: Any, batch: GroupBatch, tolerance: float, **options: float) -> None:
    """log-probs and entropies within `tolerance` nats, gradients within it relative to their size."""
    ours, theirs = stream_logprobs(model, batch, **options), padded_logprobs(model, batch, **options)
    assert (ours.logprobs_PMT - theirs.logprobs_PMT).abs().max().item() <= tolerance
    assert (ours.entropy_PMT - theirs.entropy_PMT).abs().max().item() <= tolerance
    gradients = [tiny.gradients(model, out.logprobs_PMT) for out in (ours, theirs)]
    assert tiny.relative(*gradients) <= tolerance


# --- the layout ------------------------------------------------------------------------------------------------------


def test_a_stream_worked_by_hand() -> None:
    """Oracle: written out. Prompt 5 6 with members 7 8 9 (a hole at 8), 10 and a masked one; prompt 11 with 12 13."""
    groups = [
        Group(0, "", (5, 6), (Member((7, 8, 9), "", "stop"), Member((10,), "", "stop")), Member((14, 15), "")),
        Group(1, "", (16, 17), (Member((18,), "", "length"), Member((19,), "", "length")), None),
        Group(2, "", (11,), (Member((12, 13), "", "stop"), Member((20,), "", "length")), None),
    ]
    batch = collate(groups, pad_token_id=0, mask_truncated=True, mask_reference=True)
    mask = batch.mask_PMT.clone()
    mask[0, 0, 1] = False
    stream = token_stream(batch.with_(mask_PMT=mask))
    assert stream is not None
    assert stream.ids_1N.tolist() == [[5, 6, 7, 8, 11, 12]]
    assert stream.positions_1N.tolist() == [[0, 1, 2, 3, 0, 1]]
    assert stream.segments == ((2, (2,)), (1, (1,)))
    assert stream.tokens_K.tolist() == [7, 9, 10, 12, 13]
    assert stream.places_K.tolist() == [1, 3, 1, 4, 5]


def test_no_stream_without_a_token() -> None:
    """Oracle: by definition."""
    batch = hard_batch()
    assert token_stream(batch.with_(mask_PMT=torch.zeros_like(batch.mask_PMT))) is None


def test_only_real_tokens_run(tiny: SimpleNamespace) -> None:
    """Oracle: counted by hand for `hard_batch`: prompts 1 + 13 + 4; members 5 + 0 + 8, 20, 4 + 4 + 0; one row."""
    model = tiny.tiny_model()
    shapes: list[torch.Size] = []
    model.model.register_forward_pre_hook(lambda _, __, kw: shapes.append(kw["input_ids"].shape), with_kwargs=True)
    group_logprobs(model, hard_batch())
    assert shapes == [(1, 18 + 13 + 20 + 8)]


# --- equal to padded rows --------------------------------------------------------------------------------------------


@float64_throughout
@pytest.mark.parametrize("batch", sorted(BATCHES))
def test_equals_padded_rows(tiny: SimpleNamespace, family: str, batch: str) -> None:
    """Oracle: padded rows of the same batch in float64: log-probs, entropies, gradients of every weight."""
    assert_agree(tiny, tiny.tiny_model(family), BATCHES[batch](tiny), 1e-12)


def test_float32_stays_close(tiny: SimpleNamespace, family: str) -> None:
    """Oracle: padded rows in float32; ten times rounding's share over two layers."""
    assert_agree(tiny, tiny.tiny_model(family, dtype=torch.float32), hard_batch(), 1e-5)


PROMISED = ("qwen2", "qwen3", "llama", "mistral", "gemma2", "gemma3", "qwen3_moe", "deepseek_v3", "gpt2")


@pytest.mark.parametrize("kind", ["weights", "adapters", "checkpointing"])
@pytest.mark.parametrize("batch", sorted(BATCHES))
@pytest.mark.parametrize("family", PROMISED)
def test_float32_differs_by_rounding_alone(tiny: SimpleNamespace, family: str, kind: str, batch: str) -> None:
    """Oracle: padded rows in float32: ‖a − b‖ ≤ 2e-6 ‖b‖, over all log-probs and over all gradients."""
    model, groups = tiny.tiny_model(family, dtype=torch.float32).train(), BATCHES[batch](tiny)
    if kind == "adapters":
        model = add_adapters(model, LoRA(r=2))
        generator = torch.Generator().manual_seed(3)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # 0 at first: then A has no gradient
                torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    elif kind == "checkpointing":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    ours, theirs = (path(model, groups).logprobs_PMT for path in (stream_logprobs, padded_logprobs))
    assert ours.dtype == torch.float32
    assert ((ours - theirs).norm() / theirs.norm()).item() <= 2e-6
    assert tiny.relative(tiny.gradients(model, ours), tiny.gradients(model, theirs)) <= 2e-6


@float64_throughout
@pytest.mark.parametrize(
    ("family", "implementation"),
    [("qwen3", "eager"), ("qwen3", "sdpa"), ("gemma2", "eager")],  # transformers' sdpa has no cap
)
def test_any_attention_that_the_model_was_loaded_with(tiny: SimpleNamespace, family: str, implementation: str) -> None:
    """Oracle: padded rows with that attention; its name is in the config again afterwards."""
    model = tiny.tiny_model(family, scored=False)
    model.set_attn_implementation(implementation)
    install_scoring(model, "stream")
    assert_agree(tiny, model, hard_batch(), 1e-12)
    assert model.config._attn_implementation == implementation


@float64_throughout
@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_temperature(tiny: SimpleNamespace, family: str) -> None:
    """Oracle: padded rows at the same temperature, which differ from those at 1."""
    model = tiny.tiny_model(family)
    assert_agree(tiny, model, hard_batch(), 1e-12, temperature=0.6)
    difference = stream_logprobs(model, hard_batch(), temperature=0.6).logprobs_PMT
    assert (difference - stream_logprobs(model, hard_batch()).logprobs_PMT).abs().max().item() > 0.1


@pytest.mark.parametrize("reentrant", [False, True])
def test_with_activation_checkpointing(tiny: SimpleNamespace, family: str, reentrant: bool) -> None:
    """Oracle: the stream without it. Layers run again in the backward pass, after the model's forward has ended."""
    model = tiny.tiny_model(family).train()
    batch = hard_batch()
    plain = stream_logprobs(model, batch).logprobs_PMT
    expected = tiny.gradients(model, plain)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.enable_input_require_grads()
    calls = counted_calls(model)
    ours = stream_logprobs(model, batch).logprobs_PMT
    assert torch.equal(ours, plain)
    once = len(calls)
    assert tiny.relative(tiny.gradients(model, ours), expected) <= 1e-12
    assert len(calls) == 2 * once > 0  # they did run again


def counted_calls(model: Any) -> list[None]:
    """Grows by one whenever an attention layer runs."""
    calls: list[None] = []
    for module in model.modules():
        if module._forward_pre_hooks and hasattr(module, "is_causal"):
            module.register_forward_pre_hook(lambda *_: calls.append(None))
    return calls


def test_checkpointing_needs_the_layers_to_follow_the_segments(tiny: SimpleNamespace) -> None:
    """Oracle: the same model without its layers' hooks: in the backward pass sdpa is handed a mask that is none."""
    model = tiny.tiny_model().train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for module in model.modules():
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()
    out = stream_logprobs(model, hard_batch()).logprobs_PMT.sum()
    with pytest.raises((TypeError, AttributeError), match="StreamMask"):
        out.backward()


@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "deepseek_v3"])
def test_with_adapters(tiny: SimpleNamespace, family: str, request: pytest.FixtureRequest) -> None:
    """Oracle: padded rows of the adapted model, and of its base for adapters off; the stream without checkpointing."""
    batch, bare = hard_batch(), tiny.tiny_model(family)
    model = add_adapters(tiny.tiny_model(family), LoRA(r=2)).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # 0 at first: then adapters would not matter
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(3))
    expected = tiny.gradients(model, stream_logprobs(model, batch).logprobs_PMT)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert tiny.relative(tiny.gradients(model, stream_logprobs(model, batch).logprobs_PMT), expected) <= 1e-12
    model.gradient_checkpointing_disable()
    request.getfixturevalue("float64_throughout")
    assert_agree(tiny, model, batch, 1e-12)
    adapted = group_logprobs(model, batch).logprobs_PMT
    base = padded_logprobs(bare, batch).logprobs_PMT
    with model.disable_adapter():
        assert (group_logprobs(model, batch).logprobs_PMT - base).abs().max().item() <= 1e-12
    assert (adapted - base).abs().max().item() > 0.1


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "deepseek_v3"])
def test_under_autocast(tiny: SimpleNamespace, family: str) -> None:
    """Oracle: padded rows under bfloat16 autocast. Both round 3 digits: 0.1 nats, and 5 % of the gradient's size."""
    model, batch = tiny.tiny_model(family, dtype=torch.float32), hard_batch()
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = stream_logprobs(model, batch).logprobs_PMT, padded_logprobs(model, batch).logprobs_PMT
    assert ours.dtype == torch.float32
    assert (ours - theirs).abs().max().item() <= 0.1
    assert tiny.relative(tiny.gradients(model, ours), tiny.gradients(model, theirs)) <= 0.05


def test_twice_the_same_bits(tiny: SimpleNamespace, family: str) -> None:
    """Oracle: the first run: log-probs, entropies and gradients, bit for bit."""
    runs = []
    for _ in range(2):
        model = tiny.tiny_model(family, dtype=torch.float32)
        out = group_logprobs(model, hard_batch())
        runs.append((out.logprobs_PMT, out.entropy_PMT, tiny.gradients(model, out.logprobs_PMT)))
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])
    assert all(torch.equal(runs[0][2][name], gradient) for name, gradient in runs[1][2].items())


# --- what is seen ----------------------------------------------------------------------------------------------------


@float64_throughout
@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_a_window_smaller_than_the_prompt_hides_tokens(tiny: SimpleNamespace, family: str) -> None:
    """Oracle: the same weights without a window: equal while all is in sight (8 tokens), different beyond."""
    windowed, open_ = tiny.tiny_model(family, scored=False), tiny.tiny_model(family, scored=False)
    open_.config.sliding_window = 1000
    for module in open_.modules():
        if getattr(module, "sliding_window", None):
            module.sliding_window = 1000
    batch = hard_batch()
    for model in (windowed, open_):
        install_scoring(model, "stream")
        assert_agree(tiny, model, batch, 1e-12)
    difference = (group_logprobs(windowed, batch).logprobs_PMT - group_logprobs(open_, batch).logprobs_PMT).abs()
    assert difference[3].max().item() <= 1e-12  # a prompt of 4, members of 5: the last prediction reads 8 tokens
    assert difference[1, 0][batch.mask_PMT[1, 0]].min().item() > 1e-4  # a prompt of 13


def assert_padded(model: Any) -> None:
    """Log-probs are those of padded rows, bit for bit."""
    ours, theirs = group_logprobs(model, hard_batch()), padded_logprobs(model, hard_batch())
    assert torch.equal(ours.logprobs_PMT, theirs.logprobs_PMT)


def leaky(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *, stream_segments: Any = None, **given: Any
) -> Any:
    """Attention in which each member also sees the members before it in its group."""
    told = tuple((prompt + sum(members), ()) for prompt, members in stream_segments)
    return attend_stream(module, query, key, value, attention_mask, stream_segments=told, **given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_members_that_see_each_other_are_found(
    tiny: SimpleNamespace,
    family: str,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Oracle: a planted error: the start-up check finds it on fresh weights, says so once, and falls back."""
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, NAME, leaky)
    config = tiny.CONFIGS[family]()
    config.initializer_range = 0.02  # as models are initialised: attention hardly matters yet
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(config).to(dtype)
    install_scoring(model)
    assert not scorer_of(model).streams
    [line] = [r.message for r in caplog.records if r.name.startswith("grao")]
    assert line.startswith(f"{type(model).__name__} is scored by padded rows, not as a stream: a check on a few")
    assert_padded(model)
    again = tf.AutoModelForCausalLM.from_config(config).to(dtype)
    with pytest.raises(ValueError, match=r"cannot be scored as a stream.*model\.scoring to auto or padded"):
        install_scoring(again, "stream")


def test_the_check_has_what_it_is_for() -> None:
    """Oracle: two groups, one lacking a reference; members of one token and of several, uneven and even."""
    batch = two_groups(50, torch.device("cpu"))
    assert batch.lengths_PM.tolist() == [[4, 1, 6], [5, 5, 0]]
    assert batch.prompt_mask_PS.sum(1).tolist() == [3, 5]


def test_the_check_leaves_no_trace(tiny: SimpleNamespace) -> None:
    """Oracle: the state before: training, attention, gradients, the global generator."""
    model = tiny.tiny_model(scored=False).train()
    torch.manual_seed(5)
    install_scoring(model, "stream")
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert all(p.grad is None for p in model.parameters())
    assert model.config._attn_implementation == "sdpa"
    assert all(m.training for m in model.modules())


# --- refused ---------------------------------------------------------------------------------------------------------


def small(**changes: Any) -> dict[str, Any]:
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "pad_token_id": 0, "eos_token_id": 1}
    return {**sizes, **changes}


HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 24}

REFUSED: dict[str, tuple[Callable[[], tf.PretrainedConfig], str]] = {
    "dropout": (
        lambda: tf.Qwen2Config(**small(**HEADS), attention_dropout=0.1),
        "it drops attention weights out in training (attention_dropout = 0.1)",
    ),
    "sinks": (
        lambda: tf.GptOssConfig(
            **small(**HEADS), head_dim=8, num_local_experts=4, num_experts_per_tok=2, experts_implementation="eager"
        ),
        "its attention takes arguments that are unknown here: s_aux",
    ),
    "convolutions": (
        lambda: tf.Lfm2Config(**small(**HEADS), layer_types=["conv", "full_attention"]),
        "it has layers of kind conv, which are not attention to a sequence's tokens",
    ),
    "state space": (
        lambda: tf.MambaConfig(**small(), state_size=4),
        "its attention is outside transformers' attention interface",
    ),
    "ALiBi": (
        lambda: tf.BloomConfig(vocab_size=50, hidden_size=16, n_layer=2, n_head=4),
        "its attention is outside transformers' attention interface",
    ),
}


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_models_that_cannot_be_streamed(tiny: SimpleNamespace, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Oracle: one line with the reason, log-probs by padded rows; an error where the stream was asked for."""
    make, reason = REFUSED[kind]
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(make()).eval()
    name = type(model).__name__
    with caplog.at_level(logging.WARNING):
        install_scoring(model)
    assert [r.message for r in caplog.records if r.name.startswith("grao")] == [
        f"{name} is scored by padded rows, not as a stream: {reason}"
    ]
    expected, _ = tiny.plain_logprobs(model, hard_batch())
    assert (group_logprobs(model, hard_batch()).logprobs_PMT - expected).abs().max().item() <= 1e-5
    with pytest.raises(ValueError, match=f"{name} cannot be scored as a stream") as raised:
        install_scoring(tf.AutoModelForCausalLM.from_config(make()), "stream")
    assert reason in str(raised.value)


def test_padded_rows_may_be_asked_for(tiny: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    """Oracle: silence, padded rows bit for bit; other names are refused."""
    model = tiny.tiny_model(scoring="padded")
    assert not [r for r in caplog.records if r.name.startswith("grao")]
    assert_padded(model)
    with pytest.raises(ValueError, match="scoring is 'rows'; it must be one of auto, stream, padded"):
        tiny.tiny_model(scoring="rows")


@pytest.mark.parametrize("scoring", ["auto", "stream"])
def test_a_refusal_in_the_middle_of_training(
    tiny: SimpleNamespace, scoring: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Oracle: padded rows with the same dropout (same seed); one line, once; an error where a stream was asked for."""
    model, plain = tiny.tiny_model(scoring=scoring).train(), tiny.tiny_model(scoring="padded").train()
    for each in (model, plain):
        for layer in each.model.layers:
            layer.self_attn.attention_dropout = 0.25
    if scoring == "stream":
        with pytest.raises(ValueError, match=r"drops attention weights out in training \(p = 0.25\)"):
            group_logprobs(model, hard_batch())
        assert model.config._attn_implementation == "sdpa"
        return
    for _ in range(2):
        torch.manual_seed(1)
        ours = group_logprobs(model, hard_batch()).logprobs_PMT
        torch.manual_seed(1)
        assert torch.equal(ours, group_logprobs(plain, hard_batch()).logprobs_PMT)
    assert [r.message for r in caplog.records if r.name.startswith("grao")] == [
        "Qwen2ForCausalLM is scored by padded rows, not as a stream: "
        "it drops attention weights out in training (p = 0.25)"
    ]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"position_bias": torch.zeros(1)}, "unknown here: position_bias"),
        ({"head_mask": 1, "cache": 2, "use_cache": False, "position_ids": 3}, "unknown here: cache, head_mask"),
        ({"is_causal": False}, "not causal"),
        ({"dropout": 0.5}, "p = 0.5"),
        ({"sliding_window": 4}, "a sliding window that its mask does not have"),
        ({"stream_segments": None}, "not handed the mask and the segments"),
        ({"attention_mask": torch.ones(1, 1, 5, 5)}, "not handed the mask and the segments"),
        ({"attention_mask": StreamMask(lambda b, h, q, k: k <= q + 1)}, "look ahead"),
    ],
)
def test_what_attention_refuses(given: dict[str, Any], reason: str) -> None:
    """Oracle: by definition; the call without it is computed."""
    arguments: dict[str, Any] = {
        "attention_mask": stream_mask(),
        "stream_segments": ((2, (3,)),),
        "sliding_window": 5,
        "use_cache": False,
        "head_mask": None,
    }
    x = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    out, weights = attend_stream(torch.nn.Identity(), x, x, x, **arguments)
    assert out.shape == (1, 5, 2, 4)
    assert weights is None
    with pytest.raises(AttentionRefusedError, match=reason):
        attend_stream(torch.nn.Identity(), x, x, x, **{**arguments, **given})


SEGMENTS = ((3, (4, 1)), (1, ()), (6, (2, 5, 5)))


def heads(seed: int, count: int) -> torch.Tensor:
    """[1, count, 27, 4]: queries, keys or values of a stream of `SEGMENTS`."""
    tokens = sum(prompt + sum(members) for prompt, members in SEGMENTS)
    x = torch.randn(1, count, tokens, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.requires_grad_()


def looked_at() -> torch.Tensor:
    """[27, 27], by a loop over `SEGMENTS`: a token sees its prompt and its own part, and nothing later."""
    owner = []
    for group, (prompt, members) in enumerate(SEGMENTS):
        owner += [(group, None)] * prompt
        owner += [(group, member) for member, length in enumerate(members) for _ in range(length)]
    return torch.tensor(
        [[k <= q and a[0] == b[0] and b[1] in (None, a[1]) for k, b in enumerate(owner)] for q, a in enumerate(owner)]
    )


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float) -> torch.Tensor:
    """One softmax over all the keys that a query sees: [1, 27, heads, 4]."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = (q @ k.transpose(2, 3) * scaling).masked_fill(~looked_at(), -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("attention", ["parts", "one by one"])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_causal_attention_of_a_stream(attention: str, key_heads: int) -> None:
    """Oracle: one masked softmax in float64: outputs and gradients, with shared keys and a prompt without members."""
    q, k, v = heads(0, 4), heads(1, key_heads), heads(2, key_heads)
    q.data *= 3
    if attention == "parts":
        ours = attend_to_shared_prompts(q, k, v, SEGMENTS, 0.7)
    else:  # as under windows and caps
        ours = attend_one_by_one(q, k, v, SEGMENTS, stream_mask(), 0.7, None)
    theirs = plain_attention(q, k, v, 0.7)
    assert (ours - theirs).abs().max().item() <= 1e-13
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    gradients = [torch.autograd.grad((x * weights).sum(), (q, k, v)) for x in (ours, theirs)]
    for a, b in zip(*gradients, strict=True):
        assert (a - b).abs().max().item() <= 1e-13


def test_parts_hold_nothing_twice() -> None:
    """Oracle: what autograd saves, by storage: queries, keys, values, the output and a normaliser a query."""
    q, k, v = heads(0, 4), heads(1, 2), heads(2, 2)
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x), x)[1], lambda x: x):
        out = attend_to_shared_prompts(q, k, v, SEGMENTS, None)
    assert sorted(x.numel() for x in saved) == sorted(x.numel() for x in (q, k, v, out, q[..., 0]))
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.grad(out.sum(), q, create_graph=True)


@pytest.mark.parametrize("rule", ["causal", "window"])
def test_masks_are_no_larger_than_what_is_read(rule: str) -> None:
    """Oracle: the rule written out for each part; elements counted: a row a token of the longest member if causal."""

    def window(b: Any, h: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (k <= q) & (k > q - 4)

    mask = stream_mask() if rule == "causal" else StreamMask(window)
    device, longest = torch.device("cpu"), Longest.of(((100, (3, 5)), (20, (7,)), (2, ())))
    assert longest == (100, 7, 105)
    for start, length in ((100, 3), (100, 5), (20, 7)):
        q, k = start + torch.arange(length)[:, None], torch.arange(start + length)[None]
        expected = torch.zeros(length, start + length)
        expected[~(k <= q if rule == "causal" else window(0, 0, q, k))] = -torch.inf
        assert torch.equal(mask.mask(start, length, longest, torch.float32, device), expected)
    table = mask.mask(2, 1, longest, torch.float32, device).untyped_storage()
    assert table.nbytes() == 4 * (7 * 107 if rule == "causal" else 105 * 105)


def test_a_mask_function_of_the_models_own_is_refused() -> None:
    """Oracle: by definition: transformers says `use_vmap` where a function cannot be asked about indices at once."""
    with pytest.raises(AttentionRefusedError, match="a function of its own"):
        stream_mask(mask_function=lambda *_: True, use_vmap=True)


def test_a_model_that_looks_ahead_is_refused(tiny: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    """Oracle: transformers' switch for attention in both directions: a prompt would depend on its member."""
    torch.manual_seed(0)
    config = tiny.CONFIGS["qwen2"]()
    config.is_causal = False
    model = tf.AutoModelForCausalLM.from_config(config)
    install_scoring(model)
    [line] = [r.message for r in caplog.records if r.name.startswith("grao")]
    assert "its attention is not causal" in line
    assert not scorer_of(model).streams


# --- in company ------------------------------------------------------------------------------------------------------


def test_a_deep_copy_scores_with_its_own_weights(tiny: SimpleNamespace) -> None:
    """Oracle: log-probs before the original's weights were changed; both models' attention is as it was."""
    model = tiny.tiny_model()
    before = group_logprobs(model, hard_batch()).logprobs_PMT.detach()
    frozen = FrozenPolicy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    assert torch.equal(frozen.logprobs(hard_batch()), before)
    assert (group_logprobs(model, hard_batch()).logprobs_PMT - before).abs().max().item() > 0.1
    twin = copy.deepcopy(model).train()
    twin.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    gradients = [tiny.gradients(m, stream_logprobs(m, hard_batch()).logprobs_PMT) for m in (twin, model)]
    assert tiny.relative(*gradients) == 0
    assert twin.config._attn_implementation == model.config._attn_implementation == "sdpa"


def test_inside_distributed_data_parallel(tiny: SimpleNamespace) -> None:
    """Oracle: the bare model's gradients; the wrapper's own forward runs, so that its reducer sees every weight."""
    model = tiny.tiny_model()
    expected = tiny.gradients(model, group_logprobs(model, hard_batch()).logprobs_PMT)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(model)
        reduced: list[int] = []

        def hook(state, bucket):  # type: ignore[no-untyped-def]  # the reducer reads annotations
            reduced.append(bucket.buffer().numel())
            future: Any = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        wrapped.register_comm_hook(None, hook)
        gradients = tiny.gradients(wrapped, group_logprobs(wrapped, hard_batch()).logprobs_PMT)
    finally:
        distributed.destroy_process_group()
    assert sum(reduced) == sum(p.numel() for p in model.parameters())
    assert tiny.relative({n.removeprefix("module."): g for n, g in gradients.items()}, expected) == 0


def test_a_model_that_was_never_taught_is_named(tiny: SimpleNamespace) -> None:
    """Oracle: the message."""
    with pytest.raises(ValueError, match="Qwen2ForCausalLM cannot score: call install_scoring"):
        group_logprobs(tiny.tiny_model(scored=False), hard_batch())


# --- mixtures of experts ---------------------------------------------------------------------------------------------


@float64_throughout
@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral"])
def test_router_loss_is_over_the_tokens_that_ran(tiny: SimpleNamespace, family: str) -> None:
    """Oracle: transformers' loss of the router logits that plain forwards give, each token of the stream once.

    So it is not that of padded rows, where a prompt counts once a member and last tokens run too.
    """
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    model, batch = tiny.tiny_model(family).train(), hard_batch()
    out = stream_logprobs(model, batch)
    layers: list[list[torch.Tensor]] = [[], []]
    for p in range(len(batch)):
        prompt = batch.prompt_ids_PS[p][batch.prompt_mask_PS[p]]
        first = True
        for m in range(batch.ids_PMT.shape[1]):
            places = batch.mask_PMT[p, m].nonzero()[:, 0]
            if len(places) == 0:
                continue
            ids = torch.cat([prompt, batch.ids_PMT[p, m, : int(places.max())]])
            routed = model(input_ids=ids[None], output_router_logits=True, use_cache=False).router_logits
            for layer, logits in zip(layers, routed, strict=True):
                layer.append(logits[0 if first else len(prompt) :])
            first = False
    config = model.config
    experts = getattr(config, "num_experts", None) or config.num_local_experts
    theirs = load_balancing_loss_func(tuple(map(torch.cat, layers)), experts, config.num_experts_per_tok)
    assert out.router_loss is not None
    assert out.router_loss.item() == pytest.approx(theirs.item(), abs=1e-12)
    assert tiny.relative(tiny.gradients(model, out.router_loss), tiny.gradients(model, theirs)) <= 1e-12
    assert abs(padded_logprobs(model, batch).router_loss.item() - theirs.item()) > 1e-3
