from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.masking_utils import sliding_window_causal_mask_function

from grao.rollout.group_cache import ROOM, GroupCache, Visibility

CPU = torch.device("cpu")
X = -math.inf


def cache_of(prompts: list[int], counts: list[int], layers: int = 1) -> GroupCache:
    """A prompt's keys are 100 p + t, one head and one dimension; the values their negatives in two dimensions."""
    cache = GroupCache()
    join(cache, prompts, counts, layers)
    return cache


def join(cache: GroupCache, prompts: list[int], counts: list[int], layers: int = 1) -> None:
    keys = [100.0 * (len(cache.prompts) + p) + torch.arange(length)[None, :, None] for p, length in enumerate(prompts)]
    cache.begin(prompts)
    for layer in range(layers):
        cache.add_prompts(layer, keys, [-k.expand(-1, -1, 2) for k in keys])
    cache.add_rows(counts, CPU)


def step(cache: GroupCache, numbers: list[float], layer: Any = 0) -> tuple[Tensor, Tensor]:
    """Give each row this number for a key, and its negative for a value; returns all of them, [N, L] and [N, L, 2]."""
    x = torch.tensor(numbers, dtype=torch.float32)[:, None, None]
    keys, values = cache.write(layer, x, -x.expand(-1, -1, 2))
    return keys[:, 0, :, 0], values[:, 0]


def test_a_prompt_is_kept_once() -> None:
    """Oracle: written out; two prompts of 3 and 1 tokens side by side, whatever their rows, zero behind the end."""
    cache = cache_of([3, 1], [4, 2])
    assert cache.layers[0].prompt_keys[:, 0, :, 0].tolist() == [[0, 1, 2], [100, 0, 0]]
    assert cache.layers[0].prompt_values[:, 0, :, 1].tolist() == [[0, -1, -2], [-100, 0, 0]]
    assert len(cache.layers[0].keys) == 6
    join(cache, [4], [1])  # a longer one joins
    assert cache.layers[0].prompt_keys[:, 0, :, 0].tolist() == [[0, 1, 2, 0], [100, 0, 0, 0], [200, 201, 202, 203]]
    join(cache, [1], [1])  # a shorter one joins
    assert cache.layers[0].prompt_keys[3, 0, :, 0].tolist() == [300, 0, 0, 0]
    assert (cache.prompts, cache.counts, cache.filled) == ([3, 1, 4, 1], [4, 2, 1, 1], [0] * 8)


def test_rows_write_at_their_own_places() -> None:
    """Oracle: written out; rows that joined later are a column behind, and keep their columns when others go."""
    cache = cache_of([2], [2])
    assert step(cache, [1, 2])[0].tolist() == [[1], [2]]
    cache.advance()
    join(cache, [3], [1])
    assert not cache.is_even
    keys, values = step(cache, [11, 12, 13])
    assert keys.tolist() == [[1, 11], [2, 12], [13, 0]]
    assert values[:, :, 1].tolist() == [[-1, -11], [-2, -12], [-13, 0]]
    cache.advance()
    assert cache.filled == [2, 2, 1]
    cache.keep([1, 2], CPU)
    assert (cache.prompts, cache.counts, cache.filled) == ([2, 3], [1, 1], [2, 1])
    assert step(cache, [22, 23])[0].tolist() == [[2, 12, 22], [13, 23, 0]]
    cache.advance()
    cache.keep([1], CPU)  # the longest row goes, and its prompt with it
    assert (cache.prompts, cache.counts, cache.filled) == ([3], [1], [2])
    assert step(cache, [33])[0].tolist() == [[13, 23, 33]]
    assert cache.layers[0].prompt_keys[:, 0, :, 0].tolist() == [[100, 101, 102]]


def test_prompts_that_are_let_go_free_their_memory() -> None:
    """Oracle: counting; after the longest prompt left, as many columns as the longest that is there."""
    cache = cache_of([2, 50, 3], [1, 1, 1], layers=2)
    cache.keep([0, 2], CPU)
    for layer in cache.layers.values():
        assert layer.prompt_keys.shape == (2, 1, 3, 1)
        assert layer.prompt_keys.untyped_storage().nbytes() == 2 * 3 * layer.prompt_keys.element_size()
        assert layer.prompt_keys[1, 0, :, 0].tolist() == [200, 201, 202]


def test_all_leave_and_others_begin() -> None:
    """Oracle: a new cache, which holds the same after the same."""
    cache = cache_of([5], [2])
    step(cache, [1, 2])
    cache.advance()
    cache.keep([], CPU)
    assert (cache.prompts, cache.counts, cache.filled) == ([], [], [])
    other = GroupCache()
    for each in (cache, other):
        join(each, [3, 2], [1, 2])
        keys, values = step(each, [7, 8, 9])
        assert keys.tolist() == [[7], [8], [9]]
        assert values.shape == (3, 1, 2)
        assert each.layers[0].prompt_keys[:, 0, :, 0].tolist() == [[0, 1, 2], [100, 101, 0]]


