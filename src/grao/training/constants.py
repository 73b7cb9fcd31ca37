"""What an objective is given besides the live log-probs: per-token constants of a collection, without gradient.

They are computed for the whole collection before its advantages, because an objective may need them there (PPO's token
rewards hold a KL, its advantages the critic's values), in the same cut as the micro-batches that will be trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from grao.groups import GroupBatch


@torch.no_grad()
def over_groups(
    batch: GroupBatch,
    cut: Sequence[Sequence[int]],
    compute: Callable[[GroupBatch], Tensor],
    device: torch.device | str,
) -> Tensor:
    """`compute`'s [P, M, T] for the whole batch, made part by part on `device`; 0 past a part's longest member."""
    whole_PMT: Tensor | None = None
    for places in cut:
        part_PMT = compute(batch.select(places).to(device)).to(batch.mask_PMT.device)
        if whole_PMT is None:
            whole_PMT = part_PMT.new_zeros(batch.mask_PMT.shape)
        whole_PMT[list(places), :, : part_PMT.shape[-1]] = part_PMT
    assert whole_PMT is not None, "a cut has at least one part"
    return whole_PMT


def drawn_only(batch: GroupBatch) -> GroupBatch:
    """The batch with every given member masked: a forward pass over it costs the samples alone."""
    mask_PMT = batch.mask_PMT.clone()
    mask_PMT[:, batch.num_samples :] = False
    return batch.with_(mask_PMT=mask_PMT)


class FrozenTable:
    """log π_frozen of every row's given members, computed once: the frozen policy is not needed any more.

    For objectives that draw no samples. Give batches of fixed composition, and a resumed run holds the same bits.

    Args:
        batches: every row in one of them.
        logprobs: [P, M, T] under the frozen policy.
        progress: is told after each batch how many rows are done.
    """

    def __init__(
        self,
        batches: Iterable[GroupBatch],
        logprobs: Callable[[GroupBatch], Tensor],
        progress: Callable[[int], None],
    ) -> None:
        self._rows: dict[int, Tensor] = {}
        for batch in batches:
            for row, length, logprobs_MT in zip(
                batch.rows_P.tolist(), batch.lengths_PM.amax(1).tolist(), logprobs(batch).cpu(), strict=True
            ):
                self._rows[row] = logprobs_MT[:, :length].clone()
            progress(len(self._rows))

    def logprobs(self, batch: GroupBatch) -> Tensor:
        """[P, M, T] of rows of the table, 0 where masked."""
        known = [self._rows[row] for row in batch.rows_P.tolist()]
        whole_PMT = known[0].new_zeros(batch.mask_PMT.shape)
        for p, known_MT in enumerate(known):
            whole_PMT[p, :, : known_MT.shape[1]] = known_MT
        return whole_PMT
