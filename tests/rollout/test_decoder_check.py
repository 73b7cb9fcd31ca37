"""A model that would decode otherwise with its prompts kept once is noticed, and drawn from with padded rows."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from grao.compat import rounding_check
from grao.compat.transformers_attention import AttentionRefusedError
from grao.compat.transformers_llama_step import can_fuse
from grao.rollout import LocalEngine, SamplingParams, group_attention, local_engine
from grao.rollout.decoder import GroupDecoder, PaddedDecoder
from grao.rollout.decoder_check import STEPS, check_group_decoder

PARAMS = SamplingParams(max_new_tokens=8)


def unknown_argument(model: Any) -> None:
    """Attention that is handed what ours does not know, in the last layer only."""
    model.model.layers[-1].self_attn.register_forward_pre_hook(
        lambda _, args, given: (args, {**given, "temperature": torch.ones(1)}), with_kwargs=True
    )


def ignores_positions(model: Any) -> None:
    """A forward that counts positions by itself, from its own cache."""
    model.model.register_forward_pre_hook(
        lambda _, args, given: (args, {**given, "position_ids": None}), with_kwargs=True
    )


def differs_without_cache(model: Any) -> None:
    """Hidden states that are 0.1 % larger in the second dimension where no cache is kept."""

    def scale(_: nn.Module, __: Any, given: dict[str, Any], output: Any) -> None:
        if not given.get("use_cache"):
            output.last_hidden_state[..., 1] *= 1.001

    model.model.register_forward_hook(scale, with_kwargs=True)


def looks_into_its_mask(model: Any) -> None:
    """A forward that computes with the mask."""
    model.model.layers[0].register_forward_pre_hook(
        lambda _, args, given: (
            (args, {**given, "attention_mask": given["attention_mask"].clone()})
            if given.get("attention_mask") is not None
            else None
        ),
        with_kwargs=True,
    )


def window_beside_its_mask(model: Any) -> None:
    """Attention with a window which its masks do not have."""
    for layer in model.model.layers:
        layer.self_attn.sliding_window = 2


def fixed_arguments(model: Any) -> None:
    """A forward without room for arguments of ours."""
    forward = model.forward

    def narrow(input_ids, attention_mask=None, position_ids=None, past_key_values=None, use_cache=None, **others):
        if "group_cache" in others:
            raise TypeError("forward() got an unexpected keyword argument 'group_cache'")
        return forward(input_ids, attention_mask, position_ids, past_key_values, use_cache=use_cache, **others)

    model.forward = narrow


def own_switch(model: Any) -> None:
    """Logits of which the last prompt token's are not what is asked for by place."""
    forward = model.forward

    def shifted(*args: Any, logits_to_keep: Any = 0, **given: Any) -> Any:
        keep = logits_to_keep if isinstance(logits_to_keep, int) else (logits_to_keep - 1).clamp(min=0)
        return forward(*args, logits_to_keep=keep, **given)

    model.forward = shifted


DEFECTS: dict[Callable[[Any], None], str] = {
    unknown_argument: "unknown here: temperature",
    ignores_positions: "logits that differ from",
    differs_without_cache: "logits that differ from",
    looks_into_its_mask: r"cannot do without \(AttributeError",
    window_beside_its_mask: "sliding window that its mask does not have",
    fixed_arguments: r"cannot do without \(TypeError: .*group_cache",
    own_switch: "logits that differ from",
}


