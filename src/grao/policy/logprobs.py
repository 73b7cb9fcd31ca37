"""log π of every member of every group by two layouts, through a model that `install_scoring` has prepared."""

from __future__ import annotations

from typing import Any

import torch

from grao.groups import GroupBatch, PolicyOutput
from grao.policy.token_layout import member_rows, token_stream


def stream_logprobs(
    model: Any, batch: GroupBatch, *, temperature: float = 1.0, entropy_grad: bool = False
) -> PolicyOutput:
    """Score a batch as a stream: all groups in one row of real tokens, each prompt once.

    The router loss of a mixture of experts is the mean over the tokens of the stream: those that ran, each once. (With
    padded rows a prompt counts once per member, and the last tokens of members, which run there, count too.)

    Raises:
        AttentionRefusedError: The model's attention cannot be computed over a stream.
    """
    stream = token_stream(batch)
    assert stream is not None, "the batch has no token to score"
    return _scored(model, batch, stream.places_K, stream.tokens_K, temperature, entropy_grad, **stream.inputs())


def padded_logprobs(
    model: Any, batch: GroupBatch, *, temperature: float = 1.0, entropy_grad: bool = False
) -> PolicyOutput:
    """Score a batch by padded rows: each member with tokens one row, prompt and member side by side.

    Padding is on the right, where causal attention does not look, so no attention mask is passed. That is faster, and
    a mask would give padded rows of a sliding window nothing to attend to, hence NaN. The router loss of a mixture of
    experts is the mean over the real tokens of the rows.
    """
    rows = member_rows(batch)
    assert rows is not None, "the batch has no token to score"
    inputs = {"input_ids": rows.ids_NL, "real_tokens": rows.real_NL.long(), "use_cache": False}
    return _scored(model, batch, rows.places_K, rows.tokens_K, temperature, entropy_grad, **inputs)


def nothing_to_score(model: Any, batch: GroupBatch, *, entropy_grad: bool = False) -> PolicyOutput:
    """Return zeros that depend on the model: running one token keeps the graph, and with it DDP's hooks, alive."""
    out = model(
        input_ids=batch.prompt_ids_PS[:1, :1],
        scored_places=torch.zeros(1, dtype=torch.long, device=batch.ids_PMT.device),
        scored_ids=batch.prompt_ids_PS[0, :1],
        use_cache=False,
    )
    zeros_PMT = out.logprobs.sum() * 0 + out.logprobs.new_zeros(batch.mask_PMT.shape)
    return PolicyOutput(zeros_PMT, zeros_PMT if entropy_grad else zeros_PMT.detach(), router_loss=out.router_loss)


def _scored(
    model: Any,
    batch: GroupBatch,
    places_K: torch.Tensor,
    tokens_K: torch.Tensor,
    temperature: float,
    entropy_grad: bool,
    **inputs: Any,
) -> PolicyOutput:
    """Run the model and put the values of the K unmasked tokens into the batch's layout."""
    out = model(
        **inputs,
        scored_places=places_K,
        scored_ids=tokens_K,
        scored_temperature=temperature,
        scored_entropy_grad=entropy_grad,
    )
    zeros_PMT = out.logprobs.new_zeros(batch.mask_PMT.shape)
    return PolicyOutput(
        zeros_PMT.masked_scatter(batch.mask_PMT, out.logprobs),
        zeros_PMT.masked_scatter(batch.mask_PMT, out.entropy.to(zeros_PMT.dtype)),
        router_loss=out.router_loss,
    )
