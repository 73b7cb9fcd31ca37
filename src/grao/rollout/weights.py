"""Weights as sampling wants them, for as long as it samples: in another dtype, and packed for products of few rows.

Decoding multiplies a few dozen rows with every weight, once a token. On a CPU that is bound by how a weight lies in
memory: oneDNN's packed layout made the products of a step 1.5 to 2 times faster than rows of a matrix did
(docs/performance.md), and packing costs one or two steps.
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
"""Dtypes in which weights are packed, and the relative error that a product may have there."""


@contextmanager
def weights_in(model: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Within, the model's floating-point weights are rounded to `dtype`; afterwards they are what they were before.

    Other parameters stand in their places, tied where those are tied. The model's own are not touched: to give one
    another dtype, even for a while, makes autograd forget the hooks by which DDP shares its gradient. Buffers keep
    their dtype: a rotary embedding's frequencies lose too much in half precision. None = leave all as they are.

    Raises:
        ValueError: the weights are shards, which whoever sharded them (FSDP) puts together in his own dtype.
    """
    found = [
        (module, name, p)
        for module in model.modules()
        for name, p in module.named_parameters(recurse=False, remove_duplicate=False)
        if dtype is not None and p.is_floating_point() and p.dtype != dtype
    ]
    if any(hasattr(p, "device_mesh") for _, _, p in found):
        raise ValueError(
            f"the weights are sharded over processes, so they cannot sample in {dtype}. Leave the rollout's dtype as "
            "the model's, and give FSDP a mixed-precision policy."
        )
    own = dict.fromkeys(p for _, _, p in found)
    rounded = {p: nn.Parameter(p.detach().to(dtype), requires_grad=p.requires_grad) for p in own}
    try:
        for module, name, p in found:
            setattr(module, name, rounded[p])
        yield
    finally:
        for module, name, p in found:
            setattr(module, name, p)


@contextmanager
def packed_linears(model: nn.Module) -> Iterator[int]:
    """Within, every plain `nn.Linear` on the CPU multiplies with a packed copy of its weight; yields how many do.

    The copies take the memory of those weights once more. Under autocast they are in its dtype. Weights must not
    change within. Where torch has no oneDNN, or a product with it is not as exact as `linear`, nothing is packed.
    """
    found = _packable(model)
    try:
        for linear in found:
            linear.forward = _packed_forward(linear)  # type: ignore[method-assign]
        yield len(found)
    finally:
        for linear in found:
            vars(linear).pop("forward", None)


class Packed(nn.Module):
    """Linear layers on one input as one product with a packed copy of their weights, and what may follow it at once.

    y = x [W₁; W₂; …]ᵀ + [b₁; b₂; …],   then silu(y),  z ⊙ y  or  y + z
    """

    layers: tuple[nn.Linear, ...]
    """Those that it stands for; not as modules of its own."""

    def __init__(self, layers: Sequence[nn.Linear]):
        super().__init__()
        self.layers = tuple(layers)
        self._weight = _pack(torch.cat([layer.weight.detach() for layer in layers]))
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self._bias = torch.cat(biases) if biases else None

    def forward(
        self, x: Tensor, *, silu: bool = False, multiply: Tensor | None = None, add: Tensor | None = None
    ) -> Tensor:
        """The product, with at most one of the three."""
        if multiply is None and add is None:
            return _product(x, self._weight, self._bias, "swish" if silu else "none")
        other, kind = (add, "add") if multiply is None else (multiply, "mul")
        y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self._weight, self._bias, kind)
        return y


def can_pack(layer: nn.Module) -> bool:
    """Whether it is a plain linear layer, on a CPU whose packed products are exact."""
    return (
        type(layer) is nn.Linear  # not a subclass: it may compute something else
        and "forward" not in vars(layer)
        and type(layer.weight) is nn.Parameter  # not a shard
        and layer.weight.device.type == "cpu"
        and layer.weight.numel() > 0
        and _packing_works(_product_dtype(layer.weight.dtype))
    )


def _packable(model: nn.Module) -> list[nn.Linear]:
    return [m for m in model.modules() if isinstance(m, nn.Linear) and can_pack(m)]


def _product_dtype(dtype: torch.dtype) -> torch.dtype:
    """In which `linear` multiplies with weights of this dtype; autocast leaves float64 alone."""
    casts = torch.is_autocast_enabled("cpu") and dtype != torch.float64
    return torch.get_autocast_dtype("cpu") if casts else dtype


def _packed_forward(linear: nn.Linear) -> Any:
    own_dtype = linear.weight.dtype
    dtype = _product_dtype(own_dtype)
    packed = _pack(linear.weight.detach().to(dtype))
    bias = None if linear.bias is None else linear.bias.detach().to(dtype)

    def forward(x: Tensor) -> Tensor:
        if _product_dtype(own_dtype) != dtype:  # the model switches autocast on or off by itself
            return nn.functional.linear(x, linear.weight, linear.bias)
        return _product(x.to(dtype), packed, bias)

    return forward


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)
    return packed


def _product(x: Tensor, packed: Tensor, bias: Tensor | None, then: str = "none") -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, then, [], "")
    return product


@functools.cache
def _packing_works(dtype: torch.dtype) -> bool:
    """These operators are torch's own, made for its compiler; whether they are here, and exact, is asked once."""
    if dtype not in EXACTNESS:
        return False
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    generator = torch.Generator().manual_seed(0)
    weight, x, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype) for shape in ((48, 64), (3, 64), (48,))
    )
    try:
        found = _product(x, _pack(weight), bias)
    except RuntimeError:  # such as bfloat16 on a processor that packs float32 only
        return False
    expected = nn.functional.linear(x.double(), weight.double(), bias.double())
    return float((found - expected).norm() / expected.norm()) < EXACTNESS[dtype]
