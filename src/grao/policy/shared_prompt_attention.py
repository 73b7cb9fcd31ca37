"""Causal attention of a token stream without a mask and without copies of a prompt's keys.

A member sees its prompt and itself. The two parts of its softmax are computed apart, all members of a group against
the prompt at once, and merged by their normalisers. With ℓ = log Σ exp(scores) of each part,

    ℓ = log(exp ℓ₁ + exp ℓ₂)        o = exp(ℓ₁ − ℓ) o₁ + exp(ℓ₂ − ℓ) o₂

The backward pass needs no such sum: given the o and ℓ of the whole, the gradients of a part are that part's share.
(Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135, Algorithm 4.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from grao.compat.torch_flash_attention import attend, attend_backward
from grao.policy.token_layout import Segments


def attend_to_shared_prompts(
    query: Tensor, key: Tensor, value: Tensor, segments: Segments, scaling: float | None
) -> Tensor:
    """Attend causally within each prompt, and from each member to its prompt and to itself.

    Args:
        query: [1, heads, N, width].
        key: [1, key heads, N, width].
        value: [1, key heads, N, width], of the same dtype.
        segments: Lengths of the stream's parts.
        scaling: Of the scores; 1/√width by default.

    Returns:
        [1, N, heads, width], differentiable once.
    """
    return _SharedPromptAttention.apply(query, key, value, segments, scaling)


class _SharedPromptAttention(torch.autograd.Function):
    """Saves its inputs, its output, and the normalisers: nothing is held twice."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, segments: Segments, scaling: float | None
    ) -> Tensor:
        _, heads, N, width = query.shape
        out = query.new_empty(1, N, heads, width)
        seen, start = out.transpose(1, 2), 0
        normaliser = query.new_empty(1, heads, N, dtype=torch.promote_types(query.dtype, torch.float32))
        for prompt, members in segments:
            whole = slice(start, start + prompt)
            q, k, v = (x[:, :, whole] for x in (query, key, value))
            seen[:, :, whole], normaliser[:, :, whole] = attend(q, k, v, True, scaling)
            start += prompt
            for own in _places(start, members):
                q, own_k, own_v = (x[:, :, own] for x in (query, key, value))
                seen[:, :, own], normaliser[:, :, own] = attend(q, own_k, own_v, True, scaling)
            if members:
                everyone = slice(start, start + sum(members))
                above, log_above = attend(query[:, :, everyone], k, v, False, scaling)
                log_own = normaliser[:, :, everyone]
                log_whole = torch.logaddexp(log_above, log_own)
                share = (log_own - log_whole).exp()[..., None].to(out.dtype)
                seen[:, :, everyone] = torch.lerp(above, seen[:, :, everyone], share)
                normaliser[:, :, everyone] = log_whole
                start = everyone.stop
        ctx.save_for_backward(query, key, value, out, normaliser)
        ctx.segments, ctx.scaling = segments, scaling
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True: the result would be taken for a constant
            raise NotImplementedError("attention of a stream has no second derivative (create_graph=True)")
        query, key, value, out, normaliser = ctx.saved_tensors
        gradient, out = gradient.transpose(1, 2), out.transpose(1, 2)

        def part(q: slice, k: slice, causal: bool) -> tuple[Tensor, Tensor, Tensor]:
            given, of_q, of_out, of_normaliser = (x[:, :, q] for x in (gradient, query, out, normaliser))
            return attend_backward(
                given, of_q, key[:, :, k], value[:, :, k], of_out, of_normaliser, causal, ctx.scaling
            )

        of_query, of_key, of_value = (torch.empty_like(x) for x in (query, key, value))
        start = 0
        for prompt, members in ctx.segments:
            whole = slice(start, start + prompt)
            of_query[:, :, whole], of_key[:, :, whole], of_value[:, :, whole] = part(whole, whole, True)
            start += prompt
            for own in _places(start, members):
                of_query[:, :, own], of_key[:, :, own], of_value[:, :, own] = part(own, own, True)
            if members:
                everyone = slice(start, start + sum(members))
                above = part(everyone, whole, False)
                of_query[:, :, everyone] += above[0]
                of_key[:, :, whole] += above[1]
                of_value[:, :, whole] += above[2]
                start = everyone.stop
        return of_query, of_key, of_value, None, None


def _places(start: int, lengths: tuple[int, ...]) -> list[slice]:
    places = []
    for length in lengths:
        places.append(slice(start, start + length))
        start += length
    return places
