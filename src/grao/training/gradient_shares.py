"""The share of each loss term in the gradient: the paper's "imitate, explore, transcend" as a measurement."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class GradientShares:
    """Collects ∇(term) per term over a step's micro-batches, before the ordinary backward pass.

    A term's *share* is ‖∇term‖ / Σ ‖∇term‖; the sign of its *cosine* with the whole gradient says whether it pulls
    along or against. Covers this process's gradients only: ranks are not reduced.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = list(parameters)
        self._gradients: dict[str, list[Tensor]] = {}

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add the gradients of one micro-batch's terms; keep the graph for the backward pass."""
        for name, term in terms.items():
            gradients = torch.autograd.grad(term, self._parameters, retain_graph=True, allow_unused=True)
            filled = [
                torch.zeros_like(p) if g is None else g for p, g in zip(self._parameters, gradients, strict=True)
            ]
            if name in self._gradients:
                for total, gradient in zip(self._gradients[name], filled, strict=True):
                    total += gradient
            else:
                self._gradients[name] = filled

    def metrics(self) -> dict[str, float]:
        """Return ``grad/share/{term}`` in [0, 1] and ``grad/cosine/{term}`` in [−1, 1]."""
        norms = {name: _norm(gradient) for name, gradient in self._gradients.items()}
        total = [torch.stack(parts).sum(0) for parts in zip(*self._gradients.values(), strict=True)]
        total_norm, whole = _norm(total), sum(norms.values())
        metrics = {}
        for name, gradient in self._gradients.items():
            metrics[f"grad/share/{name}"] = norms[name] / whole if whole > 0 else 0.0
            inner = float(sum(torch.sum(g * t) for g, t in zip(gradient, total, strict=True)))
            scale = norms[name] * total_norm
            metrics[f"grad/cosine/{name}"] = inner / scale if scale > 0 else 0.0
        return metrics


def _norm(gradient: Sequence[Tensor]) -> float:
    return float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradient])))
