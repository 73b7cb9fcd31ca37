"""Keys and values of groups while they are sampled: a prompt's once for all its samples, a sample's own in place.

Suffixes: P prompts, N rows (samples being drawn), H key-value heads, S columns of the longest prompt, L columns of the
longest sample, D dimensions of a head, C columns allocated, W rows in the widest group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

ROOM = 128
"""Columns allocated ahead. A buffer is copied once per 128 tokens, a cost of 1/128 of what attention reads."""


@dataclass(eq=False, slots=True)
class Visibility:
    """What one kind of layer may see, by the model's own rule; made once per forward."""

    sees: Callable[..., Tensor] | None
    """(batch, head, query, key) → whether the query sees the key, by places in a sequence; None = all earlier ones."""
    hidden: Tensor | None = None
    """Additive mask of the current step; made by the first layer that needs it."""
    is_made: bool = False


@dataclass(slots=True)
class LayerCache:
    """One layer's keys and values."""

    prompt_keys: Tensor
    """[P, H, S, D], zero after a prompt's end: hidden values must be finite, as 0 · NaN is NaN."""
    prompt_values: Tensor
    keys: Tensor
    """[N, H, C, D], of which the first columns are filled."""
    values: Tensor


@dataclass(slots=True)
class GroupCache:
    """Every layer's cache, and which row belongs to which prompt.

    Rows are in the order of their prompts. New prompts come after old ones, whose rows may have any length.
    """

    prompts: list[int] = field(default_factory=list)
    """Tokens of each prompt."""
    counts: list[int] = field(default_factory=list)
    """Rows of each prompt."""
    filled: list[int] = field(default_factory=list)
    """Tokens of each row, without its prompt."""
    prefilling: list[int] = field(default_factory=list)
    """Lengths of the prompts in the current forward; empty while it runs one token per row."""
    layers: dict[Any, LayerCache] = field(default_factory=dict)
    """By attention module."""
    _grid: tuple[Tensor, Tensor] | None = None

    # ------------------------------------------------------------------ rows come and go

    def begin(self, lengths: Sequence[int]) -> None:
        """Announce that the next forward runs these prompts, side by side."""
        self.prefilling = list(lengths)

    def add_prompts(self, layer: Any, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Store what a layer computed for the prompts being prefilled; each [H, S_p, D]."""
        found = self.layers.get(layer)
        longest = max(*self.prompts, *self.prefilling) if self.prompts else max(self.prefilling)
        new_keys, new_values = (torch.stack([_widened(x, longest) for x in each]) for each in (keys, values))
        if found is None:
            none = new_keys.new_zeros(0, new_keys.shape[1], ROOM, new_keys.shape[-1])
            none_too = new_values.new_zeros(0, new_values.shape[1], ROOM, new_values.shape[-1])
            self.layers[layer] = LayerCache(new_keys, new_values, none, none_too)
        else:
            found.prompt_keys = torch.cat([_widened(found.prompt_keys, longest), new_keys])
            found.prompt_values = torch.cat([_widened(found.prompt_values, longest), new_values])

    def add_rows(self, counts: Sequence[int], device: torch.device) -> None:
        """Give each prompt just prefilled `counts` empty rows."""
        self.prompts += self.prefilling
        self.counts += counts
        self.filled += [0] * sum(counts)
        self.prefilling = []
        for layer in self.layers.values():
            layer.keys = _with_rows(layer.keys, sum(counts))
            layer.values = _with_rows(layer.values, sum(counts))
        self._grid = self._make_grid(device)

    def keep(self, rows: Sequence[int], device: torch.device) -> None:
        """Keep only these rows, in rising order; drop prompts without a row."""
        ends = list(accumulate(self.counts))
        starts = [end - count for end, count in zip(ends, self.counts, strict=True)]
        left = [sum(start <= row < end for row in rows) for start, end in zip(starts, ends, strict=True)]
        places = [p for p, count in enumerate(left) if count]
        rows_N, places_P = (torch.tensor(x, dtype=torch.long, device=device) for x in (rows, places))
        self.prompts = [self.prompts[p] for p in places]
        self.counts = [left[p] for p in places]
        self.filled = [self.filled[row] for row in rows]
        L, S = max(self.filled, default=0), max(self.prompts, default=0)
        fewer = len(places) < len(left)
        for layer in self.layers.values():
            layer.keys = _selected(layer.keys, rows_N, L)
            layer.values = _selected(layer.values, rows_N, L)
            if fewer:
                layer.prompt_keys = layer.prompt_keys[places_P, :, :S].contiguous()
                layer.prompt_values = layer.prompt_values[places_P, :, :S].contiguous()
        self._grid = self._make_grid(device)

    # ------------------------------------------------------------------ a step

    def write(self, layer: Any, key_NHD: Tensor, value_NHD: Tensor) -> tuple[Tensor, Tensor]:
        """Append each row's new key and value; return all of them [N, H, L, D]."""
        cache, L = self.layers[layer], max(self.filled) + 1
        if cache.keys.shape[2] < L:
            cache.keys, cache.values = (_widened(x, L - 1 + ROOM) for x in (cache.keys, cache.values))
        if self.is_even:
            cache.keys[:, :, L - 1], cache.values[:, :, L - 1] = key_NHD, value_NHD
        else:
            rows = torch.arange(len(self.filled), device=key_NHD.device)
            columns = torch.tensor(self.filled, device=key_NHD.device)
            cache.keys[rows, :, columns], cache.values[rows, :, columns] = key_NHD, value_NHD
        return cache.keys[:, :, :L], cache.values[:, :, :L]

    def advance(self) -> None:
        """Count one more token in every row."""
        self.filled = [n + 1 for n in self.filled]

    @property
    def is_even(self) -> bool:
        """Whether all rows have the same number of tokens."""
        return min(self.filled) == max(self.filled)

    def hidden(self, visibility: Visibility, like: Tensor) -> Tensor | None:
        """Return [N, 1, 1, S + L], −∞ where a row does not see a column; None if every row sees every column."""
        if not visibility.is_made:
            visibility.hidden, visibility.is_made = self._hidden(visibility.sees, like), True
        return visibility.hidden

    def _hidden(self, sees: Callable[..., Tensor] | None, like: Tensor) -> Tensor | None:
        if sees is None and self.is_even and min(self.prompts) == max(self.prompts):
            return None
        device = like.device
        S, L = max(self.prompts), max(self.filled) + 1
        prompts_N1 = torch.tensor(self.prompts, device=device).repeat_interleave(self._counts(device))[:, None]
        filled_N1 = torch.tensor(self.filled, device=device)[:, None]
        column_S, column_L = torch.arange(S, device=device), torch.arange(L, device=device)
        real_NC = torch.cat([column_S < prompts_N1, column_L <= filled_N1], 1)
        if sees is not None:
            places_NC = torch.cat([column_S.expand(len(prompts_N1), S), prompts_N1 + column_L], 1)
            zero = torch.zeros(1, dtype=torch.long, device=device)
            real_NC = real_NC & sees(zero, zero, prompts_N1 + filled_N1, places_NC)
        return torch.zeros_like(real_NC, dtype=like.dtype).masked_fill(~real_NC, -torch.inf)[:, None, None]

    # ------------------------------------------------------------------ rows by prompt

    def by_prompt(self, x: Tensor) -> Tensor:
        """Return rows [N, …] as a grid [P, W, …]; a prompt with fewer than W rows is filled with its last one."""
        if self._grid is None:
            return x.view(len(self.counts), -1, *x.shape[1:])
        return x[self._grid[0]].view(len(self.counts), -1, *x.shape[1:])

    def by_row(self, x: Tensor) -> Tensor:
        """Return a grid [P, W, …] as rows [N, …]."""
        x = x.flatten(0, 1)
        return x if self._grid is None else x[self._grid[1]]

    def _make_grid(self, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """Return the row at each place of the grid and the place of each row; None if all counts are equal."""
        if len(set(self.counts)) <= 1:
            return None
        W, starts = max(self.counts), [0, *accumulate(self.counts)]
        at_place = [
            start + min(w, count - 1) for start, count in zip(starts, self.counts, strict=False) for w in range(W)
        ]
        place_of = [p * W + w for p, count in enumerate(self.counts) for w in range(count)]
        return torch.tensor(at_place, device=device), torch.tensor(place_of, device=device)

    def _counts(self, device: torch.device) -> Tensor:
        return torch.tensor(self.counts, device=device)


def _widened(x: Tensor, columns: int) -> Tensor:
    """Pad with zeros to […, columns, D]."""
    missing = columns - x.shape[-2]
    return pad(x, (0, 0, 0, missing)) if missing > 0 else x


def _with_rows(x: Tensor, rows: int) -> Tensor:
    """Append `rows` empty rows to [N, H, C, D]."""
    return torch.cat([x, x.new_zeros(rows, *x.shape[1:])])


def _selected(x: Tensor, rows: Tensor, filled: int) -> Tensor:
    """Return these rows' filled columns, with room ahead."""
    buffer = x.new_zeros(len(rows), x.shape[1], filled + ROOM, x.shape[3])
    buffer[:, :, :filled] = x[:, :, :filled].index_select(0, rows)
    return buffer
