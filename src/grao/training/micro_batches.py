"""How the groups of a step are cut into forward passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from grao.groups import GroupBatch


def balance(tokens: Sequence[int], bins: int) -> list[list[int]]:
    """Assign groups to micro-batches: exactly `bins` of them, none empty, with about equally many tokens each.

    The longest group goes first, each to the lightest bin; a group is never split. Ties go to the lower index, so
    the cut is reproducible.

    >>> balance([5, 1, 4, 2], 2)
    [[0, 1], [2, 3]]
    """
    assert 1 <= bins <= len(tokens), f"{len(tokens)} groups cannot fill {bins} micro-batches"
    filled: list[list[int]] = [[] for _ in range(bins)]
    load = [0] * bins
    for group in sorted(range(len(tokens)), key=lambda g: (-tokens[g], g)):
        lightest = min(range(bins), key=lambda b: (bool(filled[b]), load[b], b))
        filled[lightest].append(group)
        load[lightest] += tokens[group]
    return [sorted(groups) for groups in filled]


def group_tokens(batch: GroupBatch) -> list[int]:
    """Return the tokens that each group's forward pass reads: its prompt once, and its members.

    0 for a group whose members are all masked.
    """
    lengths_P = batch.lengths_PM.sum(1)
    tokens: list[int] = ((batch.prompt_mask_PS.sum(1) + lengths_P) * (lengths_P > 0)).tolist()
    return tokens


@torch.no_grad()
def map_micro_batches(
    batch: GroupBatch,
    cut: Sequence[Sequence[int]],
    compute: Callable[[GroupBatch], Tensor],
    device: torch.device | str,
) -> Tensor:
    """Apply `compute` to each micro-batch on `device` and return the whole batch's [P, M, T].

    Places past a micro-batch's longest member hold 0.
    """
    whole_PMT: Tensor | None = None
    for places in cut:
        part_PMT = compute(batch.select(places).to(device)).to(batch.mask_PMT.device)
        if whole_PMT is None:
            whole_PMT = part_PMT.new_zeros(batch.mask_PMT.shape)
        whole_PMT[list(places), :, : part_PMT.shape[-1]] = part_PMT
    assert whole_PMT is not None, "a cut has at least one part"
    return whole_PMT


def samples_only(batch: GroupBatch) -> GroupBatch:
    """Mask every given member, so that a forward pass costs the samples alone."""
    mask_PMT = batch.mask_PMT.clone()
    mask_PMT[:, batch.num_samples :] = False
    return batch.with_(mask_PMT=mask_PMT)
