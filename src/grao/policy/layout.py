"""The members of a batch as rows of tokens, and the places where each of their tokens is predicted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from grao.groups import GroupBatch


@dataclass(frozen=True, slots=True)
class MemberRows:
    """N rows, one for each member with tokens that count: its prompt, then itself, then padding on the right.

    A causal model never looks to the right, so the rows need no attention mask.
    """

    ids_NL: Tensor
    real_NL: Tensor
    """bool, True on tokens; padding holds valid ids all the same."""
    places_K: Tensor
    """Where in the flattened [N · L] each of the K unmasked tokens is predicted: the place before its own, whose
    hidden state is the state before that token. In the order of `GroupBatch.mask_PMT`."""
    tokens_K: Tensor
    """Those tokens."""


def member_rows(batch: GroupBatch) -> MemberRows | None:
    """Prompt and member side by side, for every member with an unmasked token; None if no member has one."""
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


def _lay_side_by_side(
    batch: GroupBatch, rows: Tensor, prompts: Tensor, prompt_lengths: Tensor, member_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Prompt and member of each row without a gap, [N, L], and which places are real."""
    L = int((prompt_lengths + member_lengths).max())
    place = torch.arange(L, device=rows.device)[None]
    in_prompt = place < prompt_lengths[:, None]
    in_member = ~in_prompt & (place < (prompt_lengths + member_lengths)[:, None])
    from_prompt = batch.prompt_ids_PS[prompts].gather(
        1, place.expand(len(rows), L).clamp(max=batch.prompt_ids_PS.shape[1] - 1)
    )
    offset = (place - prompt_lengths[:, None]).clamp(0, batch.ids_PMT.shape[2] - 1)
    from_member = batch.ids_PMT.flatten(0, 1)[rows].gather(1, offset)
    # Places past the end hold an id of the row itself: any valid id does, for they are masked.
    return torch.where(in_prompt, from_prompt, from_member), in_prompt | in_member
