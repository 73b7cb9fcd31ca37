"""A key-value cache written in place.

Suffixes: N rows, H key-value heads, L columns (tokens kept so far), D dimensions of a head.
"""

from __future__ import annotations

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 128
"""Columns allocated ahead. A buffer is copied once every so many tokens, a cost of 1/128 of what attention reads."""


class InPlaceLayer(DynamicLayer):
    """A layer's keys and values in buffers with room ahead: a token is written in place, nothing is concatenated.

    It is attended to like the layer it was made from: `keys` and `values` are views [N, H, L, D] of what is filled.
    """

    def __init__(self, layer: DynamicLayer):
        super().__init__()
        assert layer.keys is not None, "only a layer that has seen its prompt can be taken over"
        assert layer.values is not None, "only a layer that has seen its prompt can be taken over"
        self.dtype, self.device = layer.keys.dtype, layer.keys.device
        self.is_initialized = True
        self._hold(layer.keys, layer.values, layer.keys.shape[-2])

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write the new columns behind the filled ones; returns all filled keys and values."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._key_buffer.shape[-2]:
            self._hold(_with_room(self._keys, end + ROOM), _with_room(self._values, end + ROOM), start)
        self._key_buffer[:, :, start:end] = key_states
        self._value_buffer[:, :, start:end] = value_states
        return self._hold(self._key_buffer, self._value_buffer, end)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep these rows, in this order; a row may be named many times."""
        length = self.get_seq_length()
        rows = beam_idx.to(self.device)
        keys, values = self._keys.index_select(0, rows), self._values.index_select(0, rows)
        self._hold(_with_room(keys, length + ROOM), _with_room(values, length + ROOM), length)

    def _hold(self, key_buffer: Tensor, value_buffer: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Take these buffers, filled up to `length`; returns the filled part."""
        self._key_buffer, self._value_buffer = key_buffer, value_buffer
        self._keys, self._values = key_buffer[:, :, :length], value_buffer[:, :, :length]
        self.keys, self.values = self._keys, self._values
        return self._keys, self._values


def write_in_place(cache: Cache) -> set[str]:
    """Make every plain attention layer of a prefilled cache an `InPlaceLayer`; the others stay as they are.

    A sliding window forgets and a recurrent layer has one state, so neither is a row of columns. Theirs are kept by
    transformers' own layers: right, but copied at every token.

    Returns:
        The class names of the layers left as they were; empty where all are written in place.
    """
    others = set()
    for i, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[i] = InPlaceLayer(layer)
        else:
            others.add(type(layer).__name__)
    return others


def _with_room(filled: Tensor, columns: int) -> Tensor:
    """A buffer of so many columns that begins with these."""
    N, H, L, D = filled.shape
    buffer = filled.new_empty(N, H, columns, D)
    buffer[:, :, :L] = filled
    return buffer
