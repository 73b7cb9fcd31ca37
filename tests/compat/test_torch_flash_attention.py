"""Attention with normalisers: the CPU's fused kernels, and the plain operations of every other device."""

from __future__ import annotations

import pytest
import torch

from grao.compat import torch_flash_attention
from grao.compat.torch_flash_attention import attend, attend_backward


def made(dtype: torch.dtype, causal: bool, key_heads: int) -> list[torch.Tensor]:
    """Query, key, value and a gradient of the output; more queries than keys where attention is not causal."""
    generator = torch.Generator().manual_seed(0)
    N, L = 13, 13 if causal else 7
    shapes = ((1, 4, N, 8), (1, key_heads, L, 8), (1, key_heads, L, 8), (1, 4, N, 8))
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def by_autograd(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Output, normaliser and the inputs with a graph, from one softmax in float64."""
    inputs = [x.double().requires_grad_() for x in (q, k, v)]
    keys, values = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in inputs[1:])
    scores = inputs[0] @ keys.transpose(2, 3) * 0.3
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[2:], dtype=torch.bool).triu(1), -torch.inf)
    return scores.softmax(-1) @ values, scores.logsumexp(-1), inputs


@pytest.mark.parametrize("plainly", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_outputs_normalisers_and_gradients(
    plainly: bool, causal: bool, key_heads: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: one softmax under autograd in float64; blocks of three queries in the plain operations."""
    monkeypatch.setattr(torch_flash_attention, "BLOCK_SCORES", 4 * 13 * 3)
    q, k, v, gradient = made(dtype, causal, key_heads)
    if plainly:
        monkeypatch.setattr(torch_flash_attention, "FUSED", set())
    out, normaliser = attend(q, k, v, causal, 0.3)
    expected, expected_normaliser, inputs = by_autograd(q, k, v, causal)
    tolerance = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 2e-2}[dtype]
    assert out.dtype == dtype
    assert normaliser.dtype == torch.promote_types(dtype, torch.float32)
    assert (out - expected).norm() <= tolerance * expected.norm()
    assert (normaliser - expected_normaliser).norm() <= tolerance * expected_normaliser.norm()
    found = attend_backward(gradient, q, k, v, out, normaliser, causal, 0.3)
    for ours, theirs, x in zip(
        found, torch.autograd.grad(expected, inputs, gradient.double()), (q, k, v), strict=True
    ):
        assert (ours.dtype, ours.shape) == (dtype, x.shape)
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize("plainly", [False, True])
def test_the_backward_pass_of_a_part(plainly: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: autograd over all keys, in float64: with the o and ℓ of the whole, a part's gradient is its share."""
    q, k, v, gradient = made(torch.float64, False, 2)
    if plainly:
        monkeypatch.setattr(torch_flash_attention, "FUSED", set())
    whole, normaliser, inputs = by_autograd(q, k, v, False)
    of_q, of_k, of_v = torch.autograd.grad(whole, inputs, gradient)
    parts = [
        attend_backward(gradient, q, k[:, :, keys], v[:, :, keys], whole.detach(), normaliser.detach(), False, 0.3)
        for keys in (slice(0, 3), slice(3, None))
    ]
    assert (parts[0][0] + parts[1][0] - of_q).abs().max().item() <= 1e-13
    assert (torch.cat([part[1] for part in parts], 2) - of_k).abs().max().item() <= 1e-13
    assert (torch.cat([part[2] for part in parts], 2) - of_v).abs().max().item() <= 1e-13


def test_the_plain_operations_need_no_cpu() -> None:
    """Oracle: the shapes and dtypes on a device without kernels (meta), chosen by the functions themselves."""
    q, k, v, gradient = (x.to("meta") for x in made(torch.bfloat16, True, 2))
    out, normaliser = attend(q, k, v, True, None)
    assert (out.shape, out.dtype, normaliser.dtype) == (q.shape, torch.bfloat16, torch.float32)
    found = attend_backward(gradient, q, k, v, out, normaliser, True, None)
    assert [x.shape for x in found] == [q.shape, k.shape, v.shape]


def test_the_operators_have_the_arguments_that_are_passed() -> None:
    """Oracle: torch's own schemas, argument by argument, with their defaults."""
    forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default._schema
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default._schema
    names = ["query", "key", "value", "dropout_p", "is_causal", "attn_mask", "scale"]
    assert [a.name for a in forward.arguments] == names
    assert [a.default_value for a in forward.arguments[3:]] == [0.0, False, None, None]
    assert [a.name for a in backward.arguments] == ["grad_out", *names[:3], "out", "logsumexp", *names[3:]]
    assert [len(schema.returns) for schema in (forward, backward)] == [2, 3]
