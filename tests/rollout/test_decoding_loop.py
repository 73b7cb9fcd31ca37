"""The sampling loop: who is under way when, with a decoder that is a pure function, and with GPT-2's positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from grao.rollout import SampleRequest, SamplingParams
from grao.rollout.admission import AdmissionQueue
from grao.rollout.decoder import GroupDecoder
from grao.rollout.decoding_loop import SampleState, sample_completions
from grao.rollout.sampler import sample_tokens
from grao.rollout.uniforms import uniforms

V = 20
ENDS = {3, 11}
PARAMS = SamplingParams(max_new_tokens=12, temperature=0.9)


def logits_after(prompt: Sequence[int], ids: Sequence[int]) -> Tensor:
    """[V], a pure function of what came before."""
    key = sum((i + 1) * (token + 7) for i, token in enumerate([*prompt, *ids]))
    return 2 * torch.sin(torch.arange(V, dtype=torch.float64) * (1 + key % 97))


@dataclass
class Row:
    prompt: tuple[int, ...]
    ids: list[int] = field(default_factory=list)


@dataclass
class PureDecoder:
    """Computes nothing but `logits_after`, and records its arguments."""

    joins: bool
    max_new_tokens: int
    rows: list[Row] = field(default_factory=list)
    under_way: list[int] = field(default_factory=list)
    """Rows in each step."""
    left: list[int] = field(default_factory=list)
    """Rows that were there when others joined."""
    kept: list[tuple[int, int]] = field(default_factory=list)
    """Rows before and after each departure."""
    columns_held: int = 0
    """The most columns that were held at once, in whole groups as long as one of their rows is there."""

    def join(self, prompts: Sequence[Sequence[int]], counts: Sequence[int]) -> Tensor:
        assert self.joins or not self.rows
        self.left.append(len(self.rows))
        self.rows += [Row(tuple(p)) for p, count in zip(prompts, counts, strict=True) for _ in range(count)]
        live = {row.prompt: 0 for row in self.rows}
        for row in self.rows:
            live[row.prompt] += 1
        self.columns_held = max(self.columns_held, self.columns([(len(p), n) for p, n in live.items()], 12))
        return torch.stack([logits_after(row.prompt, row.ids) for row in self.rows[-sum(counts) :]])

    def step(self, ids_N: Tensor) -> Tensor:
        self.under_way.append(len(self.rows))
        for row, token in zip(self.rows, ids_N.tolist(), strict=True):
            row.ids.append(token)
            assert len(row.ids) < self.max_new_tokens  # the last token is drawn, and never run
        return torch.stack([logits_after(row.prompt, row.ids) for row in self.rows])

    def keep(self, rows: Sequence[int]) -> None:
        assert all(a < b for a, b in pairwise(rows))
        self.kept.append((len(self.rows), len(rows)))
        self.rows = [self.rows[n] for n in rows]

    def columns(self, groups: Sequence[tuple[int, int]], max_new_tokens: int) -> int:
        return sum(prompt + rows * max_new_tokens for prompt, rows in groups)


def requests(samples: Sequence[int] = (3, 2, 4, 1, 3, 2, 5)) -> list[SampleRequest]:
    """Prompts that are all unlike."""
    return [
        SampleRequest(tuple((3 * i + j) % V for j in range(2 + (5 * i) % 7)), tuple(100 * i + g for g in range(n)))
        for i, n in enumerate(samples)
    ]


def is_complete(ids: Sequence[int]) -> bool:
    return ids[-1] in ENDS


def one_at_a_time(asked: Sequence[SampleRequest]) -> list[list[SampleState]]:
    """A plain loop over requests, seeds and tokens."""
    draws = []
    for i, request in enumerate(asked):
        draws.append([SampleState(i, seed) for seed in request.seeds])
        for drawn in draws[-1]:
            u_T = uniforms([drawn.seed], PARAMS.max_new_tokens)[0]
            while drawn.finish is None:
                logits = logits_after(request.prompt_ids, drawn.ids)
                token, logprob = sample_tokens(logits[None], u_T[len(drawn.ids)][None], PARAMS)
                drawn.ids.append(int(token))
                drawn.logprobs.append(float(logprob))
                if is_complete(drawn.ids):
                    drawn.finish = "stop"
                elif len(drawn.ids) == PARAMS.max_new_tokens:
                    drawn.finish = "length"
    return draws


def what(draws: list[list[SampleState]]) -> list[list[tuple[Any, ...]]]:
    return [[(d.request, d.seed, d.ids, d.logprobs, d.finish) for d in group] for group in draws]


def drawn_with(
    decoder: Any, asked: Sequence[SampleRequest], share: float = 1 / 8, told: list[int] | None = None, **limits: Any
) -> list[list[SampleState]]:
    limits = {"max_rows": 99, **limits}
    return sample_completions(
        decoder,
        asked,
        AdmissionQueue(asked, **limits),
        PARAMS,
        is_complete=is_complete,
        unknown_ids=lambda *_: None,
        compact_share=share,
        on_finish=(told if told is not None else []).append,
    )


@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize("share", [0.01, 1 / 8, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("limits", [{}, {"max_rows": 6}, {"max_rows": 1}, {"max_batch_tokens": 90}])
def test_every_row_in_progress(joins: bool, share: float, limits: dict[str, int]) -> None:
    """Oracle: a plain loop, one sample after another, to the last bit of the log-probs."""
    asked, told = requests(), []
    expected = one_at_a_time(asked)
    assert len({len(d.ids) for group in expected for d in group}) > 6
    assert {d.finish for group in expected for d in group} == {"stop", "length"}
    decoder = PureDecoder(joins, PARAMS.max_new_tokens)
    assert what(drawn_with(decoder, asked, share, told, **limits)) == what(expected)
    assert sum(told) == 20
    assert min(told) > 0
    assert not decoder.rows


@pytest.mark.parametrize("share", [0.01, 1 / 8, 0.5])
def test_freed_rows_are_refilled(share: float) -> None:
    """Oracle: counting; never more than 8 rows, others join while some are under way, and fewer steps are needed."""
    decoder, in_turn = PureDecoder(True, 12), PureDecoder(False, 12)
    for each in (decoder, in_turn):
        drawn_with(each, requests(), share, max_rows=8)
        assert max(before for before, _ in each.kept) == 8
    assert sum(left > 0 for left in decoder.left) >= 2
    assert len(decoder.under_way) < len(in_turn.under_way)


def test_at_most_so_many_columns() -> None:
    """Oracle: counting prompt + 12 a row of the groups under way; at most 90, and more than half of it is used."""
    decoder = PureDecoder(True, 12)
    drawn_with(decoder, requests(), 1 / 8, max_batch_tokens=90)
    assert 45 < decoder.columns_held <= 90
    assert sum(left > 0 for left in decoder.left) >= 2


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_finished_rows_leave_in_bunches(share: float) -> None:
    """Oracle: the definition; a departure takes the share at least, unless a finished row would grow too long."""
    decoder = PureDecoder(True, 12)
    drawn_with(decoder, requests(), share)
    assert len(decoder.kept) > 1
    assert all(after <= (1 - share) * before for before, after in decoder.kept)


def test_no_row_outgrows_a_completion() -> None:
    """Oracle: `PureDecoder` itself, which refuses a row's twelfth token. A row that ends early stays among three that
    joined later, a quarter of them: it leaves before its own twelfth token, not when they end."""
    ends = {0: 1, 1: 1, 2: 1, 3: 4, 4: 12, 5: 12, 6: 12}
    asked = [SampleRequest((i, i), (i,)) for i in range(7)]
    decoder = PureDecoder(True, 12)
    whose: dict[int, int] = {}

    def ended(ids: Sequence[int]) -> bool:
        return len(ids) >= ends[whose[id(ids)]]

    class Told(SampleState):
        """Says whose ids are whose."""

        __slots__ = ()

        def __init__(self, request: int, seed: int):
            super().__init__(request, seed)
            whose[id(self.ids)] = request

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grao.rollout.decoding_loop.SampleState", Told)
        draws = sample_completions(
            decoder,
            asked,
            AdmissionQueue(asked, 4),
            PARAMS,
            is_complete=ended,
            unknown_ids=lambda *_: None,
            compact_share=0.5,
            on_finish=lambda _: None,
        )
    assert [len(drawn.ids) for [drawn] in draws] == list(ends.values())
    # Three leave after a token, and three join the fourth; when that leaves, they have a token less.
    assert decoder.kept == [(4, 1), (4, 3), (3, 0)]
    assert decoder.under_way == [1] + [4] * 10 + [3]


@torch.no_grad()
def test_positions_are_never_exceeded(build: Callable[..., PreTrainedModel]) -> None:
    """Oracle: GPT-2's table of positions, which has exactly enough: 52 tokens of prompt and 12 new ones are its 64.

    The scenario of the test before: an early end among rows that joined later. One step more would read a 65th
    position. Draws are those of each request alone.
    """
    model = build("gpt2", torch.float64)
    asked = [SampleRequest(tuple((7 * i + j) % 256 for j in range(52)), (i,)) for i in range(7)]
    lengths = [1, 1, 1, 4, 12, 12, 12]

    def drawn(groups: Sequence[SampleRequest], ends: Callable[[Sequence[int]], bool]) -> list[list[int]]:
        found = sample_completions(
            GroupDecoder(model),
            groups,
            AdmissionQueue(groups, 4),
            PARAMS,
            is_complete=ends,
            unknown_ids=lambda *_: None,
            compact_share=0.5,
            on_finish=lambda _: None,
        )
        return [d.ids for [d] in found]

    whole = [drawn([request], lambda _: False)[0] for request in asked]
    first = {ids[0]: length for ids, length in zip(whole, lengths, strict=True)}
    assert len(first) == 7  # a first token says whose it is
    positions: list[int] = []
    model.register_forward_pre_hook(
        lambda _, __, given: positions.append(int(given["position_ids"].max())), with_kwargs=True
    )
    assert drawn(asked, lambda ids: len(ids) >= first[ids[0]]) == [
        ids[:length] for ids, length in zip(whole, lengths, strict=True)
    ]
    assert max(positions) == 52 + 12 - 2
