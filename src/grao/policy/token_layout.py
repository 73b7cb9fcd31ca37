"""The members of a batch as tokens for a model, and the places where each of their tokens is predicted.

Two layouts of one batch: `member_rows`, a padded row for every member, which any causal model reads; and
`token_stream`, one row of real tokens with every prompt once, for the attention of `grao.policy.stream_attention`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grao.groups import GroupBatch


@dataclass(frozen=True, slots=True)
class MemberRows:
    """N rows, one per member with unmasked tokens: its prompt, then itself, then padding on the right.

    Causal attention does not look to the right, so the rows need no attention mask.
    """

    ids_NL: Tensor
    real_NL: Tensor
    """bool, True on tokens; padding holds valid ids too."""
    places_K: Tensor
    """The place in the flattened [N · L] where each of the K unmasked tokens is predicted: the one before its own,
    whose hidden state is the state before that token. In the order of `GroupBatch.mask_PMT`."""
    tokens_K: Tensor
    """Those tokens."""


def member_rows(batch: GroupBatch) -> MemberRows | None:
    """Lay out prompt and member side by side, for every member with an unmasked token; None if there is none."""
    M, T = batch.ids_PMT.shape[1:]
    rows = batch.mask_PMT.any(-1).flatten().nonzero()[:, 0]
    if len(rows) == 0:
        return None
    prompts = rows // M
    prompt_lengths = batch.prompt_mask_PS.sum(1)[prompts]
    member_mask = batch.mask_PMT.flatten(0, 1)[rows]
    # A mask may have holes, so a row is as long as its last token that counts.
    member_lengths = (member_mask * torch.arange(1, T + 1, device=rows.device)).amax(1)
    ids, real = _lay_side_by_side(batch, rows, prompts, prompt_lengths, member_lengths)
    # Token t of a member is predicted at place (prompt length − 1 + t) of its row.
    places = torch.arange(T, device=rows.device)[None] + prompt_lengths[:, None] - 1
    places = (places + torch.arange(len(rows), device=rows.device)[:, None] * ids.shape[1])[member_mask]
    return MemberRows(ids, real, places, batch.ids_PMT.flatten(0, 1)[rows][member_mask])


Segments = tuple[tuple[int, tuple[int, ...]], ...]
"""Lengths of a stream's parts: of each prompt, and of the members that follow it. Plain numbers, which wrappers of a
model pass on unchanged."""


@dataclass(frozen=True, slots=True)
class TokenStream:
    """All groups in one row: each prompt once, then its members without their last tokens, which predict nothing.

    Example: prompt ``a b`` with members ``c d e`` and ``f`` is ``a b c d``, at positions 0 1 2 3, segments
    ``((2, (2,)),)``; ``c`` and ``f`` are both predicted at place 1.
    """

    ids_1N: Tensor
    positions_1N: Tensor
    """Position of each token in its own sequence: every member starts behind its prompt."""
    segments: Segments
    """Members of one token, which leave no token here, are left out."""
    places_K: Tensor
    """The place in the stream where each of the K unmasked tokens is predicted, ordered like `GroupBatch.mask_PMT`."""
    tokens_K: Tensor
    """Those tokens."""

    def inputs(self) -> dict[str, Any]:
        """Return the arguments for a model, or its backbone, under `grao.policy.stream_attention.attention_over`."""
        return {
            "input_ids": self.ids_1N,
            # All ones: without a mask, transformers looks for packed sequences in the positions.
            "attention_mask": torch.ones_like(self.ids_1N),
            "position_ids": self.positions_1N,
            "stream_segments": self.segments,
            "use_cache": False,
        }


def token_stream(batch: GroupBatch) -> TokenStream | None:
    """Lay out every group with an unmasked token, one behind the other; None if there is none."""
    (P, M, T), S = batch.ids_PMT.shape, batch.prompt_ids_PS.shape[1]
    device = batch.ids_PMT.device
    if not bool(batch.mask_PMT.any()):
        return None
    # A mask may have holes, so a member is as long as its last token that counts.
    t_T = torch.arange(T, device=device)
    lengths_PM = ((batch.mask_PMT * (t_T + 1)).amax(-1) - 1).clamp(min=0)
    prompt_lengths_P = batch.prompt_mask_PS.sum(1)
    used_P = batch.mask_PMT.flatten(1).any(1)

    # [P, S + M·T]: a group's prompt and members with their padding; dropping what is not in the stream leaves it.
    in_stream = torch.cat([batch.prompt_mask_PS & used_P[:, None], (t_T < lengths_PM[..., None]).flatten(1)], 1)
    ids = torch.cat([batch.prompt_ids_PS, batch.ids_PMT.flatten(1)], 1)
    member_positions = (prompt_lengths_P[:, None, None] + t_T).expand(P, M, T).flatten(1)
    positions = torch.cat([torch.arange(S, device=device).expand(P, S), member_positions], 1)

    place = (in_stream.flatten().cumsum(0) - 1).view(P, S + M * T)
    last_of_prompt_PM1 = place.gather(1, prompt_lengths_P[:, None] - 1)[..., None].expand(P, M, 1)
    places_PMT = torch.cat([last_of_prompt_PM1, place[:, S:].view(P, M, T)[..., :-1]], -1)
    segments = tuple(
        (prompt, tuple(length for length in lengths if length))
        for prompt, lengths, used in zip(prompt_lengths_P.tolist(), lengths_PM.tolist(), used_P.tolist(), strict=True)
        if used
    )
    return TokenStream(
        ids[in_stream][None],
        positions[in_stream][None],
        segments,
        places_PMT[batch.mask_PMT],
        batch.ids_PMT[batch.mask_PMT],
    )


def _lay_side_by_side(
    batch: GroupBatch, rows: Tensor, prompts: Tensor, prompt_lengths: Tensor, member_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Return prompt and member of each row without a gap, [N, L], and which places are real."""
    L = int((prompt_lengths + member_lengths).max())
    place = torch.arange(L, device=rows.device)[None]
    in_prompt = place < prompt_lengths[:, None]
    in_member = ~in_prompt & (place < (prompt_lengths + member_lengths)[:, None])
    from_prompt = batch.prompt_ids_PS[prompts].gather(
        1, place.expand(len(rows), L).clamp(max=batch.prompt_ids_PS.shape[1] - 1)
    )
    offset = (place - prompt_lengths[:, None]).clamp(0, batch.ids_PMT.shape[2] - 1)
    from_member = batch.ids_PMT.flatten(0, 1)[rows].gather(1, offset)
    # Places past the end hold an id of the row itself: any valid id will do.
    return torch.where(in_prompt, from_prompt, from_member), in_prompt | in_member
