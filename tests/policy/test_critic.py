"""The critic's values against one plain forward a sequence, its gradients, and its file."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from grao.groups import Group, GroupBatch, Member, collate
from grao.policy import Critic, LoRA, group_logprobs
from grao.policy.lora import add_adapters

KINDS = ("shared", "separate")
every_kind = pytest.mark.parametrize("kind", KINDS)


def randomise(critic: Critic, seed: int = 5) -> Critic:
    """A random head: a fresh one is 0 and would hide everything."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in critic.head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    return critic


def adapted(tiny: SimpleNamespace, seed: int = 3) -> Any:
    """A policy whose adapters have been trained."""
    model = add_adapters(tiny.tiny_model(), LoRA(r=4, alpha=8)).double().eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model


def plain_values(backbone: Any, head: torch.nn.Linear, batch: GroupBatch) -> Tensor:
    """wᵀh + b of the state before every counted token, member by member: no padding, its own forward a prefix."""
    values = torch.zeros(batch.mask_PMT.shape, dtype=torch.float64)
    for p, m, t in batch.mask_PMT.nonzero().tolist():
        prompt = batch.prompt_ids_PS[p][batch.prompt_mask_PS[p]]
        state = torch.cat([prompt, batch.ids_PMT[p, m, :t]])
        hidden = backbone(input_ids=state[None], use_cache=False).last_hidden_state[0, -1]
        values[p, m, t] = (hidden * head.weight[0]).sum() + head.bias[0]
    return values


@pytest.mark.usefixtures("float64_throughout")
@pytest.mark.parametrize("family", ["qwen2", "gpt2", "gemma2", "mistral", "qwen3_moe"])
@every_kind
def test_equals_a_plain_forward_of_each_state(tiny: SimpleNamespace, kind: Any, family: str) -> None:
    """Oracle: the prefix before the token alone through the backbone, then w and b, in float64."""
    model, batch = tiny.tiny_model(family), tiny.random_batch()
    critic = randomise(Critic(model, kind))
    values = critic.values(model, batch)
    expected = plain_values(model.base_model, critic.head, batch)
    assert values.shape == batch.mask_PMT.shape
    assert (values - expected).abs().max().item() <= 1e-12
    assert expected.std() > 0.1
    assert values[~batch.mask_PMT].abs().max().item() == 0


@every_kind
def test_starts_at_zero_and_learns(tiny: SimpleNamespace, kind: Any) -> None:
    """Oracle: V = 0 for w = b = 0, exactly; the gradient of the head is not 0, so it leaves from there."""
    model, batch = tiny.tiny_model(), tiny.random_batch()
    critic = Critic(model, kind)
    values = critic.values(model, batch)
    assert values.abs().max().item() == 0
    ((values - 1.0)[batch.mask_PMT]).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in critic.head.parameters())


@pytest.mark.usefixtures("float64_throughout")
@every_kind
def test_whose_gradient(tiny: SimpleNamespace, kind: Any) -> None:
    """Oracle: autograd through the plain forwards. Shared: the policy's backbone learns; separate: only the copy."""
    model, batch = tiny.tiny_model().train(), tiny.random_batch(2)
    critic = randomise(Critic(model, kind))
    backbone = model.base_model if kind == "shared" else critic.backbone
    expected = tiny.gradients(backbone, plain_values(backbone, critic.head, batch))
    head = {n: p.grad.clone() for n, p in critic.head.named_parameters()}
    critic.zero_grad(set_to_none=True)
    assert tiny.relative(tiny.gradients(backbone, critic.values(model, batch)), expected) <= 1e-12
    assert tiny.relative({n: p.grad for n, p in critic.head.named_parameters()}, head) <= 1e-12
    in_policy = {n for n, p in model.named_parameters() if p.grad is not None}
    assert in_policy == ({f"model.{n}" for n in expected} if kind == "shared" else set())
    assert {n.split(".")[0] for n, _ in critic.named_parameters()} == (
        {"head"} if kind == "shared" else {"head", "backbone"}
    )


