"""Weights as sampling wants them, for as long as it samples: in another dtype, and packed for products of few rows.

Decoding multiplies a few dozen rows with every weight, once a token. On a CPU that is bound by how a weight lies in
memory: oneDNN's packed layout made the products of a step 1.5 to 2 times faster than rows of a matrix did
(docs/performance.md), and packing costs as much as a few steps.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

ROWS = 32
"""Rows that weights are packed for; products of 1 to 500 rows were as fast as with a packing of their own."""
PACKED_DTYPES = (torch.float32, torch.bfloat16)


@contextmanager
def weights_in(model: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Within, the model's floating-point weights are rounded to `dtype`; afterwards they are what they were before.

    The parameters stay the same objects, so ties, hooks and optimisers do not notice. Buffers keep their dtype: a
    rotary embedding's frequencies lose too much in half precision. None = leave all as they are.
    """
    weights = [p for p in model.parameters() if dtype is not None and p.is_floating_point() and p.dtype != dtype]
    kept = [p.data for p in weights]
    try:
        for p in weights:
            p.data = p.data.to(dtype)
        yield
    finally:
        for p, data in zip(weights, kept, strict=True):
            p.data = data


@contextmanager
def packed_linears(model: nn.Module) -> Iterator[int]:
    """Within, every plain `nn.Linear` on the CPU multiplies with a packed copy of its weight; yields how many do.

    The copies take the memory of those weights once more. Under autocast they are in its dtype. Weights must not
    change within. Where torch has no oneDNN, or a product with it is not as exact as `linear`, nothing is packed.
    """
    found = _packable(model) if _packing_works() else []
    for linear in found:
        linear.forward = _packed_forward(linear)  # type: ignore[method-assign]
    try:
        yield len(found)
    finally:
        for linear in found:
            del linear.forward


def _packable(model: nn.Module) -> list[nn.Linear]:
    autocast = torch.is_autocast_enabled("cpu")
    return [
        m
        for m in model.modules()
        if type(m) is nn.Linear  # not a subclass: it may compute something else
        and "forward" not in vars(m)
        and type(m.weight) is nn.Parameter  # not a shard
        and m.weight.device.type == "cpu"
        and (_dtype(m.weight, autocast) in PACKED_DTYPES)
    ]


def _dtype(weight: Tensor, autocast: bool) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if autocast and weight.dtype == torch.float32 else weight.dtype


def _packed_forward(linear: nn.Linear) -> Any:
    dtype = _dtype(linear.weight, torch.is_autocast_enabled("cpu"))
    packed = _pack(linear.weight.detach().to(dtype))
    bias = None if linear.bias is None else linear.bias.detach().to(dtype)

    def forward(x: Tensor) -> Tensor:
        return _product(x.to(dtype), packed, bias)

    return forward


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)
    return packed


def _product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return product


@functools.cache
def _packing_works() -> bool:
    """These operators are torch's own, made for its compiler; whether they are here, and exact, is asked once."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(48, 64, generator=generator), torch.randn(3, 64, generator=generator)
    bias = torch.randn(48, generator=generator)
    try:
        found = _product(x, _pack(weight), bias)
    except RuntimeError:
        return False
    expected = nn.functional.linear(x.double(), weight.double(), bias.double())
    return float((found - expected).norm() / expected.norm()) < 1e-6
