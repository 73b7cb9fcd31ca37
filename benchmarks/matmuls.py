"""The matrix products of linear layers: which ones a phase of a step runs, and how long those alone take.

A linear layer on n tokens is one product in a forward pass, y = x Wᵀ, and two in a backward pass, ∂x = ∂y W and
∂W = ∂yᵀ x, of 2 n · inputs · outputs floating-point operations each. Their time is a floor under that of the phase:
what attention, norms, softmax, sampling and Python take comes on top. Products of attention are not among them.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.modules.module import register_module_forward_pre_hook

from grao.compat.torch_packed_linear import Packed
from step_meter import PartClock


@dataclass(frozen=True)
class Call:
    """One forward call of a linear layer."""

    layer: nn.Linear
    tokens: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Tokens, inputs, outputs."""
        return self.tokens, self.layer.in_features, self.layer.out_features

    @property
    def flops(self) -> int:
        return 2 * prod(self.shape)


class CallRecorder:
    """Every call of an `nn.Linear` in this process, by the part of the step that it ran in.

    The hook belongs to no module, and runs before a module's `forward`, be it the class's or one that replaces it.
    """

    def __init__(self, clock: PartClock) -> None:
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self._clock = clock

    @contextmanager
    def recording(self) -> Iterator[None]:
        hook = register_module_forward_pre_hook(self._record)
        try:
            yield
        finally:
            hook.remove()

    def take(self) -> dict[str, list[Call]]:
        """What was recorded since the last time."""
        taken, self.calls = dict(self.calls), defaultdict(list)
        return taken

    def _record(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        # A packed product is listed as those of the layers that it stands for.
        layers = (module,) if isinstance(module, nn.Linear) else module.layers if isinstance(module, Packed) else ()
        for layer in layers:
            self.calls[self._clock.current].append(Call(layer, args[0].numel() // layer.in_features))


def counted(calls: Iterable[Call]) -> list[dict[str, int]]:
    """Calls by their shape, the most work first."""
    times = Counter(call.shape for call in calls)
    return [
        {"tokens": tokens, "inputs": inputs, "outputs": outputs, "times": n}
        for (tokens, inputs, outputs), n in sorted(times.items(), key=lambda item: -item[1] * prod(item[0]))
    ]


def least_tokens(calls: Iterable[Call], but: nn.Module) -> int:
    """Of all layers but this one: through how many tokens in all the one with the fewest was run."""
    tokens: Counter[nn.Linear] = Counter()
    for call in calls:
        tokens[call.layer] += call.tokens
    return min((n for layer, n in tokens.items() if layer is not but), default=0)


Multiply = Callable[[Tensor, nn.Linear], Tensor]


class Products:
    """Runs the products of calls, on random inputs and the layers' own weights, in the calls' order.

    Their own weights, because caches then hold as much and as little of them as in the step.

    Args:
        packed: weights are packed by oneDNN beforehand, which takes no time here; else `F.linear` and `@`.
    """

    def __init__(self, packed: bool) -> None:
        self._multiply: Multiply = _Packed(transposed=False) if packed else _plain
        self._multiply_back: Multiply = _Packed(transposed=True) if packed else _plain_back
        self._random: dict[tuple[int, int], Tensor] = {}

    @torch.no_grad()
    def forward_seconds(self, calls: Sequence[Call]) -> float:
        """One product a call."""
        for call in _one_of_each(calls):
            self._multiply(self._matrix(call.tokens, call.layer.in_features), call.layer)
        work = [(self._matrix(call.tokens, call.layer.in_features), call.layer) for call in calls]
        start = time.perf_counter()
        for x, layer in work:
            self._multiply(x, layer)
        return time.perf_counter() - start

    @torch.no_grad()
    def backward_seconds(self, calls: Sequence[Call]) -> float:
        """Two products a call, the last call first."""
        for call in _one_of_each(calls):
            self._multiply_back(self._matrix(call.tokens, call.layer.out_features), call.layer)
        shapes = [(call.layer, *call.shape) for call in reversed(calls)]
        work = [(layer, self._matrix(n, inputs), self._matrix(n, outputs)) for layer, n, inputs, outputs in shapes]
        start = time.perf_counter()
        for layer, x, grad in work:
            self._multiply_back(grad, layer)
            grad.t() @ x
        return time.perf_counter() - start

    def _matrix(self, rows: int, columns: int) -> Tensor:
        if (rows, columns) not in self._random:
            self._random[rows, columns] = torch.rand(rows, columns)
        return self._random[rows, columns]


def _one_of_each(calls: Iterable[Call]) -> Collection[Call]:
    """Every layer and every shape once: a layer's weights are packed, and a shape's kernel is made, when first met."""
    return {**{call.layer: call for call in calls}, **{call.shape: call for call in calls}}.values()


def _plain(x: Tensor, layer: nn.Linear) -> Tensor:
    return linear(x, layer.weight)


def _plain_back(grad: Tensor, layer: nn.Linear) -> Tensor:
    return grad @ layer.weight


class _Packed:
    """The library's own packed products."""

    def __init__(self, transposed: bool) -> None:
        self._transposed = transposed
        self._packed: dict[nn.Linear, Packed] = {}

    def __call__(self, x: Tensor, layer: nn.Linear) -> Tensor:
        if layer not in self._packed:
            weight = layer.weight.detach()
            weight = weight.t() if self._transposed else weight
            bare = nn.Linear(*reversed(weight.shape), bias=False, device="meta")
            bare.weight = nn.Parameter(weight, requires_grad=False)
            self._packed[layer] = Packed([bare])
        return self._packed[layer].forward(x)  # not called as a module, for then it would be recorded
