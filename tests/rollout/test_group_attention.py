"""Attention to prompts that are kept once, against a plain softmax over each row's own list of keys."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.masking_utils import sliding_window_causal_mask_function

from grao.compat.transformers_attention import AttentionRefusedError
from grao.rollout.group_attention import attend, visibility
from grao.rollout.group_cache import GroupCache

Kept = list[tuple[Tensor, Tensor]]
"""A sequence's keys [H, D] and values [H, width], token by token."""


@dataclass(frozen=True)
class Case:
    """What an attention layer may be."""

    heads: int = 4
    key_heads: int = 4
    width: int = 6
    value_width: int = 6
    scaling: float | None = None
    softcap: float | None = None
    window: int | None = None
    dtype: torch.dtype = torch.float64


CASES = {
    "plain": Case(),
    "grouped queries": Case(heads=6, key_heads=2),
    "one key head": Case(heads=3, key_heads=1),
    "a scaling of its own": Case(scaling=0.7),
    "unequal widths": Case(width=6, value_width=4),
    "wider values": Case(width=4, value_width=6),
    "softcap": Case(heads=4, key_heads=2, softcap=0.8),
    "window": Case(heads=4, key_heads=2, window=4),
    "a window of one": Case(window=1),
    "softcap and window": Case(heads=4, key_heads=2, value_width=5, softcap=0.8, window=5, scaling=0.3),
}


def plain_attention(case: Case, query_HD: Tensor, tokens: Kept) -> Tensor:
    """The last of these tokens attends to all of them, or to those in its window; [heads, value width]."""
    scale = case.width**-0.5 if case.scaling is None else case.scaling
    seen = tokens[-case.window :] if case.window else tokens
    outputs = []
    for head, query in enumerate(query_HD):
        shared = head * case.key_heads // case.heads
        scores = torch.stack([scale * query @ keys[shared] for keys, _ in seen])
        if case.softcap is not None:
            scores = case.softcap * torch.tanh(scores / case.softcap)
        weights = scores.exp() / scores.exp().sum()
        outputs.append(sum(weight * values[shared] for weight, (_, values) in zip(weights, seen, strict=True)))
    return torch.stack(outputs)


@dataclass
class Row:
    prompt: Kept
    own: Kept = field(default_factory=list)
    is_poisoned: bool = False
    """It wrote NaN: whatever it gives, nobody else may see it."""


