from __future__ import annotations

from grao.rollout import SampleRequest
from grao.rollout.chunks import chunks


def request(length: int, samples: int) -> SampleRequest:
    return SampleRequest(prompt_ids=(1,) * length, seeds=tuple(range(samples)))


def test_chunks_by_rows() -> None:
    """Oracle: by hand; sorted by length 2, 3, 5, 9 (requests 1, 3, 0, 2), four samples each, at most eight rows."""
    asked = [request(5, 4), request(2, 4), request(9, 4), request(3, 4)]
    assert chunks(asked, 10, max_rows=8) == [[1, 3], [0, 2]]
    assert chunks(asked, 10, max_rows=11) == [[1, 3], [0, 2]]
    assert chunks(asked, 10, max_rows=16) == [[1, 3, 0, 2]]


def test_a_group_is_never_split() -> None:
    """Oracle: by hand; a group of twelve alone exceeds eight rows and is a chunk of its own."""
    asked = [request(2, 2), request(3, 12), request(4, 2), request(5, 2)]
    assert chunks(asked, 10, max_rows=8) == [[0], [1], [2, 3]]


def test_chunks_by_tokens() -> None:
    """Oracle: by hand; rows × (longest prompt + 10) are 2·12, 4·13 = 52, then 6·19 > 60; the third goes alone."""
    asked = [request(2, 2), request(3, 2), request(9, 2)]
    assert chunks(asked, 10, max_rows=100, max_batch_tokens=60) == [[0, 1], [2]]
    assert chunks(asked, 10, max_rows=100, max_batch_tokens=51) == [[0], [1], [2]]


def test_requests_without_seeds_cost_nothing() -> None:
    """Oracle: the definition; nothing is drawn for them, so they are in no chunk."""
    assert chunks([request(2, 0), request(3, 1)], 10, max_rows=8) == [[1]]
    assert chunks([], 10, max_rows=8) == []
