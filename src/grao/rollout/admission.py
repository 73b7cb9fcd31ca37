"""Which requests are sampled together, and which follow when rows become free."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from grao.rollout.decoder import Decoder
from grao.rollout.engine import SampleRequest


class AdmissionQueue:
    """Waiting requests, in order of prompt length, so that little is padded.

    A request is never split. At most `max_rows` samples and `max_batch_tokens` columns of cache are in progress at
    once; a request that exceeds them by itself runs alone.
    """

    def __init__(self, requests: Sequence[SampleRequest], max_rows: int, max_batch_tokens: int | None = None):
        drawn = (i for i, r in enumerate(requests) if r.seeds)
        self._queue = deque(sorted(drawn, key=lambda i: len(requests[i].prompt_ids)))
        self._requests = requests
        self._max_rows, self._max_batch_tokens = max_rows, max_batch_tokens

    def __bool__(self) -> bool:
        return bool(self._queue)

    def admit(self, live: Sequence[tuple[int, int]], decoder: Decoder, max_new_tokens: int) -> list[int]:
        """Admit requests that fit beside these groups of (prompt tokens, rows) in progress; return their indices."""
        groups, admitted = list(live), []
        while self._queue:
            request = self._requests[self._queue[0]]
            groups.append((len(request.prompt_ids), len(request.seeds)))
            if len(groups) > 1 and not self._fits(groups, decoder, max_new_tokens):
                break
            admitted.append(self._queue.popleft())
        return admitted

    def _fits(self, groups: Sequence[tuple[int, int]], decoder: Decoder, max_new_tokens: int) -> bool:
        if sum(rows for _, rows in groups) > self._max_rows:
            return False
        return self._max_batch_tokens is None or decoder.columns(groups, max_new_tokens) <= self._max_batch_tokens
