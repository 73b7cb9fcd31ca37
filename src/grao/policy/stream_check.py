"""Check once per model, on a few tokens, that scoring as a stream gives what padded rows give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from grao.compat.rounding_check import FAILURES, check_difference
from grao.compat.torch_modules import evaluating
from grao.compat.transformers_attention import AttentionRefusedError, attention_layers
from grao.groups import Group, GroupBatch, Member, PolicyOutput, collate

Path = Callable[[Any, GroupBatch], PolicyOutput]


def check_stream(model: Any, padded: Path, stream: Path) -> None:
    """Compare log-probs and gradients of both paths on two groups of uneven members, in the dtype of the weights.

    Raises:
        AttentionRefusedError: They differ, or the stream does not run.
    """
    with evaluating(model):
        expected = _logprobs_and_gradients(model, padded)
        try:
            found = _logprobs_and_gradients(model, stream)
        except AttentionRefusedError:
            raise
        except FAILURES as error:
            raise AttentionRefusedError(
                f"its forward cannot take a stream ({type(error).__name__}: {error})"
            ) from error
    for name in expected:
        check_difference(name, found[name], expected[name], next(model.parameters()).dtype)


def two_groups(vocabulary: int, device: torch.device) -> GroupBatch:
    """Return prompts of 3 and 5 tokens, with members of 1 to 6 tokens, two of them equally long, one place empty."""

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
def _logprobs_and_gradients(model: Any, path: Path) -> dict[str, Tensor]:
    """Return log-probs, and the gradient of a weighted sum of them in the outermost attention layers."""
    embeddings = model.get_input_embeddings()
    batch = two_groups(embeddings.weight.shape[0], embeddings.weight.device)
    logprobs_PMT = path(model, batch).logprobs_PMT
    found = {"log-probs": logprobs_PMT.detach()[batch.mask_PMT]}
    parameters = [p for p in _attention_parameters(model) if p.requires_grad]
    if parameters:
        # Not backward(): it would write to the model's .grad and call the hooks on it.
        weights = torch.arange(logprobs_PMT.numel(), device=batch.ids_PMT.device).cos().view_as(logprobs_PMT)
        gradients = torch.autograd.grad((logprobs_PMT * weights).sum(), parameters, allow_unused=True)
        found["gradients"] = torch.cat([g.double().flatten() for g in gradients if g is not None])
    return found


def _attention_parameters(model: Any) -> list[Tensor]:
    """Return the weights of the first and last attention layer: their gradients pass through every other layer."""
    layers = [list(layer.parameters()) for layer in attention_layers(model) if hasattr(layer, "is_causal")]
    layers = [parameters for parameters in layers if parameters] or [list(model.parameters())[:4]]
    return [*layers[0], *(layers[-1] if len(layers) > 1 else ())]
