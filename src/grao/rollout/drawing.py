"""The sampling loop: one chunk of requests, from prompts to finished completions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from grao.groups import Finish
from grao.rollout.decoder import Decoder
from grao.rollout.engine import SampleRequest, SamplingParams
from grao.rollout.sampler import sample_tokens
from grao.rollout.uniforms import uniforms


@dataclass(slots=True)
class Draw:
    """One completion while it is drawn."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Finish | None = None
    """None while it goes on."""


def draw(
    decoder: Decoder,
    requests: Sequence[SampleRequest],
    params: SamplingParams,
    *,
    is_complete: Callable[[Sequence[int]], bool],
    unknown_ids: Callable[[int, torch.device], Tensor | None],
    compact_share: float,
    on_finish: Callable[[int], None],
) -> list[Draw]:
    """Draw every sample of these requests in one batch.

    A row is finished when `is_complete` says so of its ids, and is taken out of the batch once `compact_share` of
    the rows in it are: taking rows out copies the cache, so doing it for each would cost more than it saves. A row
    reads its own uniform numbers and its own cache, so what it draws does not depend on who is taken out when.

    Args:
        decoder: a new one; it is used up.
        requests: P prompts with their seeds; N seeds in all.
        params: how tokens are drawn.
        is_complete: whether a completion ends with the last of these ids.
        unknown_ids: the mask bool [V] of ids that must not be drawn, given V and a device; None = all may be.
        compact_share: in (0, 1].
        on_finish: is told how many rows finished, each time some did.

    Returns:
        N draws, in the order of the requests and their seeds.

    Raises:
        FloatingPointError: where the model gave a token no finite log-probability.
    """
    logits_NV = decoder.prefill([r.prompt_ids for r in requests])
    logits_NV = logits_NV[decoder.fork([len(r.seeds) for r in requests])]
    seeds = [seed for r in requests for seed in r.seeds]
    draws = [Draw() for _ in seeds]
    T = params.max_new_tokens
    device = logits_NV.device
    u_NT = uniforms(seeds, T).to(device, torch.float32 if device.type == "mps" else torch.float64)
    logprobs_NT = u_NT.new_zeros(len(seeds), T)
    unknown_V = unknown_ids(logits_NV.shape[-1], device)
    active = list(range(len(seeds)))  # which draw each row of the batch is
    active_N = torch.arange(len(seeds), device=device)

    for t in range(T):
        ids_N, logprobs_N = sample_tokens(logits_NV, u_NT[active_N, t], params, unknown_V)
        logprobs_NT[active_N, t] = logprobs_N.to(logprobs_NT.dtype)
        finished = _append(draws, active, ids_N.tolist(), is_complete, last=t == T - 1)
        if finished:
            on_finish(finished)
        going_on = [row for row, n in enumerate(active) if draws[n].finish is None]
        if not going_on:
            break
        if len(active) - len(going_on) >= compact_share * len(active):
            rows_N = torch.tensor(going_on, device=device)
            decoder.keep(rows_N)
            active, active_N, ids_N = [active[row] for row in going_on], active_N[rows_N], ids_N[rows_N]
        logits_NV = decoder.step(ids_N)

    for drawn, logprobs in zip(draws, logprobs_NT.tolist(), strict=True):
        drawn.logprobs = logprobs[: len(drawn.ids)]
    _check_finite(draws)
    return draws


def _append(
    draws: Sequence[Draw],
    active: Sequence[int],
    ids: Sequence[int],
    is_complete: Callable[[Sequence[int]], bool],
    *,
    last: bool,
) -> int:
    """Give each draw that goes on its new token; returns how many are finished by it."""
    finished = 0
    for n, token in zip(active, ids, strict=True):
        if draws[n].finish is not None:
            continue
        draws[n].ids.append(token)
        if is_complete(draws[n].ids):
            draws[n].finish = "stop"
        elif last:
            draws[n].finish = "length"
        finished += draws[n].finish is not None
    return finished


def _check_finite(draws: Sequence[Draw]) -> None:
    logprobs = torch.tensor([x for drawn in draws for x in drawn.logprobs])
    if not logprobs.isfinite().all():
        raise FloatingPointError(
            f"{int((~logprobs.isfinite()).sum())} of {len(logprobs)} sampled tokens have no finite log-probability: "
            "the policy's logits hold NaN or infinity. Look for a diverged loss, or sample in a wider dtype."
        )
