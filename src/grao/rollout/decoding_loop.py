"""The sampling loop: from requests to finished completions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from grao.groups import Finish
from grao.rollout.admission import AdmissionQueue
from grao.rollout.decoder import Decoder
from grao.rollout.engine import SampleRequest, SamplingParams
from grao.rollout.sampler import sample_tokens
from grao.rollout.uniforms import uniforms


@dataclass(slots=True)
class SampleState:
    """One completion in progress."""

    request: int
    """Index of its request."""
    seed: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Finish | None = None
    """None while in progress."""
    steps: int = 0
    """Tokens drawn in its row. A finished row goes on until it is removed."""


def sample_completions(
    decoder: Decoder,
    requests: Sequence[SampleRequest],
    queue: AdmissionQueue,
    params: SamplingParams,
    *,
    is_complete: Callable[[Sequence[int]], bool],
    unknown_ids: Callable[[int, torch.device], Tensor | None],
    compact_share: float,
    on_finish: Callable[[int], None],
) -> list[list[SampleState]]:
    """Draw every sample of these requests.

    A row is finished when `is_complete` returns True for its ids. Finished rows are removed once they are
    `compact_share` of the batch: removing rows copies the cache, so removing each at once would cost more than it
    saves. Waiting requests that fit are then admitted. A row reads its own uniform numbers and its own cache, so its
    sample depends neither on the rows beside it nor on when rows are removed.

    Args:
        decoder: A new one; it cannot be used again.
        requests: Prompts with their seeds.
        queue: All of the requests, none admitted yet.
        params: How tokens are drawn.
        is_complete: Returns whether a completion with these ids is over.
        unknown_ids: Returns, for V and a device, bool [V], True on ids that must not be drawn; None = none.
        compact_share: In (0, 1].
        on_finish: Called with the number of rows that finished, whenever some did.

    Returns:
        The completions of each request, in the order of its seeds.

    Raises:
        FloatingPointError: The model gave a token no finite log-probability.
    """
    states = [[SampleState(i, seed) for seed in request.seeds] for i, request in enumerate(requests)]
    batch = _Batch(decoder, requests, states, params)
    if queue:
        batch.admit(queue)
    while batch.rows:
        ids_N, finished = batch.sample(is_complete, unknown_ids)
        if finished:
            on_finish(finished)
        going_on = [n for n, row in enumerate(batch.rows) if row.finish is None]
        # A row never exceeds max_new_tokens: the model may have no positions there.
        overdue = any(row.finish is not None and row.steps >= params.max_new_tokens for row in batch.rows)
        compacts = overdue or len(batch.rows) - len(going_on) >= compact_share * len(batch.rows)
        if not going_on:
            batch.clear()
        else:
            if compacts:
                ids_N = batch.keep(going_on, ids_N)
            batch.step(ids_N)
        if queue and (not batch.rows or (compacts and decoder.joins)):
            batch.admit(queue)
    _check_finite([state for group in states for state in group])
    return states


class _Batch:
    """The rows in progress: their states, uniform numbers, and the logits of their next tokens."""

    def __init__(
        self,
        decoder: Decoder,
        requests: Sequence[SampleRequest],
        states: Sequence[Sequence[SampleState]],
        params: SamplingParams,
    ):
        self.rows: list[SampleState] = []
        self._decoder, self._requests, self._states, self._params = decoder, requests, states, params
        self._logits_NV: Tensor | None = None
        self._u_NT = torch.zeros(0, params.max_new_tokens)
        self._unknown: tuple[Tensor | None] | None = None

    def admit(self, queue: AdmissionQueue) -> None:
        """Admit waiting requests that fit."""
        live = Counter(row.request for row in self.rows)
        groups = [(len(self._requests[i].prompt_ids), rows) for i, rows in live.items()]
        admitted = queue.admit(groups, self._decoder, self._params.max_new_tokens)
        if not admitted:
            return
        new = [state for i in admitted for state in self._states[i]]
        logits_NV = self._decoder.join(
            [self._requests[i].prompt_ids for i in admitted], [len(self._states[i]) for i in admitted]
        )
        device = logits_NV.device
        u_NT = uniforms([state.seed for state in new], self._params.max_new_tokens)
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
        """Draw the next token of each row; return every row's token, and how many rows it finished."""
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
        """Remove the other rows; return the tokens of those that stay."""
        self._decoder.keep(going_on)
        self.rows = [self.rows[n] for n in going_on]
        self._u_NT = self._u_NT[torch.tensor(going_on, device=self._u_NT.device)]
        return ids_N[torch.tensor(going_on, device=ids_N.device)]

    def step(self, ids_N: Tensor) -> None:
        self._logits_NV = self._decoder.step(ids_N)

    def clear(self) -> None:
        """Remove all rows."""
        self._decoder.keep([])
        self.rows, self._logits_NV = [], None


def _check_finite(states: Sequence[SampleState]) -> None:
    logprobs = torch.tensor([x for state in states for x in state.logprobs])
    if not logprobs.isfinite().all():
        raise FloatingPointError(
            f"{int((~logprobs.isfinite()).sum())} of {len(logprobs)} sampled tokens have no finite log-probability: "
            "the policy's logits hold NaN or infinity. Look for a diverged loss, or sample in a wider dtype."
        )
