"""Logits of both decoders against plain full forwards of the same ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from grao.compat.torch_packed_linear import packed_linears
from grao.rollout import decoder as decoders
from grao.rollout.decoder import GroupDecoder, PaddedDecoder
from grao.rollout.group_cache import ROOM

PROMPTS = [[(5 * i + 13 * p + 2) % 256 for i in range(length)] for p, length in enumerate((3, 17, 9))]
COUNTS = [2, 1, 3]
STEPS = 12


def answers(rows: int, steps: int = STEPS) -> Tensor:
    """[N, T] ids, each row's its own."""
    return torch.tensor([[(11 * n + 7 * t * t + 1) % 256 for t in range(steps)] for n in range(rows)])


def decoded(decoder: Any, prompts: Sequence[Sequence[int]], counts: Sequence[int]) -> Tensor:
    """[N, 1 + T, V] logits, the answers' ids given."""
    logits = [decoder.join(prompts, counts)]
    logits += [decoder.step(ids_N) for ids_N in answers(sum(counts)).T]
    return torch.stack(logits, 1)


def forwarded(model: PreTrainedModel, prompts: Sequence[Sequence[int]], counts: Sequence[int]) -> Tensor:
    """The same by one forward of each row: no cache, no padding, no batch."""
    repeated = [prompt for prompt, count in zip(prompts, counts, strict=True) for _ in range(count)]
    rows = []
    for prompt, answer in zip(repeated, answers(sum(counts)).tolist(), strict=True):
        logits = model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False).logits
        rows.append(logits[0, len(prompt) - 1 :])
    return torch.stack(rows)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("kind", [GroupDecoder, PaddedDecoder])
@torch.no_grad()
def test_logits_in_float32(
    family: str,
    shares_prompts: bool,
    build: Callable[..., PreTrainedModel],
    kind: type[GroupDecoder | PaddedDecoder],
    packed: bool,
) -> None:
    """Oracle: plain full forwards, to a relative error of 2e-6; uneven prompts, longer and shorter than windows."""
    if kind is GroupDecoder and not shares_prompts:
        pytest.skip("its prompts cannot be kept once")
    model = build(family)
    expected = forwarded(model, PROMPTS, COUNTS)
    decoder = GroupDecoder(model) if kind is GroupDecoder else PaddedDecoder(model, STEPS)
    if packed:
        with packed_linears(model):
            found = decoded(decoder, PROMPTS, COUNTS)
    else:
        found = decoded(decoder, PROMPTS, COUNTS)
    assert relative(found, expected) <= 2e-6
    other = [[(token + 50) % 256 for token in prompt] for prompt in PROMPTS]
    assert relative(forwarded(model, other, COUNTS), expected) > 0.01  # the oracle sees the prompt


@pytest.mark.usefixtures("float64_throughout")
@torch.no_grad()
def test_logits_in_float64(family: str, shares_prompts: bool, build: Callable[..., PreTrainedModel]) -> None:
    """Oracle: plain full forwards, to 1e-12, through joins and departures in the middle."""
    if not shares_prompts:
        pytest.skip("its prompts cannot be kept once")
    model = build(family, torch.float64)
    prompts = [*PROMPTS, [200, 3, 77, 12, 40], [9]]
    expected = forwarded(model, prompts, [*COUNTS, 2, 1])
    decoder = GroupDecoder(model)
    ids = answers(9)

    rows, places = list(range(6)), [0] * 9
    logits = decoder.join(PROMPTS, COUNTS)
    for t in range(STEPS):
        for n, found in zip(rows, logits, strict=True):
            assert relative(found, expected[n, places[n]]) <= 1e-12
        if t == 3:  # a row in the middle, and a prompt's only row
            keep = [0, 1, 3, 5]
            decoder.keep(keep)
            rows, logits = [rows[n] for n in keep], logits[keep]
        if t == 5:
            logits = torch.cat([logits, decoder.join(prompts[3:], [2, 1])])
            rows += [6, 7, 8]
        if t == 8:
            decoder.keep([2, 4, 6])
            rows, logits = [rows[n] for n in (2, 4, 6)], logits[[2, 4, 6]]
        logits = decoder.step(torch.stack([ids[n, places[n]] for n in rows]))
        for n in rows:
            places[n] += 1
    assert rows == [3, 6, 8]


@torch.no_grad()
def test_long_prompts_are_run_in_parts(build: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: all prompts in one forward; here at most 20 tokens at a time, neighbours together: 3 + 17, then 9."""
    model = build("mistral_window")
    whole = decoded(GroupDecoder(model), PROMPTS, COUNTS)
    shapes: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(lambda _, __, given: shapes.append(given["input_ids"].shape), with_kwargs=True)
    monkeypatch.setattr(decoders, "PREFILL_TOKENS", 20)
    assert relative(decoded(GroupDecoder(model), PROMPTS, COUNTS), whole) <= 2e-6
    assert shapes == [(1, 20), (1, 9)] + [(6, 1)] * STEPS


@pytest.mark.parametrize("kind", [GroupDecoder, PaddedDecoder])
@torch.no_grad()
def test_columns(build: Callable[..., PreTrainedModel], kind: type[GroupDecoder | PaddedDecoder]) -> None:
    """Oracle: the keys that are held when the last token is drawn, a layer and head; and the room ahead of them."""
    model = build("qwen3")
    decoder: Any = GroupDecoder(model) if kind is GroupDecoder else PaddedDecoder(model, STEPS)
    prompts = [*PROMPTS, *([1, 2] for _ in range(60))]  # many short ones beside a long one
    counts = [*COUNTS, *[1] * 60]
    decoded(decoder, prompts, counts)
    if kind is GroupDecoder:
        [layer, _] = decoder._cache.layers.values()
        held = [layer.prompt_keys, layer.keys]
    else:
        held = [decoder._cache.layers[0]._key_buffer]
    columns = sum(x.shape[0] * x.shape[2] for x in held)
    promised = decoder.columns([(len(p), n) for p, n in zip(prompts, counts, strict=True)], STEPS)
    assert promised - ROOM < columns <= promised + sum(counts) * ROOM


def test_parts_by_hand() -> None:
    """Oracle: written out."""
    assert decoders._runs([3, 17, 9], 20) == [(0, 2), (2, 3)]
    assert decoders._runs([3, 17, 9], 19) == [(0, 1), (1, 2), (2, 3)]
    assert decoders._runs([30, 1, 2], 20) == [(0, 1), (1, 3)]
    assert decoders._runs([5, 5, 5, 5], 10) == [(0, 2), (2, 4)]
    assert decoders._runs([], 10) == []


@torch.no_grad()
def test_the_model_is_as_it_was_after_an_error(build: Callable[..., PreTrainedModel]) -> None:
    """Oracle: its attention's name before, and its logits bit by bit; an id that it does not have ends a forward."""
    model = build("qwen3")
    before, name = forwarded(model, PROMPTS, COUNTS), model.config._attn_implementation
    decoder = GroupDecoder(model)
    decoder.join(PROMPTS, COUNTS)
    with pytest.raises(IndexError):
        decoder.step(torch.full((6,), 10_000))
    assert model.config._attn_implementation == name == "sdpa"
    assert torch.equal(forwarded(model, PROMPTS, COUNTS), before)
