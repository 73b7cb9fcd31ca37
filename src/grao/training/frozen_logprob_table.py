"""log π_frozen of every row's given members, computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from grao.groups import GroupBatch


class FrozenLogprobTable:
    """log π_frozen of every row, for objectives that draw no samples: the frozen policy itself can then be freed.

    Give batches of fixed composition, and a resumed run holds the same bits.

    Args:
        batches: every row in one of them.
        logprobs: Returns [P, M, T] under the frozen policy.
        progress: Called after each batch with the number of rows done.
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

    @torch.no_grad()
    def logprobs(self, batch: GroupBatch) -> Tensor:
        """Look up [P, M, T] for rows of the table; 0 where masked."""
        known = [self._rows[row] for row in batch.rows_P.tolist()]
        whole_PMT = known[0].new_zeros(batch.mask_PMT.shape)
        for p, known_MT in enumerate(known):
            whole_PMT[p, :, : known_MT.shape[1]] = known_MT
        return whole_PMT