@pytest.mark.usefixtures("float64_throughout")
@every_kind
def test_with_adapters(tiny: SimpleNamespace, kind: Any) -> None:
    """Oracle: the merged model's backbone. Shared trains the adapters alone, separate every weight of its copy."""
    model, batch = adapted(tiny), tiny.random_batch(3)
    critic = randomise(Critic(model, kind))
    values = critic.values(model, batch)
    values.sum().backward()
    trained = {n for n, p in model.named_parameters() if p.grad is not None}
    if kind == "shared":
        assert trained == {n for n, _ in model.named_parameters() if "lora_" in n}
    else:
        assert trained == set()
        assert all(p.grad is not None for p in critic.parameters())
        assert not any("lora_" in n for n, _ in critic.named_parameters())
    before = group_logprobs(model, batch).logprobs_PMT
    merged = adapted(tiny).merge_and_unload()
    assert (values - plain_values(merged.base_model, critic.head, batch)).abs().max().item() <= 1e-12
    assert torch.equal(group_logprobs(model, batch).logprobs_PMT, before)  # the policy's own adapters are still there


def test_a_separate_critic_is_a_copy(tiny: SimpleNamespace) -> None:
    """Oracle: values before the policy moved, bit for bit; a shared critic's move with it."""
    model, batch = tiny.tiny_model(), tiny.random_batch()
    separate, shared = randomise(Critic(model, "separate")), randomise(Critic(model, "shared"))
    before = separate.values(model, batch)
    assert torch.equal(shared.values(model, batch), before)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    assert torch.equal(separate.values(model, batch), before)
    assert (shared.values(model, batch) - before).abs().max() > 1e-3


@pytest.mark.parametrize("scoring", ["stream", "padded"])
def test_only_unmasked_members_cost_compute(tiny: SimpleNamespace, scoring: Any) -> None:
    """Oracle: what enters the backbone, counted: the samples alone, once the references are masked.

    By padded rows, a row each. In the stream, the prompts, and each sample up to its last token that counts.
    """
    model, batch = tiny.tiny_model(scoring=scoring), tiny.random_batch()
    mask = batch.mask_PMT.clone()
    mask[:, batch.num_samples :] = False
    shapes: list[torch.Size] = []
    model.model.register_forward_pre_hook(lambda _, __, kw: shapes.append(kw["input_ids"].shape), with_kwargs=True)
    critic = randomise(Critic(model, "shared"))
    values = critic.values(model, batch.with_(mask_PMT=mask))
    if scoring == "padded":
        assert shapes[0][0] == int(mask.any(-1).sum()) < int(batch.mask_PMT.any(-1).sum())
    else:
        members = [int(places.nonzero().max()) for places in mask.flatten(0, 1) if places.any()]
        prompts = batch.prompt_mask_PS.sum(1)[mask.flatten(1).any(1)]
        assert shapes == [(1, int(prompts.sum()) + sum(members))]
    whole = critic.values(model, batch)
    assert (values - whole)[mask].abs().max().item() <= 1e-12
    assert values[~mask].abs().max().item() == 0


