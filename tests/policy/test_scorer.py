"""log-probs of groups against one plain forward a sequence, for every family of models and both layouts."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as tf
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from grao.groups import Group, Member, collate
from grao.policy import group_logprobs, install_scoring, router_coefficient
from grao.policy.scorer import scorer_of

TOLERANCE = 1e-12
float64_throughout = pytest.mark.usefixtures("float64_throughout")


def assert_equals_plain(tiny: SimpleNamespace, model: Any, batch: Any, temperature: float = 1.0) -> None:
    """log-probs, entropies and gradients against one full forward a sequence."""
    out = group_logprobs(model, batch, temperature=temperature)
    expected, entropy = tiny.plain_logprobs(model, batch, temperature)
    assert (out.logprobs_PMT - expected).abs().max().item() <= TOLERANCE
    assert (out.entropy_PMT - entropy).abs().max().item() <= TOLERANCE
    assert not out.entropy_PMT.requires_grad
    assert tiny.relative(tiny.gradients(model, out.logprobs_PMT), tiny.gradients(model, expected)) <= TOLERANCE


@float64_throughout
@pytest.mark.parametrize("scoring", ["stream", "padded"])
def test_equals_a_plain_forward(tiny: SimpleNamespace, family: str, scoring: str) -> None:
    """Oracle: each sequence alone through the model's own logits, entropies by torch.distributions.Categorical."""
    model = tiny.tiny_model(family, scoring=scoring)
    assert scorer_of(model).head_in_chunks
    assert scorer_of(model).streams == (scoring == "stream")
    assert_equals_plain(tiny, model, tiny.random_batch())


@float64_throughout
@pytest.mark.parametrize("kind", ["tiles", "chunks", "whole logits"])
@pytest.mark.parametrize("scoring", ["stream", "padded"])
def test_the_gradient_of_the_entropy(tiny: SimpleNamespace, kind: str, scoring: str) -> None:
    """Oracle: autograd through each sequence's own logits; asking for it changes no value."""
    if kind == "whole logits":
        torch.manual_seed(0)
        model: Any = sharpened(tf.Qwen2ForCausalLM)(tiny.CONFIGS["qwen2"]()).double().eval()
        install_scoring(model, scoring)  # type: ignore[arg-type]
    else:
        model = tiny.tiny_model("qwen3" if kind == "tiles" else "gemma2", scoring=scoring)
    batch = tiny.random_batch()
    out, constant = (group_logprobs(model, batch, temperature=0.8, entropy_grad=asked) for asked in (True, False))
    assert torch.equal(out.logprobs_PMT, constant.logprobs_PMT)
    assert torch.equal(out.entropy_PMT, constant.entropy_PMT)
    _, entropy = tiny.plain_logprobs(model, batch, 0.8, entropy_grad=True)
    assert (out.entropy_PMT - entropy).abs().max().item() <= TOLERANCE
    assert tiny.relative(tiny.gradients(model, out.entropy_PMT), tiny.gradients(model, entropy)) <= TOLERANCE
    nothing = batch.with_(mask_PMT=torch.zeros_like(batch.mask_PMT))
    assert group_logprobs(model, nothing, entropy_grad=True).entropy_PMT.requires_grad


@float64_throughout
@pytest.mark.parametrize("temperature", [0.7, 1.3])
@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_temperature_divides_the_logits(tiny: SimpleNamespace, family: str, temperature: float) -> None:
    """Oracle: the plain forward with its logits divided (after the cap, where the model caps)."""
    model, batch = tiny.tiny_model(family), tiny.random_batch(1)
    assert_equals_plain(tiny, model, batch, temperature)
    difference = group_logprobs(model, batch).logprobs_PMT - group_logprobs(model, batch, temperature=0.7).logprobs_PMT
    assert difference.abs().max() > 0.1


@pytest.mark.parametrize("family", ["qwen2", "gemma3", "qwen3_moe"])
def test_with_gradient_checkpointing(tiny: SimpleNamespace, family: str) -> None:
    """Oracle: the same without it; layers recomputed in the backward pass change neither values nor gradients."""
    model, batch = tiny.tiny_model(family).train(), tiny.random_batch(2)
    plain = group_logprobs(model, batch).logprobs_PMT
    expected = tiny.gradients(model, plain)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    ours = group_logprobs(model, batch).logprobs_PMT
    assert torch.equal(ours, plain)
    assert tiny.relative(tiny.gradients(model, ours), expected) <= TOLERANCE


