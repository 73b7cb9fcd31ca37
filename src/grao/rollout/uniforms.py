"""The random numbers of a draw: a pure function of its seed and the token's place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def uniforms(seeds: Sequence[int], length: int) -> Tensor:
    """Return one uniform number in [0, 1) per draw and token.

        u[n, t] = ⌊philox(seeds[n])[t] / 2¹¹⌋ · 2⁻⁵³

    Philox is a counter-based generator: its words are defined by integer arithmetic alone, so the numbers are the
    same on every platform and in every version of the libraries, and the first t of them do not depend on how many
    are requested. The top 53 of the 64 bits are exactly what a float64 holds. Source: Salmon et al. 2011,
    "Parallel random numbers: as easy as 1, 2, 3" (Philox 4×64-10).

    Args:
        seeds: N non-negative integers, below 2¹²⁸.
        length: T, numbers per draw.

    Returns:
        float64 [N, T], on the host.
    """
    words_NT = np.empty((len(seeds), length), dtype=np.uint64)
    for n, seed in enumerate(seeds):
        words_NT[n] = np.random.Philox(key=seed).random_raw(length)
    return torch.from_numpy((words_NT >> np.uint64(11)) * 2.0**-53)