def values_and_gradients(
    tiny: SimpleNamespace, kind: Any, family: str, scoring: Any, checkpointing: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """Of the same random critic; the stream is seen to be one, and to leave the names of attention as they were."""
    model, batch = tiny.tiny_model(family, scoring=scoring).train(), tiny.random_batch(5)
    critic = randomise(Critic(model, kind).train())
    backbone = critic.backbone if kind == "separate" else model.base_model
    shapes: list[torch.Size] = []
    backbone.register_forward_pre_hook(lambda _, __, kw: shapes.append(kw["input_ids"].shape), with_kwargs=True)
    if checkpointing:
        owner = critic.backbone if kind == "separate" else model
        owner.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    values = critic.values(model, batch)
    assert (shapes[0][0] == 1) == (scoring == "stream")
    gradients = tiny.gradients(backbone, values)
    assert backbone.config._attn_implementation == model.config._attn_implementation != "grao_stream"
    return values.detach(), gradients


@pytest.mark.usefixtures("float64_throughout")
@every_kind
def test_the_stream_equals_padded_rows(tiny: SimpleNamespace, kind: Any, family: str) -> None:
    """Oracle: the critic of the same policy by padded rows. A separate one's backbone has a config of its own."""
    values, gradients = values_and_gradients(tiny, kind, family, "padded")
    ours, our_gradients = values_and_gradients(tiny, kind, family, "stream")
    assert (ours - values).abs().max().item() <= 1e-12
    assert tiny.relative(our_gradients, gradients) <= 1e-12


@every_kind
def test_the_stream_with_activation_checkpointing(tiny: SimpleNamespace, kind: Any, family: str) -> None:
    """Oracle: the stream without it."""
    values, gradients = values_and_gradients(tiny, kind, family, "stream")
    ours, our_gradients = values_and_gradients(tiny, kind, family, "stream", checkpointing=True)
    assert torch.equal(ours, values)
    assert tiny.relative(our_gradients, gradients) <= 1e-12


@every_kind
@pytest.mark.parametrize("scoring", ["auto", "stream"])
def test_what_cannot_be_streamed_is_read_by_padded_rows(
    tiny: SimpleNamespace, kind: Any, scoring: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Oracle: padded rows with the same dropout (same seed); one line, once; an error where a stream was asked for."""
    batch, found = tiny.random_batch(5), []
    for asked in (scoring, "padded"):
        model = tiny.tiny_model(scoring=asked).train()
        critic = randomise(Critic(model, kind).train())
        for layer in (model.model if critic.backbone is None else critic.backbone).layers:
            layer.self_attn.attention_dropout = 0.25
        if asked == "stream":
            with pytest.raises(ValueError, match=r"the critic cannot read a stream: it drops .* \(p = 0.25\)\. Set"):
                critic.values(model, batch)
            return
        for _ in range(2):
            torch.manual_seed(1)
            found.append(critic.values(model, batch))
    assert all(torch.equal(values, found[0]) for values in found)
    assert [r.message for r in caplog.records if r.name.startswith("grao")] == [
        "the critic reads padded rows, not a stream: it drops attention weights out in training (p = 0.25)"
    ]


@every_kind
def test_padding_and_company_do_not_matter(tiny: SimpleNamespace, kind: Any) -> None:
    """Oracle: each group alone."""
    model, batch = tiny.tiny_model(), tiny.random_batch(4)
    critic = randomise(Critic(model, kind))
    whole = critic.values(model, batch)
    for p in range(len(batch)):
        alone = critic.values(model, batch.select([p]))[0]
        assert (alone - whole[p, :, : alone.shape[1]]).abs().max().item() <= 1e-12


@every_kind
def test_a_batch_with_nothing_to_value(tiny: SimpleNamespace, kind: Any) -> None:
    """Oracle: zeros whose gradient exists and is 0 for every parameter in the graph (a wrapper waits for it)."""
    group = Group(0, "", (5, 6), (Member((7,), "", "length"), Member((8, 9), "", "length")))
    batch = collate([group], pad_token_id=0, mask_truncated=True)
    model = tiny.tiny_model()
    critic = randomise(Critic(model, kind))
    values = critic.values(model, batch)
    assert values.tolist() == [[[0.0, 0.0], [0.0, 0.0]]]
    values.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max().item() == 0 for p in critic.parameters())


def test_the_head_is_float32_under_half_precision(tiny: SimpleNamespace) -> None:
    """Oracle: wᵀh + b in float32 of the backbone's own bfloat16 states; a head in bfloat16 is off by 1e-3."""
    batch = tiny.random_batch()
    for dtype, autocast in ((torch.bfloat16, False), (torch.float32, True)):
        model = tiny.tiny_model(dtype=dtype)
        critic = randomise(Critic(model, "shared"))
        assert {p.dtype for p in critic.head.parameters()} == {torch.float32}
        states: list[Tensor] = []
        hook = critic.head.register_forward_pre_hook(lambda _, args, states=states: states.append(args[0]))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            values = critic.values(model, batch)
        hook.remove()
        assert values.dtype == states[0].dtype == torch.float32
        expected = states[0].double() @ critic.head.weight[0].double() + critic.head.bias.double()
        assert (values[batch.mask_PMT] - expected).abs().max().item() <= 1e-5


@every_kind
def test_save_and_load_bit_for_bit(tiny: SimpleNamespace, kind: Any, tmp_path: Path) -> None:
    """Oracle: values of the critic that was saved; the file holds the critic's weights and no policy."""
    model, batch = tiny.tiny_model(), tiny.random_batch()
    critic = randomise(Critic(model, kind))
    if kind == "separate":
        with torch.no_grad():
            for parameter in critic.backbone.parameters():
                parameter.mul_(1.1)
    file = critic.save(tmp_path)
    assert file == tmp_path / "critic.safetensors"
    with safe_open(file, framework="pt") as stored:
        assert set(stored.keys()) == set(critic.state_dict())
    other = Critic(model, kind)
    other.load(tmp_path)
    assert torch.equal(other.values(model, batch), critic.values(model, batch))
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), critic.parameters(), strict=True))


