from __future__ import annotations

from collections.abc import Sequence

import pytest

from grao.rollout import SampleRequest
from grao.rollout.admission import AdmissionQueue
from grao.rollout.decoder import GroupDecoder, PaddedDecoder


def request(length: int, samples: int) -> SampleRequest:
    return SampleRequest(prompt_ids=(1,) * length, seeds=tuple(range(samples)))


def admitted_in_turn(requests: Sequence[SampleRequest], kind: type, **limits: int) -> list[list[int]]:
    """Who is admitted when all who were before are finished; new tokens 10."""
    decoder, waiting = kind.__new__(kind), AdmissionQueue(requests, **limits)
    turns = []
    while waiting:
        turns.append(waiting.admit([], decoder, 10))
    return turns


@pytest.mark.parametrize("kind", [GroupDecoder, PaddedDecoder])
def test_at_most_so_many_rows(kind: type) -> None:
    """Oracle: by hand; sorted by length 2, 3, 5, 9 (requests 1, 3, 0, 2), four samples each, at most eight rows."""
    asked = [request(5, 4), request(2, 4), request(9, 4), request(3, 4)]
    assert admitted_in_turn(asked, kind, max_rows=8) == [[1, 3], [0, 2]]
    assert admitted_in_turn(asked, kind, max_rows=11) == [[1, 3], [0, 2]]
    assert admitted_in_turn(asked, kind, max_rows=16) == [[1, 3, 0, 2]]


@pytest.mark.parametrize("kind", [GroupDecoder, PaddedDecoder])
def test_a_group_is_never_split(kind: type) -> None:
    """Oracle: by hand; a group of twelve alone exceeds eight rows and runs alone."""
    asked = [request(2, 2), request(3, 12), request(4, 2), request(5, 2)]
    assert admitted_in_turn(asked, kind, max_rows=8) == [[0], [1], [2, 3]]


def test_at_most_so_many_columns() -> None:
    """Oracle: by hand; rows × (longest prompt + 10) are 2·12, 4·13 = 52, then 6·19 > 60, a copy of the prompt each;
    prompts × longest + rows × 10 are 2 + 20, 6 + 40 = 46, then 27 + 60 = 87, each prompt once."""
    asked = [request(2, 2), request(3, 2), request(9, 2)]
    assert admitted_in_turn(asked, PaddedDecoder, max_rows=99, max_batch_tokens=60) == [[0, 1], [2]]
    assert admitted_in_turn(asked, PaddedDecoder, max_rows=99, max_batch_tokens=51) == [[0], [1], [2]]
    assert admitted_in_turn(asked, GroupDecoder, max_rows=99, max_batch_tokens=87) == [[0, 1, 2]]
    assert admitted_in_turn(asked, GroupDecoder, max_rows=99, max_batch_tokens=86) == [[0, 1], [2]]
    assert admitted_in_turn(asked, GroupDecoder, max_rows=99, max_batch_tokens=45) == [[0], [1], [2]]


def test_those_under_way_count() -> None:
    """Oracle: by hand; of eight rows five are taken by groups of 3 and 2, so the next three rows fit and no fourth."""
    decoder = GroupDecoder.__new__(GroupDecoder)
    waiting = AdmissionQueue([request(2, 3), request(3, 1)], max_rows=8)
    assert waiting.admit([(9, 3), (4, 3)], decoder, 10) == []
    assert waiting.admit([(9, 3), (4, 2)], decoder, 10) == [0]
    assert waiting.admit([(9, 3), (4, 2), (2, 3)], decoder, 10) == []
    assert waiting.admit([(4, 2), (2, 3)], decoder, 10) == [1]
    assert not waiting


def test_requests_without_seeds_cost_nothing() -> None:
    """Oracle: the definition; nothing is drawn for them, so they never wait."""
    assert admitted_in_turn([request(2, 0), request(3, 1)], GroupDecoder, max_rows=8) == [[1]]
    assert admitted_in_turn([], GroupDecoder, max_rows=8) == []
