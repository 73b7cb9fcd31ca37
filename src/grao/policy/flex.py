"""Attention of a stream by one flex-attention kernel, for CUDA: tiles that nobody sees are not computed.

What is seen and the outputs have been checked on the CPU only, where flex attention runs eagerly and has no gradients;
the compiled kernel has not been run by us. So it is used on CUDA alone, and only for a model whose log-probs and
gradients on a few tokens were found, there, to be those of padded rows (`grao.policy.scoring`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from grao.policy.layout import Segments

Sees = Callable[..., Tensor]
"""(batch, head, query, key) to whether the query sees the key."""


def stream_rule(sees: Sees, segments: Segments, device: torch.device) -> Sees:
    """The model's rule `sees`, about places in a sequence, as one about places in a stream.

    A token sees its group's prompt and its own part, prompt or member, as far as the model's rule allows.
    """
    lengths = [length for prompt, members in segments for length in (prompt, *members)]
    parts = [part for _, members in segments for part in range(1 + len(members))]
    groups = [group for group, (_, members) in enumerate(segments) for _ in range(1 + len(members))]
    starts = [start for prompt, members in segments for start in (0, *[prompt] * len(members))]
    repeats = torch.tensor(lengths, device=device)
    part_N, group_N = (torch.tensor(x, device=device).repeat_interleave(repeats) for x in (parts, groups))
    place_N = torch.cat([torch.arange(s, s + n, device=device) for s, n in zip(starts, lengths, strict=True)])

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        shared = (part_N[key] == 0) | (part_N[key] == part_N[query])
        return (group_N[key] == group_N[query]) & shared & sees(batch, head, place_N[query], place_N[key])

    return rule


def block_mask(sees: Sees, segments: Segments, device: torch.device) -> BlockMask:
    """Which tiles of queries and keys have something to see: made once a forward."""
    tokens = sum(prompt + sum(members) for prompt, members in segments)
    rule = stream_rule(sees, segments, device)
    return create_block_mask(rule, None, None, tokens, tokens, device=device, _compile=device.type == "cuda")


def attend_by_flex(
    query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scaling: float | None, softcap: float | None
) -> Tensor:
    """softmax(cap(scaling · q kᵀ)) v over what the mask shows.

    Args:
        query: [1, heads, N, width].
        key: [1, key heads, N, width].
        value: [1, key heads, N, width of values].
        mask: of the stream.
        scaling: of the scores; 1/√width by default.
        softcap: scores s become cap · tanh(s / cap).

    Returns:
        [1, N, heads, width of values].
    """

    def cap(score: Tensor, *_: Any) -> Tensor:
        assert softcap is not None
        return torch.tanh(score / softcap) * softcap

    attend: Any = _compiled() if query.device.type == "cuda" else flex_attention
    out = attend(
        query,
        key,
        value,
        score_mod=None if softcap is None else cap,
        block_mask=mask,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(flex_attention, dynamic=True)
