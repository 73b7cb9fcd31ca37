"""Which requests are sampled together."""

from __future__ import annotations

from collections.abc import Sequence

from grao.rollout.engine import SampleRequest


def chunks(
    requests: Sequence[SampleRequest], max_new_tokens: int, max_rows: int, max_batch_tokens: int | None = None
) -> list[list[int]]:
    """The requests' indices in chunks, in order of prompt length, so that little is padded.

    A request is never split. A chunk holds at most `max_rows` samples and `max_batch_tokens` columns of cache (rows
    times longest prompt plus new tokens), unless one request alone is more: then it is a chunk of its own.
    """
    by_length = sorted((i for i, r in enumerate(requests) if r.seeds), key=lambda i: len(requests[i].prompt_ids))
    result: list[list[int]] = []
    rows = 0
    for i in by_length:
        width = len(requests[i].prompt_ids) + max_new_tokens
        rows += len(requests[i].seeds)
        too_wide = max_batch_tokens is not None and rows * width > max_batch_tokens
        if not result or rows > max_rows or too_wide:
            result.append([])
            rows = len(requests[i].seeds)
        result[-1].append(i)
    return result
