"""Do two ways of scoring agree? Asked once for each model, on a few tokens, before the faster one is trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from grao.groups import Group, GroupBatch, Member, collate
from grao.policy.stream import StreamRefusedError, attention_layers

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Relative difference of log-probs and of gradients, by the weights' dtype. Rounding makes a tenth of it at most; a
member that sees another's tokens changes gradients by 3 % at least, and by 30 % in most models."""

FAILURES = (TypeError, AttributeError, KeyError, IndexError, ValueError, RuntimeError, NotImplementedError)
"""What a model's own code may raise when it meets a mask that is no tensor, or an argument that it does not know."""


def check_agreement(model: Any, padded: Callable[..., Any], stream: Callable[..., Any]) -> None:
    """Compare log-probs and gradients of both paths on two groups of uneven members, in the weights' dtype.

    Raises:
        StreamRefusedError: they differ, or the stream does not run.
    """
    was_training = model.training
    model.eval()
    try:
        expected = _logprobs_and_gradients(model, padded)
        try:
            found = _logprobs_and_gradients(model, stream)
        except StreamRefusedError:
            raise
        except FAILURES as error:
            raise StreamRefusedError(f"its forward cannot take a stream ({type(error).__name__}: {error})") from error
    finally:
        model.train(was_training)
    tolerance = TOLERANCE[next(model.parameters()).dtype]
    for name in expected:
        difference = _relative(found[name], expected[name])
        if not difference <= tolerance:  # also where it is NaN
            raise StreamRefusedError(
                f"a check on a few tokens found {name} that differ from those of padded rows by {difference:.1g} of "
                f"their size (at most {tolerance:g} is rounding)"
            )


def two_groups(vocabulary: int, device: torch.device) -> GroupBatch:
    """Prompts of 3 and 5 tokens; members of 1 to 6 tokens, two of them equally long, one place empty."""

    def tokens(start: int, count: int) -> tuple[int, ...]:
        return tuple((7 * (start + i) ** 2 + 3) % vocabulary for i in range(count))

    def member(start: int, count: int) -> Member:
        return Member(tokens(start, count), "")

    groups = [
        Group(0, "", tokens(0, 3), (member(10, 4), member(20, 1)), reference=member(30, 6)),
        Group(1, "", tokens(40, 5), (member(50, 5), member(60, 5))),
    ]
    return collate(groups, pad_token_id=0).to(device)


@torch.enable_grad()
def _logprobs_and_gradients(model: Any, path: Callable[..., Any]) -> dict[str, Tensor]:
    """log-probs, and the gradient of a weighted sum of them in the outermost attention layers."""
    embeddings = model.get_input_embeddings()
    batch = two_groups(embeddings.weight.shape[0], embeddings.weight.device)
    logprobs_PMT = path(model, batch).logprobs_PMT
    found = {"log-probs": logprobs_PMT.detach()[batch.mask_PMT]}
    parameters = [p for p in _attention_parameters(model) if p.requires_grad]
    if parameters:
        # Not backward(): the model's own .grad, and hooks on it, are none of our business.
        weights = torch.arange(logprobs_PMT.numel(), device=batch.ids_PMT.device).cos().view_as(logprobs_PMT)
        gradients = torch.autograd.grad((logprobs_PMT * weights).sum(), parameters, allow_unused=True)
        found["gradients"] = torch.cat([g.double().flatten() for g in gradients if g is not None])
    return found


def _attention_parameters(model: Any) -> list[Tensor]:
    """Weights of the first and the last attention layer: of those, the gradients pass through every other."""
    layers = [list(layer.parameters()) for layer in attention_layers(model) if hasattr(layer, "is_causal")]
    layers = [parameters for parameters in layers if parameters] or [list(model.parameters())[:4]]
    return [*layers[0], *(layers[-1] if len(layers) > 1 else ())]


def _relative(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖ / ‖expected‖."""
    found, expected = found.double(), expected.double()
    return float((found - expected).norm() / expected.norm())
