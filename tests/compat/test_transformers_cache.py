"""A cache written in place against transformers' own."""

from __future__ import annotations

import inspect

import torch
from transformers import DynamicCache, MistralConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from grao.compat.transformers_cache import ROOM, InPlaceLayer, write_in_place


def states(rows: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of two heads; unlike dimensions, as multi-head latent attention has them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 2, columns, 6, generator=generator), torch.randn(rows, 2, columns, 4, generator=generator)


def test_a_layer_in_place_holds_what_a_growing_one_holds() -> None:
    """Oracle: transformers' DynamicLayer through the same writes, fan-out and compactions, past two reallocations."""
    plain, prefilled = DynamicLayer(), DynamicLayer()
    plain.update(*states(3, 5, seed=0))
    prefilled.update(*states(3, 5, seed=0))
    layer = InPlaceLayer(prefilled)
    selections = {1: [0, 0, 1, 1, 2, 2], 40: [5, 0, 3], ROOM + 50: [2, 1]}
    rows = 3
    for step in range(1, 3 * ROOM):
        if step in selections:
            for each in (plain, layer):
                each.reorder_cache(torch.tensor(selections[step]))
            rows = len(selections[step])
        new = states(rows, 1, seed=step)
        for ours, theirs in zip(layer.update(*new), plain.update(*new), strict=True):
            assert torch.equal(ours, theirs)
        assert layer.get_seq_length() == plain.get_seq_length() == 5 + step
        assert layer.get_mask_sizes(1) == plain.get_mask_sizes(1)


def test_tokens_are_written_in_place() -> None:
    """Oracle: the address of the keys; it changes once every `ROOM` tokens and not between."""
    layer = DynamicLayer()
    layer.update(*states(2, 5, seed=0))
    layer = InPlaceLayer(layer)
    layer.reorder_cache(torch.tensor([0, 1, 1]))
    addresses = [layer.update(*states(3, 1, seed=t))[0].data_ptr() for t in range(ROOM + 1)]
    assert len(set(addresses[:ROOM])) == 1
    assert addresses[ROOM] != addresses[0]


def test_only_plain_layers_are_taken_over() -> None:
    """Oracle: by hand; a model of sliding windows keeps its layers and says which, a plain one keeps none."""
    sliding = DynamicCache(config=MistralConfig(num_hidden_layers=2, sliding_window=4))
    plain = DynamicCache(config=MistralConfig(num_hidden_layers=2, sliding_window=None))
    for cache in (sliding, plain):
        for layer in range(2):
            cache.update(*states(1, 3, seed=layer), layer)
    assert write_in_place(sliding) == {"DynamicSlidingWindowLayer"}
    assert all(type(layer) is DynamicSlidingWindowLayer for layer in sliding.layers)
    assert write_in_place(plain) == set()
    assert all(type(layer) is InPlaceLayer for layer in plain.layers)


def test_what_a_dynamic_layer_is() -> None:
    """Oracle: transformers' class: the attributes that ours sets, and the signatures that it overrides."""
    assert set(vars(DynamicLayer())) == {"keys", "values", "is_initialized"}
    filled = DynamicLayer()
    filled.update(*states(1, 2, seed=0))
    assert set(vars(filled)) == {"keys", "values", "is_initialized", "dtype", "device"}
    assert [*inspect.signature(DynamicLayer.update).parameters][:3] == ["self", "key_states", "value_states"]
    assert [*inspect.signature(DynamicLayer.reorder_cache).parameters] == ["self", "beam_idx"]