def test_float32_stays_close(tiny: SimpleNamespace, family: str) -> None:
    """Oracle: the same weights in float64; float32 rounding over two layers stays under 5e-5 nats."""
    single, double = tiny.tiny_model(family, dtype=torch.float32), tiny.tiny_model(family)
    batch = tiny.random_batch(3)
    ours = group_logprobs(single, batch).logprobs_PMT
    assert ours.dtype == torch.float32
    assert (ours - group_logprobs(double, batch).logprobs_PMT).abs().max().item() <= 5e-5


def test_bfloat16_weights_give_float32_logprobs(tiny: SimpleNamespace) -> None:
    """Oracle: log-softmax in float32 of the model's own bfloat16 logits, sequence by sequence."""
    model, batch = tiny.tiny_model(dtype=torch.bfloat16), tiny.random_batch(3)
    out = group_logprobs(model, batch)
    assert out.logprobs_PMT.dtype == out.entropy_PMT.dtype == torch.float32
    lone = batch.select([2])
    prompt = lone.prompt_ids_PS[0][lone.prompt_mask_PS[0]]
    member = lone.ids_PMT[0, 3][lone.mask_PMT[0, 3]]
    logits = model(input_ids=torch.cat([prompt, member])[None]).logits[0, len(prompt) - 1 : -1].float()
    expected = logits.log_softmax(-1).gather(-1, member[:, None])[:, 0]
    ours = out.logprobs_PMT[2, 3][batch.mask_PMT[2, 3]]
    assert (ours - expected).abs().max().item() <= 0.05


def test_nothing_where_masked(tiny: SimpleNamespace) -> None:
    """Oracle: by definition 0 at every masked place, log-prob and entropy; negative and positive elsewhere."""
    batch = tiny.random_batch()
    out = group_logprobs(tiny.tiny_model(), batch)
    assert (~batch.mask_PMT).sum() > 10
    assert out.logprobs_PMT[~batch.mask_PMT].abs().max().item() == 0
    assert out.entropy_PMT[~batch.mask_PMT].abs().max().item() == 0
    assert out.logprobs_PMT[batch.mask_PMT].max().item() < 0
    assert out.entropy_PMT[batch.mask_PMT].min().item() > 0


def test_padding_and_company_do_not_matter(tiny: SimpleNamespace, family: str) -> None:
    """Oracle: each group alone; other pad ids and wider padding around it change nothing."""
    model, batch = tiny.tiny_model(family), tiny.random_batch(4)
    whole = group_logprobs(model, batch).logprobs_PMT
    pad = torch.nn.functional.pad
    wide = batch.with_(
        ids_PMT=pad(batch.ids_PMT.where(batch.mask_PMT, torch.tensor(9)), (0, 4), value=17),
        mask_PMT=pad(batch.mask_PMT, (0, 4)),
        prompt_ids_PS=pad(batch.prompt_ids_PS, (0, 5), value=23),
        prompt_mask_PS=pad(batch.prompt_mask_PS, (0, 5)),
    )
    mask = batch.mask_PMT.clone()
    mask[0, 0] = False  # that member has a hole, whose token is read, though not scored
    T = batch.ids_PMT.shape[2]
    assert (group_logprobs(model, wide).logprobs_PMT[..., :T] - whole)[mask].abs().max().item() <= 1e-6
    for p in range(len(batch)):
        alone = batch.select([p])
        T = alone.ids_PMT.shape[2]
        assert (group_logprobs(model, alone).logprobs_PMT[0] - whole[p, :, :T]).abs().max().item() <= 1e-6


def test_a_masked_member_costs_no_compute(tiny: SimpleNamespace) -> None:
    """Oracle: rows that enter the model by padded rows, counted: one for each member with a token in the loss."""
    model, batch = tiny.tiny_model(scoring="padded"), tiny.random_batch()
    shapes: list[torch.Size] = []
    model.model.register_forward_pre_hook(lambda _, __, kw: shapes.append(kw["input_ids"].shape), with_kwargs=True)
    group_logprobs(model, batch)
    assert shapes[0][0] == int(batch.mask_PMT.any(-1).sum()) < batch.mask_PMT.shape[0] * batch.mask_PMT.shape[1]


def test_a_batch_with_nothing_to_score(tiny: SimpleNamespace) -> None:
    """Oracle: zeros, whose gradient exists and is 0 for every parameter (a distributed wrapper waits for it)."""
    group = Group(0, "", (5, 6), (Member((7,), "", "length"), Member((8, 9), "", "length")))
    batch = collate([group], pad_token_id=0, mask_truncated=True)
    model = tiny.tiny_model()
    out = group_logprobs(model, batch)
    assert out.logprobs_PMT.tolist() == [[[0.0, 0.0], [0.0, 0.0]]]
    gradients = tiny.gradients(model, out.logprobs_PMT)
    assert gradients.keys() == {n for n, _ in model.named_parameters()}
    assert all(g.abs().max().item() == 0 for g in gradients.values())


