"""Flex attention of a stream, as far as the CPU can tell: what is seen, its outputs, and who decides to use it."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask

from grao.policy import flex, stream
from grao.policy.flex import stream_rule
from grao.policy.scoring import group_logprobs, stream_logprobs, try_flex
from grao.policy.stream import StreamMask, stream_mask, use_flex

SEGMENTS = ((3, (4, 1)), (1, ()), (6, (2, 5, 5)))
TOKENS = 27

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def window(b: Any, h: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return (k <= q) & (k > q - 4)


@pytest.mark.parametrize("rule", [stream_mask().sees, window], ids=["causal", "window"])
def test_what_is_seen(rule: Any) -> None:
    """Oracle: a loop over the parts: the masks by which members are attended to one by one, put in their places."""
    seen = create_mask(stream_rule(rule, SEGMENTS, torch.device("cpu")), None, None, TOKENS, TOKENS, device="cpu")[
        0, 0
    ]
    masks, expected, start = StreamMask(rule), torch.zeros(TOKENS, TOKENS, dtype=torch.bool), 0
    longest = stream._longest(SEGMENTS)
    longest = longest._replace(rows=max(longest.rows, longest.prompt))

    def visible(before: int, length: int) -> torch.Tensor:
        return masks.mask(before, length, longest, torch.float32, torch.device("cpu")) == 0

    for prompt, members in SEGMENTS:
        whole = slice(start, start + prompt)
        expected[whole, whole] = visible(0, prompt)
        start += prompt
        for length in members:
            own = slice(start, start + length)
            expected[own, whole], expected[own, own] = visible(prompt, length).split([prompt, length], 1)
            start += length
    assert start == TOKENS
    assert torch.equal(seen, expected)


@torch.no_grad()
@pytest.mark.parametrize("family", ["qwen3", "mistral", "gemma2", "gemma3", "deepseek_v3", "gpt2"])
def test_equals_the_other_ways(tiny: SimpleNamespace, family: str) -> None:
    """Oracle: the same model member by member, in float32: windows, caps, shared keys, values of another width."""
    batch, model = tiny.random_batch(5), tiny.tiny_model(family, dtype=torch.float32)
    theirs = stream_logprobs(model, batch).logprobs_PMT
    use_flex(model, True)
    ours = stream_logprobs(model, batch).logprobs_PMT
    assert not torch.equal(ours, theirs)  # it was used
    assert ((ours - theirs).norm() / theirs.norm()).item() <= 2e-6


def dense(q: Any, k: Any, v: Any, mask: Any, scaling: Any, softcap: Any) -> torch.Tensor:
    """In place of `attend_by_flex`, with gradients, which flex attention has none of on the CPU; same block mask."""
    seen = create_mask(mask.mask_mod, None, None, q.shape[2], k.shape[2], device="cpu")
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = (q @ k.transpose(2, 3) * scaling).masked_fill(~seen, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2)


def test_it_is_used_where_it_agrees(
    tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Oracle: the calls counted; a planted error, then one that raises: after either, members go one by one."""
    batch, calls = tiny.random_batch(5), []

    def counted(*args: Any) -> torch.Tensor:
        calls.append(args)
        return dense(*args)

    monkeypatch.setattr(stream, "attend_by_flex", counted)
    model = tiny.tiny_model(dtype=torch.float32)
    expected = group_logprobs(model, batch).logprobs_PMT
    assert not calls  # not on the CPU
    try_flex(model)
    calls.clear()
    assert (group_logprobs(model, batch).logprobs_PMT - expected).abs().max().item() <= 1e-5
    assert len(calls) == 2  # a layer each
    assert not caplog.records

    def leaky(sees: Any, segments: Any, device: Any) -> Any:
        return flex.block_mask(sees, tuple((prompt + sum(members), ()) for prompt, members in segments), device)

    def broken(*_: Any) -> Any:
        raise RuntimeError("no such kernel")

    for planted, reason in ((leaky, "a check on a few tokens found"), (broken, "RuntimeError: no such kernel")):
        caplog.clear()
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(stream, "block_mask", planted)
            other = tiny.tiny_model(dtype=torch.float32)
            try_flex(other)
        calls.clear()
        assert torch.equal(group_logprobs(other, batch).logprobs_PMT, expected)
        assert not calls
        [line] = [r.message for r in caplog.records if r.name.startswith("grao")]
        assert line.startswith("Qwen2ForCausalLM attends member by member, not by flex attention: ")
        assert reason in line