@pytest.mark.parametrize(("plant", "reason"), DEFECTS.items(), ids=[defect.__name__ for defect in DEFECTS])
def test_a_planted_defect_is_noticed(
    plant: Callable[[Any], None],
    reason: str,
    qwen: PreTrainedModel,
    ask: Callable[..., Any],
    tokenizer: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Oracle: draws of the same model by padded rows, without a check; and one line in the log, in two calls."""
    with torch.no_grad():
        check_group_decoder(qwen)  # without the defect it is fine
    plant(qwen)
    with torch.no_grad(), pytest.raises(AttentionRefusedError, match=reason):
        check_group_decoder(qwen)

    def refuse(_: PreTrainedModel) -> None:
        raise AttentionRefusedError("the test says so")

    with monkeypatch.context() as patch:
        patch.setattr(local_engine, "check_group_decoder", refuse)
        expected = LocalEngine(qwen, tokenizer).sample(ask([3, 9], 3), PARAMS)
    caplog.clear()
    caplog.set_level(logging.INFO, logger="grao")
    engine = LocalEngine(qwen, tokenizer)
    for _ in range(2):
        assert engine.sample(ask([3, 9], 3), PARAMS) == expected
    [record] = [r for r in caplog.records if r.name.startswith("grao")]
    assert record.levelno == logging.WARNING
    assert "Qwen3ForCausalLM samples with a copy of the prompt in every row" in record.getMessage()


@pytest.mark.parametrize(
    "changed",
    [
        {"scaling": 8**-0.5 * 1.01},
        {"softcap": 5.0},
    ],
)
def test_a_small_error_of_attention_is_noticed(
    changed: dict[str, float], qwen: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: negative control; scores 1 % too large, or capped where the model's are not."""

    def attend(*args: Any, **given: Any) -> Any:
        return group_attention.attend(*args, **{**given, **changed})

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, group_attention.NAME, attend)
    with torch.no_grad(), pytest.raises(AttentionRefusedError, match="logits that differ from"):
        check_group_decoder(qwen)


@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_nan_is_no_agreement(layers: int, qwen: Any) -> None:
    """Oracle: by definition; NaN is not below a tolerance."""
    qwen.model.layers[layers - 1].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(AttentionRefusedError, match="differ from those of padded rows by nan"):
        check_group_decoder(qwen)


@pytest.fixture
def a_tenth_of_the_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    tolerance = {dtype: x / 10 for dtype, x in rounding_check.TOLERANCE.items()}
    monkeypatch.setattr(rounding_check, "TOLERANCE", tolerance)


@pytest.mark.usefixtures("a_tenth_of_the_tolerance")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@torch.no_grad()
def test_every_family_passes_in_every_dtype(
    family: str, shares_prompts: bool, build: Callable[..., PreTrainedModel], dtype: torch.dtype
) -> None:
    """Oracle: the table of families in conftest.py, and what the tolerance claims: rounding makes a tenth of it."""
    model = build(family, dtype)
    if not shares_prompts:
        with pytest.raises(AttentionRefusedError, match="outside transformers' attention interface"):
            check_group_decoder(model)
        return
    check_group_decoder(model)


@pytest.mark.usefixtures("a_tenth_of_the_tolerance")
@torch.no_grad()
def test_under_autocast(family: str, shares_prompts: bool, build: Callable[..., PreTrainedModel]) -> None:
    """Oracle: the same; weights in float32, products in bfloat16, whose rounding is no defect."""
    with torch.autocast("cpu", torch.bfloat16):
        if shares_prompts:
            check_group_decoder(build(family))
        else:
            with pytest.raises(AttentionRefusedError):
                check_group_decoder(build(family))