def test_the_plain_forward_is_untouched(tiny: SimpleNamespace) -> None:
    """Oracle: the same weights without scoring: equal logits, loss, generation and signature."""
    scored, plain = tiny.tiny_model(), tiny.tiny_model(scored=False)
    ids = torch.tensor([[3, 4, 5, 6]])
    assert torch.equal(scored(ids).logits, plain(ids).logits)
    assert torch.equal(scored(ids, labels=ids).loss, plain(ids, labels=ids).loss)
    generated = [m.generate(ids, max_new_tokens=5, do_sample=False) for m in (scored, plain)]
    assert torch.equal(*generated)
    assert inspect.signature(scored.forward) == inspect.signature(plain.forward)


def test_installing_twice_changes_nothing(tiny: SimpleNamespace) -> None:
    """Oracle: the bound method is the same object; a model in training mode stays there, without gradients."""
    model = tiny.tiny_model(scored=False).train()
    install_scoring(model)
    forward = model.forward
    install_scoring(model)
    assert model.forward is forward
    assert model.training
    assert all(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_the_model_gets_no_attribute_but_its_forward(tiny: SimpleNamespace) -> None:
    """Oracle: the attributes of every module before; the scorer is found through the model's own `forward`."""
    model = tiny.tiny_model(scored=False)
    before = [set(vars(module)) for module in model.modules()]
    install_scoring(model, "stream")
    group_logprobs(model.train(), tiny.random_batch()).logprobs_PMT.sum().backward()
    assert [set(vars(module)) for module in model.modules()] == [before[0] | {"forward"}, *before[1:]]
    assert model.forward.__func__ is scorer_of(model)


def test_a_deep_copy_is_scored_with_its_own_weights(tiny: SimpleNamespace) -> None:
    """Oracle: a fresh model of the copy's weights; `forward` is bound to the copy, and what is known is shared."""
    model, batch = tiny.tiny_model(), tiny.random_batch()
    twin = copy.deepcopy(model)
    twin.load_state_dict(tiny.tiny_model(seed=1).state_dict())
    expected = group_logprobs(tiny.tiny_model(seed=1), batch).logprobs_PMT
    assert torch.equal(group_logprobs(twin, batch).logprobs_PMT, expected)
    assert twin.forward.__self__ is twin
    assert scorer_of(twin) is scorer_of(model)


@pytest.fixture
def mixed_precision() -> Iterator[Accelerator]:
    """accelerate in bfloat16; its state is one per process, so it is forgotten before and after."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(mixed_precision="bf16", cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_accelerate_may_wrap_the_forward(tiny: SimpleNamespace, mixed_precision: Accelerator) -> None:
    """Oracle: the model itself under autocast: wrapped for mixed precision, copied so, and unwrapped again."""
    model, batch = tiny.tiny_model(dtype=torch.float32), tiny.random_batch()
    plain = group_logprobs(model, batch).logprobs_PMT
    with torch.autocast("cpu", torch.bfloat16):
        expected = group_logprobs(model, batch).logprobs_PMT
    wrapped = mixed_precision.prepare_model(model)
    assert torch.equal(group_logprobs(wrapped, batch).logprobs_PMT, expected)
    twin = copy.deepcopy(wrapped)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            parameter.mul_(0.5)
    assert torch.equal(group_logprobs(twin, batch).logprobs_PMT, expected)
    assert not torch.equal(group_logprobs(wrapped, batch).logprobs_PMT, expected)
    bare = mixed_precision.unwrap_model(twin, keep_fp32_wrapper=False)
    assert torch.equal(group_logprobs(bare, batch).logprobs_PMT, plain)


def test_a_forward_that_was_replaced_is_refused(tiny: SimpleNamespace) -> None:
    """Oracle: the message; a copy of such a model would be scored with the weights of the original."""
    model = tiny.tiny_model(scored=False)
    model.forward = lambda *args, **kwargs: None
    with pytest.raises(ValueError, match=r"forward of Qwen2ForCausalLM was replaced by .*lambda.* Call"):
        install_scoring(model)


# --- logits that the chunked head does not know ---------------------------------------------------------------------


def sharpened(base: type) -> type:
    """A subclass that doubles its logits: nothing in its config says so."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = base.forward(self, *args, **kwargs)  # type: ignore[attr-defined]
        out.logits = out.logits * 2
        return out

    return type("Sharpened", (base,), {"forward": forward})


@float64_throughout
@pytest.mark.parametrize("scoring", ["stream", "padded"])
def test_an_unknown_transform_is_found_told_and_exact(
    tiny: SimpleNamespace, caplog: pytest.LogCaptureFixture, scoring: str
) -> None:
    """Oracle: the plain forward of a model that doubles its logits; a warning names the class."""
    torch.manual_seed(0)
    model = sharpened(tf.Qwen2ForCausalLM)(tiny.CONFIGS["qwen2"]()).double().eval()
    with caplog.at_level(logging.WARNING):
        install_scoring(model, scoring)  # type: ignore[arg-type]
    assert [r.message for r in caplog.records if r.name == "grao.policy.scorer"] == [
        "Sharpened changes its logits in a way the chunked head does not know: scoring holds all logits at once"
    ]
    assert_equals_plain(tiny, model, tiny.random_batch(), temperature=0.9)


def test_a_cap_is_found_though_fresh_weights_do_not_reach_it(tiny: SimpleNamespace) -> None:
    """Oracle: a cap of 30 that no config names; fresh logits of 0.1 pass it unchanged, trained ones will not."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = tf.Qwen2ForCausalLM.forward(self, *args, **kwargs)
        out.logits = torch.tanh(out.logits / 30) * 30
        return out

    torch.manual_seed(0)
    config = tiny.CONFIGS["qwen2"]()
    config.initializer_range = 0.02
    model = type("Capped", (tf.Qwen2ForCausalLM,), {"forward": forward})(config).train()
    assert model(torch.tensor([[1, 2, 3]])).logits.abs().max().item() < 0.5
    install_scoring(model)
    assert not scorer_of(model).head_in_chunks
    assert model.training
    assert not model.lm_head._forward_hooks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_is_not_mistaken_for_a_transform(
    tiny: SimpleNamespace, family: str, dtype: torch.dtype
) -> None:
    """Oracle: every known family keeps its chunked head in every dtype of weights."""
    assert scorer_of(tiny.tiny_model(family, dtype=dtype)).head_in_chunks


def test_known_models_are_not_warned_about(tiny: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    """Oracle: silence, for every family."""
    with caplog.at_level(logging.WARNING):
        for family in tiny.CONFIGS:
            tiny.tiny_model(family)
    assert [r.message for r in caplog.records if r.name.startswith("grao")] == []


# --- mixtures of experts ----------------------------------------------------------------------------------------


def padded_rows(batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Every member with its prompt as a right-padded row, by hand: ids and attention mask."""
    rows = []
    for p in range(len(batch)):
        prompt = batch.prompt_ids_PS[p][batch.prompt_mask_PS[p]].tolist()
        for m in range(batch.ids_PMT.shape[1]):
            places = batch.mask_PMT[p, m].nonzero()[:, 0]
            if len(places):
                rows.append(prompt + batch.ids_PMT[p, m, : int(places.max()) + 1].tolist())
    L = max(map(len, rows))
    ids = torch.tensor([row + [0] * (L - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (L - len(row)) for row in rows])
    return ids, mask


@float64_throughout
@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral", "unknown"])
def test_router_loss_is_transformers_own(tiny: SimpleNamespace, kind: str) -> None:
    """Oracle: `aux_loss` of the model's own forward on the padded rows with their attention mask, and its gradient."""
    if kind == "unknown":
        torch.manual_seed(0)
        model: Any = sharpened(tf.MixtralForCausalLM)(tiny.CONFIGS["mixtral"]()).double()
        install_scoring(model, "padded")
        assert not scorer_of(model).head_in_chunks
    else:
        model = tiny.tiny_model(kind, scoring="padded")
    model.train()
    batch = tiny.random_batch()
    ids, mask = padded_rows(batch)
    out = group_logprobs(model, batch)
    theirs = model(input_ids=ids, attention_mask=mask, output_router_logits=True, use_cache=False).aux_loss
    assert out.router_loss is not None
    assert out.router_loss.item() == pytest.approx(theirs.item(), abs=1e-12)
    assert tiny.relative(tiny.gradients(model, out.router_loss), tiny.gradients(model, theirs)) <= TOLERANCE
    assert router_coefficient(model) == 0.02


def test_router_loss_only_where_asked_for(tiny: SimpleNamespace) -> None:
    """Oracle: by definition none in evaluation, none where its weight is 0, none for dense models.

    `output_router_logits` only says what `forward` returns: released models ship with it off.
    """
    batch = tiny.random_batch()
    model = tiny.tiny_model("qwen3_moe")
    assert group_logprobs(model.eval(), batch).router_loss is None
    model.config.output_router_logits = False
    assert group_logprobs(model.train(), batch).router_loss is not None
    assert router_coefficient(model) == 0.02
    model.config.router_aux_loss_coef = 0.0
    assert group_logprobs(model.train(), batch).router_loss is None
    assert router_coefficient(model) == 0.0
    dense = tiny.tiny_model("qwen2").train()
    assert group_logprobs(dense, batch).router_loss is None
    assert router_coefficient(dense) == 0.0
