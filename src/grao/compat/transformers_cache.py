"""A key-value cache of transformers whose layers are written in place.

Relies on `DynamicLayer`: its attributes `keys`, `values`, `dtype`, `device` and `is_initialized`, and the signatures
of `update` and `reorder_cache`, which the cache calls.

Suffixes: N rows, H key-value heads, L columns (tokens kept so far), D dimensions of a head.
"""

from __future__ import annotations

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 128
"""Columns allocated ahead. A buffer is copied once per 128 tokens, a cost of 1/128 of what attention reads."""


class InPlaceLayer(DynamicLayer):
    """A layer's keys and values in buffers with room ahead, so that a token is written without concatenation.

    Models read it like the layer it was made from: `keys` and `values` are views [N, H, L, D] of the filled part.
    """

    def __init__(self, layer: DynamicLayer):
        super().__init__()
        assert layer.keys is not None and layer.values is not None, "the layer has no prompt yet"  # noqa: PT018
        self.dtype, self.device = layer.keys.dtype, layer.keys.device
        self.is_initialized = True
        self._hold(layer.keys, layer.values, layer.keys.shape[-2])

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Append the new columns; returns all filled keys and values."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._key_buffer.shape[-2]:
            self._hold(_with_room(self._keys, end + ROOM), _with_room(self._values, end + ROOM), start)
        self._key_buffer[:, :, start:end] = key_states
        self._value_buffer[:, :, start:end] = value_states
        return self._hold(self._key_buffer, self._value_buffer, end)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep these rows, in this order; a row may be repeated."""
        length = self.get_seq_length()
        rows = beam_idx.to(self.device)
        keys, values = self._keys.index_select(0, rows), self._values.index_select(0, rows)
        self._hold(_with_room(keys, length + ROOM), _with_room(values, length + ROOM), length)

    def _hold(self, key_buffer: Tensor, value_buffer: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Use these buffers, filled up to `length`; returns the filled part."""
        self._key_buffer, self._value_buffer = key_buffer, value_buffer
        self._keys, self._values = key_buffer[:, :, :length], value_buffer[:, :, :length]
        self.keys, self.values = self._keys, self._values
        return self._keys, self._values


def write_in_place(cache: Cache) -> set[str]:
    """Replace every plain attention layer of a prefilled cache by an `InPlaceLayer`.

    Layers with a sliding window or a recurrent state keep transformers' own class: correct, but copied at every token.

    Returns:
        The class names of the layers that were not replaced.
    """
    others = set()
    for i, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[i] = InPlaceLayer(layer)
        else:
            others.add(type(layer).__name__)
    return others


def _with_room(filled: Tensor, columns: int) -> Tensor:
    """Return a buffer with this many columns that starts with `filled`."""
    N, H, L, D = filled.shape
    buffer = filled.new_empty(N, H, columns, D)
    buffer[:, :, :L] = filled
    return buffer