@pytest.mark.parametrize("is_even", [True, False])
def test_rows_outgrow_their_room(is_even: bool) -> None:
    """Oracle: plain lists, past two reallocations, rows level and one ten tokens behind."""
    cache, lists = cache_of([2], [2]), [[], []]
    for t in range(2 * ROOM + 20):
        if t == 10 and not is_even:
            join(cache, [1], [1])
            lists.append([])
        numbers = [float(1000 * n + t) for n in range(len(lists))]
        for row, number in zip(lists, numbers, strict=True):
            row.append(number)
        keys, values = step(cache, numbers)
        cache.advance()
        for found, value, row in zip(keys, values, lists, strict=True):
            assert found[: len(row)].tolist() == row
            assert not found[len(row) :].any()
            assert torch.equal(value, -found[:, None].expand(-1, 2))


def test_tokens_are_written_in_place() -> None:
    """Oracle: the address of the keys; it changes once every `ROOM` tokens and not between."""
    cache = cache_of([2, 3], [2, 1])
    addresses = []
    for _ in range(2 * ROOM + 1):
        addresses.append(step(cache, [1, 2, 3])[0].data_ptr())
        cache.advance()
    assert [t for t in range(1, len(addresses)) if addresses[t] != addresses[t - 1]] == [ROOM, 2 * ROOM]


def hidden(cache: GroupCache, sees: Any = None, dtype: torch.dtype = torch.float32) -> list[list[float]] | None:
    found = cache.hidden(Visibility(sees), torch.zeros(0, dtype=dtype))
    return None if found is None else found[:, 0, 0].tolist()


def test_what_is_hidden() -> None:
    """Oracle: written out; columns of the prompts of 3 and 1 tokens, then of the rows with 1 and 0 tokens, and the one
    that is being run."""
    assert hidden(cache_of([3, 3], [2, 1])) is None  # all see all
    cache = cache_of([3], [1])
    cache.advance()
    join(cache, [1], [2])
    assert hidden(cache) == [[0, 0, 0, 0, 0], [0, X, X, 0, X], [0, X, X, 0, X]]
    cache.advance()
    assert hidden(cache)[1] == [0, X, X, 0, 0, X]
    assert hidden(cache_of([3, 1], [1, 1])) == [[0, 0, 0, 0], [0, X, X, 0]]  # level rows, uneven prompts
    level = cache_of([2], [1])
    level.advance()
    join(level, [2], [1])
    assert hidden(level) == [[0, 0, 0, 0], [0, 0, 0, X]]  # even prompts, uneven rows


def test_what_a_window_hides() -> None:
    """Oracle: written out; a window of 2 tokens, counted from each row's own place, over the prompt's end."""
    sees = sliding_window_causal_mask_function(2)
    cache = cache_of([3], [1])
    cache.advance()
    join(cache, [1], [1])
    assert hidden(cache, sees) == [[X, X, X, 0, 0], [0, X, X, 0, X]]
    even = cache_of([3], [1])
    assert hidden(even, sees) == [[X, X, 0, 0]]


def test_what_is_hidden_is_made_once_a_forward() -> None:
    """Oracle: identity; layers of one kind share it, and it has the dtype of the scores it is added to."""
    cache, visibility = cache_of([3, 1], [1, 1]), Visibility(None)
    first = cache.hidden(visibility, torch.zeros(0, dtype=torch.bfloat16))
    assert first is cache.hidden(visibility, torch.zeros(0, dtype=torch.bfloat16))
    assert first is not None
    assert first.dtype == torch.bfloat16


def test_rows_by_prompt() -> None:
    """Oracle: written out; prompts of 2, 1 and 3 rows in a grid of three columns, and back."""
    cache, x = cache_of([1, 1, 1], [2, 1, 3]), torch.arange(6)
    grid = cache.by_prompt(x)
    assert grid.shape == (3, 3)
    assert [row[:count].tolist() for row, count in zip(grid, [2, 1, 3], strict=True)] == [[0, 1], [2], [3, 4, 5]]
    assert cache.by_row(grid).tolist() == x.tolist()
    cache.keep([0, 2, 4], CPU)  # one row each: nothing to fill
    assert cache.by_prompt(x[:3]).tolist() == [[0], [1], [2]]
    assert cache.by_row(x[:3, None]).tolist() == [0, 1, 2]