class Walk:
    """Two layers' cache beside plain lists of what each row has; every output is compared on the way."""

    def __init__(self, case: Case, seed: int, tolerance: float = 1e-12):
        self.case, self.tolerance = case, tolerance
        self.cache = GroupCache()
        self.layers = [nn.Identity(), nn.Identity()]
        self.groups: list[list[Row]] = []
        """By layer and row."""
        self.rows: list[list[Row]] = [[], []]
        self.counts: list[int] = []
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.compared = 0

    def join(self, lengths: list[int], counts: list[int]) -> None:
        self.cache.begin(lengths)
        mask = self._mask()
        for layer, rows in zip(self.layers, self.rows, strict=True):
            query, key, value = self._states(1, sum(lengths))
            output = self._attend(layer, query, key, value, mask)
            start = 0
            for length, count in zip(lengths, counts, strict=True):
                tokens: Kept = [(key[0, :, start + t], value[0, :, start + t]) for t in range(length)]
                for t in range(length):
                    self._compare(output[0, start + t], query[0, :, start + t], tokens[: t + 1])
                rows += [Row(tokens) for _ in range(count)]
                start += length
        self.cache.add_rows(counts, torch.device("cpu"))
        self.counts += counts

    def step(self, poison: int | None = None) -> None:
        mask = self._mask()
        for layer, rows in zip(self.layers, self.rows, strict=True):
            query, key, value = self._states(len(rows), 1)
            if poison is not None:
                key[poison] = value[poison] = math.nan
                rows[poison].is_poisoned = True
            output = self._attend(layer, query, key, value, mask)
            for n, row in enumerate(rows):
                row.own.append((key[n, :, 0], value[n, :, 0]))
                if not row.is_poisoned:
                    self._compare(output[n, 0], query[n, :, 0], row.prompt + row.own)
        self.cache.advance()

    def keep(self, going_on: list[int]) -> None:
        self.cache.keep(going_on, torch.device("cpu"))
        starts = [sum(self.counts[:p]) for p in range(len(self.counts) + 1)]
        left = [len({*range(a, b)} & {*going_on}) for a, b in pairwise(starts)]
        self.counts = [count for count in left if count]
        self.rows = [[rows[n] for n in going_on] for rows in self.rows]

    def at_random(self, moves: int) -> None:
        """Steps mostly; rows dropped now and then, at times a whole prompt or all; prompts join in the middle."""
        self.join([3, 1, 7], [2, 1, 3])
        for _ in range(moves):
            N, move = len(self.rows[0]), self.random.random()
            if not N or (move < 0.2 and N < 14):
                P = self.random.randint(1, 3)
                lengths = [self.random.randint(1, 9) for _ in range(P)]
                self.join(lengths, [self.random.randint(1, 4) for _ in range(P)])
            elif move < 0.45:
                if self.random.random() < 0.3:  # a prompt with all its rows
                    p = self.random.randrange(len(self.counts))
                    gone = {*range(sum(self.counts[:p]), sum(self.counts[: p + 1]))}
                else:
                    gone = {*self.random.sample(range(N), self.random.randint(0, N))}
                self.keep([n for n in range(N) if n not in gone])
            else:
                self.step()

    def _mask(self) -> Any:
        if self.case.window is None:
            return visibility()
        return visibility(mask_function=sliding_window_causal_mask_function(self.case.window))

    def _states(self, rows: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        """Laid out in memory as projections lay them out: heads side by side in a token."""
        case = self.case
        return tuple(  # type: ignore[return-value]
            torch.randn(rows, tokens, heads, width, generator=self.generator, dtype=torch.float64)
            .to(case.dtype)
            .transpose(1, 2)
            for heads, width in (
                (case.heads, case.width),
                (case.key_heads, case.width),
                (case.key_heads, case.value_width),
            )
        )

    def _attend(self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any) -> Tensor:
        output, weights = attend(
            layer,
            query,
            key,
            value,
            mask,
            group_cache=self.cache,
            scaling=self.case.scaling,
            softcap=self.case.softcap,
            sliding_window=self.case.window,
        )
        assert weights is None
        assert output.shape == (query.shape[0], query.shape[2], self.case.heads, self.case.value_width)
        assert output.dtype == self.case.dtype
        return output

    def _compare(self, found: Tensor, query: Tensor, tokens: Kept) -> None:
        expected = plain_attention(self.case, query.double(), [(k.double(), v.double()) for k, v in tokens])
        assert (found.double() - expected).abs().max().item() <= self.tolerance
        self.compared += 1


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_random_walk(case: Case) -> None:
    """Oracle: a plain softmax over each row's own list of keys, in float64, in every forward of 30 random moves."""
    walk = Walk(case, seed=len(str(case)))
    walk.at_random(30)
    assert walk.compared > 150


def test_a_longer_walk() -> None:
    """Oracle: the same, over more of what may follow on what, with fewer heads."""
    for seed in range(6):
        Walk(Case(heads=2, key_heads=1, width=2, value_width=3, window=5 if seed % 2 else None), seed).at_random(50)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 3e-2)])
def test_other_dtypes(dtype: torch.dtype, tolerance: float) -> None:
    """Oracle: the same in float64, of the rounded numbers; 2 · 2⁻⁸ of sizes up to 4 in bfloat16."""
    Walk(Case(heads=4, key_heads=2, window=5, dtype=dtype), seed=3, tolerance=tolerance).at_random(30)


