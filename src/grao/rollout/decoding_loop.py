"""The sampling loop: from requests to finished completions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from grao.groups import Finish
from grao.rollout.admission import Waiting
from grao.rollout.decoder import Decoder
from grao.rollout.engine import SampleRequest, SamplingParams
from grao.rollout.sampler import sample_tokens
from grao.rollout.uniforms import uniforms


@dataclass(slots=True)
class Draw:
    """One completion while it is drawn."""

    request: int
    """Which request it answers."""
    seed: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Finish | None = None
    """None while it goes on."""
    steps: int = 0
    """Tokens drawn in its row; a finished one runs on until it is taken out."""


def draw(
    decoder: Decoder,
    requests: Sequence[SampleRequest],
    waiting: Waiting,
    params: SamplingParams,
    *,
    is_complete: Callable[[Sequence[int]], bool],
    unknown_ids: Callable[[int, torch.device], Tensor | None],
    compact_share: float,
    on_finish: Callable[[int], None],
) -> list[list[Draw]]:
    """Draw every sample of these requests.

    A row is finished when `is_complete` says so of its ids, and is taken out of the batch once `compact_share` of
    the rows in it are: taking rows out copies the cache, so doing it for each would cost more than it saves. Then
    whoever waits and fits takes their place. A row reads its own uniform numbers and its own cache, so what it draws
    depends neither on who is taken out when, nor on who is beside it.

    Args:
        decoder: a new one; it is used up.
        requests: prompts with their seeds.
        waiting: all of them, none taken yet.
        params: how tokens are drawn.
        is_complete: whether a completion ends with the last of these ids.
        unknown_ids: the mask bool [V] of ids that must not be drawn, given V and a device; None = all may be.
        compact_share: in (0, 1].
        on_finish: is told how many rows finished, each time some did.

    Returns:
        The draws of each request, in the order of its seeds.

    Raises:
        FloatingPointError: where the model gave a token no finite log-probability.
    """
    draws = [[Draw(i, seed) for seed in request.seeds] for i, request in enumerate(requests)]
    batch = _Batch(decoder, requests, draws, params)
    if waiting:
        batch.join(waiting)
    while batch.rows:
        ids_N, finished = batch.sample(is_complete, unknown_ids)
        if finished:
            on_finish(finished)
        going_on = [n for n, row in enumerate(batch.rows) if row.finish is None]
        # A row is never longer than a completion may be: the model may have no positions there.
        overdue = any(row.finish is not None and row.steps >= params.max_new_tokens for row in batch.rows)
        compacts = overdue or len(batch.rows) - len(going_on) >= compact_share * len(batch.rows)
        if not going_on:
            batch.clear()
        else:
            if compacts:
                ids_N = batch.keep(going_on, ids_N)
            batch.step(ids_N)
        if waiting and (not batch.rows or (compacts and decoder.joins)):
            batch.join(waiting)
    _check_finite([drawn for group in draws for drawn in group])
    return draws


class _Batch:
    """The rows under way: what each draws, its uniform numbers, and the logits of its next token."""

    def __init__(
        self,
        decoder: Decoder,
        requests: Sequence[SampleRequest],
        draws: Sequence[Sequence[Draw]],
        params: SamplingParams,
    ):
        self.rows: list[Draw] = []
        self._decoder, self._requests, self._draws, self._params = decoder, requests, draws, params
        self._logits_NV: Tensor | None = None
        self._u_NT = torch.zeros(0, params.max_new_tokens)
        self._unknown: tuple[Tensor | None] | None = None

    def join(self, waiting: Waiting) -> None:
        """Whoever waits and fits begins."""
        live = Counter(row.request for row in self.rows)
        groups = [(len(self._requests[i].prompt_ids), rows) for i, rows in live.items()]
        admitted = waiting.admit(groups, self._decoder, self._params.max_new_tokens)
        if not admitted:
            return
        new = [drawn for i in admitted for drawn in self._draws[i]]
        logits_NV = self._decoder.join(
            [self._requests[i].prompt_ids for i in admitted], [len(self._draws[i]) for i in admitted]
        )
        device = logits_NV.device
        u_NT = uniforms([drawn.seed for drawn in new], self._params.max_new_tokens)
        u_NT = u_NT.to(device, torch.float32 if device.type == "mps" else torch.float64)
        began = self._logits_NV is not None
        self._logits_NV = torch.cat([self._logits_NV, logits_NV]) if began else logits_NV  # type: ignore[list-item]
        self._u_NT = torch.cat([self._u_NT, u_NT]) if began else u_NT
        self.rows = self.rows + new

    def sample(
        self,
        is_complete: Callable[[Sequence[int]], bool],
        unknown_ids: Callable[[int, torch.device], Tensor | None],
    ) -> tuple[Tensor, int]:
        """Give each row that goes on its next token; returns every row's token, and how many are finished by it."""
        assert self._logits_NV is not None
        if self._unknown is None:
            self._unknown = (unknown_ids(self._logits_NV.shape[-1], self._logits_NV.device),)
        t_N = torch.tensor([row.steps for row in self.rows], device=self._u_NT.device)
        u_N = self._u_NT.gather(1, t_N[:, None])[:, 0]
        ids_N, logprobs_N = sample_tokens(self._logits_NV, u_N, self._params, *self._unknown)
        finished = 0
        for row, token, logprob in zip(self.rows, ids_N.tolist(), logprobs_N.tolist(), strict=True):
            row.steps += 1
            if row.finish is not None:
                continue
            row.ids.append(token)
            row.logprobs.append(logprob)
            if is_complete(row.ids):
                row.finish = "stop"
            elif row.steps == self._params.max_new_tokens:
                row.finish = "length"
            finished += row.finish is not None
        return ids_N, finished

    def keep(self, going_on: list[int], ids_N: Tensor) -> Tensor:
        """Take the others out; returns the tokens of those that stay."""
        self._decoder.keep(going_on)
        self.rows = [self.rows[n] for n in going_on]
        self._u_NT = self._u_NT[torch.tensor(going_on, device=self._u_NT.device)]
        return ids_N[torch.tensor(going_on, device=ids_N.device)]

    def step(self, ids_N: Tensor) -> None:
        self._logits_NV = self._decoder.step(ids_N)

    def clear(self) -> None:
        """All are finished."""
        self._decoder.keep([])
        self.rows, self._logits_NV = [], None


def _check_finite(draws: Sequence[Draw]) -> None:
    logprobs = torch.tensor([x for drawn in draws for x in drawn.logprobs])
    if not logprobs.isfinite().all():
        raise FloatingPointError(
            f"{int((~logprobs.isfinite()).sum())} of {len(logprobs)} sampled tokens have no finite log-probability: "
            "the policy's logits hold NaN or infinity. Look for a diverged loss, or sample in a wider dtype."
        )