def state(model: PreTrainedModel) -> dict[str, Any]:
    """All that a check might leave behind."""
    return {
        "weights": {name: x.clone() for name, x in [*model.named_parameters(), *model.named_buffers()]},
        "gradients": [p.grad for p in model.parameters()],
        "flags": [p.requires_grad for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "attributes": [set(vars(m)) for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "config": copy.deepcopy(model.config.to_dict()),
        "attention": model.config._attn_implementation,
        "generation": model.generation_config.to_dict(),
        "generator": torch.get_rng_state(),
    }


def assert_no_trace(model: PreTrainedModel, tokenizer: Any) -> None:
    before = state(model)
    LocalEngine(model, tokenizer).sample([], PARAMS)
    after = state(model)
    for name, x in before.pop("weights").items():
        assert torch.equal(after["weights"][name], x)
    assert torch.equal(after["generator"], before.pop("generator"))
    assert {name: after[name] for name in before} == before


def test_a_check_leaves_no_trace(family: str, build: Any, tokenizer: Any) -> None:
    """Oracle: weights, buffers, modes, attributes, hooks, configuration and generator before; in training mode."""
    assert_no_trace(build(family).train(), tokenizer)


@pytest.mark.parametrize("defect", [unknown_argument, differs_without_cache, looks_into_its_mask])
def test_a_refusal_leaves_no_trace(defect: Callable[[Any], None], qwen: PreTrainedModel, tokenizer: Any) -> None:
    """Oracle: the same, where the check ends in the attention, in the model, and in the comparison."""
    defect(qwen)
    assert_no_trace(qwen.train(), tokenizer)


def test_an_error_of_the_model_is_not_taken_for_an_answer(
    qwen: PreTrainedModel, ask: Callable[..., Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: counting; a check that was cut short is made again, and the model is not trusted in between."""
    checks: list[str] = []

    def interrupted(_: PreTrainedModel) -> None:
        checks.append("interrupted")
        raise KeyboardInterrupt

    engine = LocalEngine(qwen, tokenizer)
    with monkeypatch.context() as patch:
        patch.setattr(local_engine, "check_group_decoder", interrupted)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                engine.sample(ask([3], 1), PARAMS)
    assert checks == ["interrupted"] * 2
    engine.sample(ask([3], 1), PARAMS)


def test_a_model_is_checked_once(
    qwen: PreTrainedModel, build: Any, ask: Callable[..., Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: counting; once per model, at any sync, and again for another."""
    checked: list[tuple[PreTrainedModel, str]] = []

    def check(model: PreTrainedModel, kind: type = GroupDecoder) -> None:
        checked.append((model, kind.__name__))

    monkeypatch.setattr(local_engine, "check_group_decoder", check)
    engine, other = LocalEngine(qwen, tokenizer), build("llama")
    for model in (qwen, qwen, other, other):
        engine.sync(model, "")
        engine.sample(ask([3], 1), PARAMS)
    kinds = ["GroupDecoder", "FusedDecoder"] if can_fuse(qwen) else ["GroupDecoder"]
    assert checked == [(model, kind) for model in (qwen, other) for kind in kinds]


@torch.no_grad()
def test_the_oracle_pads_nothing(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the masks that padded rows are given in a check: none. Gemma 2 in float64 is NaN where one is padded."""
    masks: list[Tensor | None] = []
    join = PaddedDecoder.join

    def watched(self: PaddedDecoder, prompts: Any, counts: Any) -> Tensor:
        logits = join(self, prompts, counts)
        masks.append(self._mask)
        return logits

    monkeypatch.setattr(PaddedDecoder, "join", watched)
    check_group_decoder(build("gemma2", torch.float64))
    assert masks == [None, None]


@torch.no_grad()
def test_what_is_compared(qwen: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: counting; prompts of unequal lengths, one with several rows, steps in which the rows' ids differ."""
    joined: list[tuple[list[int], list[int]]] = []
    stepped: list[list[int]] = []
    join, step = GroupDecoder.join, GroupDecoder.step
    monkeypatch.setattr(
        GroupDecoder,
        "join",
        lambda self, prompts, counts: (joined.append(([*map(len, prompts)], counts)), join(self, prompts, counts))[1],
    )
    monkeypatch.setattr(GroupDecoder, "step", lambda self, ids: (stepped.append(ids.tolist()), step(self, ids))[1])
    check_group_decoder(qwen)
    assert joined == [([3, 5], [2, 1])]
    assert len(stepped) == STEPS - 1 == 2
    assert all(len(set(ids)) == 3 for ids in stepped)