@every_kind
@pytest.mark.parametrize("adapters", [False, True], ids=["weights", "lora"])
def test_restart_is_a_new_critic_in_the_same_weights(tiny: SimpleNamespace, kind: Any, adapters: bool) -> None:
    """Oracle: a critic made now from the policy as it is now, bit for bit; the tensors are those the optimiser has."""
    model, batch = adapted(tiny) if adapters else tiny.tiny_model(), tiny.random_batch()
    critic = randomise(Critic(model, kind))
    known = [parameter.data_ptr() for parameter in critic.parameters()]
    with torch.no_grad():
        for parameter in (*model.parameters(), *critic.parameters()):
            parameter.mul_(1.1)
    critic.restart(model)
    fresh = Critic(model, kind)
    assert all(torch.equal(a, b) for a, b in zip(critic.parameters(), fresh.parameters(), strict=True))
    assert critic.values(model, batch).abs().max().item() == 0
    assert torch.equal(randomise(critic).values(model, batch), randomise(fresh).values(model, batch))
    assert [parameter.data_ptr() for parameter in critic.parameters()] == known
    assert all(parameter.requires_grad for parameter in critic.parameters())


def test_the_exported_policy_knows_no_critic(tiny: SimpleNamespace, tmp_path: Path) -> None:
    """Oracle: the weights of a policy saved before it had one."""
    model = tiny.tiny_model()
    names = set(model.state_dict())
    for kind in KINDS:
        critic = randomise(Critic(model, kind))  # type: ignore[arg-type]
        critic.values(model, tiny.random_batch()).sum().backward()
    assert set(model.state_dict()) == names


def test_what_cannot_be_loaded(tiny: SimpleNamespace, tmp_path: Path) -> None:
    """Oracle: the messages, read by a person."""
    model = tiny.tiny_model()
    with pytest.raises(ValueError, match=r"critic is 'both'; it must be one of shared, separate"):
        Critic(model, "both")  # type: ignore[arg-type]
    critic = Critic(model, "shared")
    with pytest.raises(
        ValueError, match=r"holds no critic\.safetensors\. Give a checkpoint of a run that was trained"
    ):
        critic.load(tmp_path)
    critic.save(tmp_path)
    with pytest.raises(
        ValueError, match=r"a 'shared' critic, but this run's is 'separate'\. Set critic\.kind to 'shared'"
    ):
        Critic(model, "separate").load(tmp_path)
    critic.head = torch.nn.Linear(3, 1)
    with pytest.raises(ValueError, match=r"holds the critic of another model: "):
        critic.load(tmp_path)


def test_a_value_is_of_the_state_before_its_token(tiny: SimpleNamespace) -> None:
    """Oracle: by definition, V is of the state *before* a token: changing a member's last token changes no value."""
    model, batch = tiny.tiny_model(), tiny.random_batch(6)
    critic = randomise(Critic(model, "shared"))
    before = critic.values(model, batch)
    ids, rng = batch.ids_PMT.clone(), random.Random(0)
    for p, m in batch.mask_PMT.any(-1).nonzero().tolist():
        ids[p, m, int(batch.mask_PMT[p, m].nonzero().max())] = rng.randrange(2, tiny.VOCABULARY)
    assert not torch.equal(ids, batch.ids_PMT)
    assert torch.equal(critic.values(model, batch.with_(ids_PMT=ids)), before)
