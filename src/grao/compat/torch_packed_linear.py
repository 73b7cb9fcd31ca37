"""Linear layers on weights in oneDNN's packed layout, for products of few rows on a CPU.

Decoding multiplies a few dozen rows with every weight, once per token, which is bound by how a weight lies in memory:
the packed layout made the products of a step 1.5 to 2 times faster (docs/performance.md). Packing costs one or two
steps.

Relies on operators that torch made for its compiler, `torch.ops.mkldnn._reorder_linear_weight` and
`_linear_pointwise`. Each process checks once per dtype that they exist and are exact; otherwise nothing is packed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

ROWS = 32
"""Rows that weights are packed for; products of 1 to 500 rows were as fast as with a packing of their own."""
EXACTNESS = {torch.float32: 1e-6, torch.bfloat16: 2.0**-8}
"""Dtypes in which weights are packed, and the largest relative error of a product."""


@contextmanager
def packed_linears(model: nn.Module) -> Iterator[int]:
    """Make every plain `nn.Linear` on the CPU use a packed copy of its weight within the context.

    The copies take the memory of those weights once more, and are in autocast's dtype where it is on. Weights must not
    change within. Nothing is packed where torch has no oneDNN, or its product is not as exact as `linear`.

    Yields:
        How many layers are packed.
    """
    found = [m for m in model.modules() if isinstance(m, nn.Linear) and can_pack(m)]
    try:
        for linear in found:
            linear.forward = _packed_forward(linear)  # type: ignore[method-assign]
        yield len(found)
    finally:
        for linear in found:
            vars(linear).pop("forward", None)


class Packed(nn.Module):
    """Several linear layers on one input as one packed product, fused with one operation that follows it.

    y = x [W₁; W₂; …]ᵀ + [b₁; b₂; …],   then silu(y),  z ⊙ y  or  y + z
    """

    layers: tuple[nn.Linear, ...]
    """The layers it replaces; not registered as submodules."""

    def __init__(self, layers: Sequence[nn.Linear]):
        super().__init__()
        self.layers = tuple(layers)
        self._weight = pack(torch.cat([layer.weight.detach() for layer in layers]))
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self._bias = torch.cat(biases) if biases else None

    def forward(
        self, x: Tensor, *, silu: bool = False, multiply: Tensor | None = None, add: Tensor | None = None
    ) -> Tensor:
        """Return the product, followed by at most one of the three operations."""
        if multiply is None and add is None:
            return product(x, self._weight, self._bias, "swish" if silu else "none")
        other, kind = (add, "add") if multiply is None else (multiply, "mul")
        y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self._weight, self._bias, kind)
        return y


def can_pack(layer: nn.Module) -> bool:
    """Return whether this is a plain linear layer on a CPU whose packed products are exact."""
    return (
        type(layer) is nn.Linear  # not a subclass: it may compute something else
        and "forward" not in vars(layer)
        and type(layer.weight) is nn.Parameter  # not a shard
        and layer.weight.device.type == "cpu"
        and layer.weight.numel() > 0
        and packing_works(_product_dtype(layer.weight.dtype))
    )


def _product_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which `linear` multiplies weights of this dtype; autocast leaves float64 alone."""
    casts = torch.is_autocast_enabled("cpu") and dtype != torch.float64
    return torch.get_autocast_dtype("cpu") if casts else dtype


def _packed_forward(linear: nn.Linear) -> Any:
    own_dtype = linear.weight.dtype
    dtype = _product_dtype(own_dtype)
    packed = pack(linear.weight.detach().to(dtype))
    bias = None if linear.bias is None else linear.bias.detach().to(dtype)

    def forward(x: Tensor) -> Tensor:
        if _product_dtype(own_dtype) != dtype:  # the model itself switches autocast
            return nn.functional.linear(x, linear.weight, linear.bias)
        return product(x.to(dtype), packed, bias)

    return forward


def pack(weight: Tensor) -> Tensor:
    """Return a copy of the weight in oneDNN's layout."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)
    return packed


def product(x: Tensor, packed: Tensor, bias: Tensor | None, then: str = "none") -> Tensor:
    """Return x · Wᵀ + bias for a packed weight, followed by the operation that oneDNN calls `then`."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, then, [], "")
    return y


@functools.cache
def packing_works(dtype: torch.dtype) -> bool:
    """Return whether packed products exist here in this dtype and are exact; checked once per process."""
    if dtype not in EXACTNESS:
        return False
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    generator = torch.Generator().manual_seed(0)
    weight, x, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype) for shape in ((48, 64), (3, 64), (48,))
    )
    try:
        found = product(x, pack(weight), bias)
    except RuntimeError:  # such as bfloat16 on a processor that packs float32 only
        return False
    expected = nn.functional.linear(x.double(), weight.double(), bias.double())
    return float((found - expected).norm() / expected.norm()) < EXACTNESS[dtype]