def test_rows_of_one_prompt() -> None:
    """Oracle: the same; a single prompt whose rows stay even needs no mask, and a step after a step none either."""
    walk = Walk(CASES["grouped queries"], seed=0)
    walk.join([5], [3])
    for _ in range(3):
        walk.step()
    walk.keep([1])
    walk.step()


@pytest.mark.parametrize("case", [CASES["grouped queries"], CASES["window"]], ids=["plain", "window"])
def test_nan_stays_in_its_row(case: Case) -> None:
    """Oracle: the same for all rows but the one that wrote NaN: beside it, after it left, and after others joined."""
    walk = Walk(case, seed=1)
    walk.join([4, 2], [3, 2])
    walk.step()
    walk.step(poison=1)
    walk.step()
    walk.join([6], [2])  # shorter rows beside the longer ones
    walk.step(poison=4)
    walk.keep([0, 1, 2, 4, 5, 6])
    walk.step()
    walk.keep([0, 2, 4, 5])
    walk.join([8], [1])
    walk.step()
    walk.step()


def test_nan_stays_in_its_prompt() -> None:
    """Oracle: the same; a prompt with NaN in the keys is seen by its own rows only."""
    walk = Walk(CASES["plain"], seed=2)
    states = walk._states

    def poisoned(rows: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = states(rows, tokens)
        key[:, :, :3] = value[:, :, :3] = math.nan
        return query, key, value

    walk.join([2], [1])
    walk._states = poisoned  # type: ignore[method-assign]
    walk._compare = lambda *_: None  # type: ignore[method-assign]
    walk.join([3], [2])
    del walk._states, walk._compare
    for rows in walk.rows:
        for row in rows[1:]:
            row.is_poisoned = True
    walk.join([5], [2])
    before = walk.compared
    walk.step()
    walk.keep([0, 1, 4])
    walk.step()
    assert walk.compared == before + 2 * (3 + 2)


def states(tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(3, 1, 2, tokens, 4, generator=torch.Generator().manual_seed(0)).unbind()


def begun() -> GroupCache:
    cache = GroupCache()
    cache.begin([3])
    return cache


@pytest.mark.parametrize(
    ("mask", "arguments", "reason"),
    [
        (lambda: None, {"group_cache": begun()}, "not handed the mask and the cache"),
        (lambda: torch.ones(1, 1, 3, 3), {"group_cache": begun()}, "not handed the mask and the cache"),
        (visibility, {}, "not handed the mask and the cache"),
        (visibility, {"group_cache": begun(), "sliding_window": 2}, "sliding window that its mask does not have"),
        (visibility, {"group_cache": begun(), "s_aux": torch.ones(2)}, "unknown here: s_aux"),
        (visibility, {"group_cache": begun(), "temperature": 0.0}, "unknown here: temperature"),
        (visibility, {"group_cache": begun(), "dropout": 0.1}, "p = 0.1"),
        (visibility, {"group_cache": begun(), "is_causal": False}, "not causal"),
    ],
)
def test_what_cannot_be_done_exactly_is_refused(
    mask: Callable[[], Any], arguments: dict[str, Any], reason: str
) -> None:
    """Oracle: the message names what was met; nothing is silently ignored."""
    with pytest.raises(AttentionRefusedError, match=reason):
        attend(nn.Identity(), *states(3), mask(), **arguments)


def test_what_says_nothing_is_ignored() -> None:
    """Oracle: identity; arguments that hold no more than the tensors do, and switches that are off."""
    layer = nn.Identity()
    plain, _ = attend(layer, *states(3), visibility(), group_cache=begun())
    others = {"position_ids": torch.arange(3), "output_attentions": False, "head_mask": None, "is_causal": True}
    found, _ = attend(layer, *states(3), visibility(), group_cache=begun(), **others)
    assert torch.equal(plain, found)


def test_a_mask_made_by_a_function_of_the_model_is_refused() -> None:
    """Oracle: the message; transformers says so with `use_vmap`."""
    with pytest.raises(AttentionRefusedError, match="a function of its own"):
        visibility(use_vmap=True)
