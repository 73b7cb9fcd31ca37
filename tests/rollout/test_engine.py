from __future__ import annotations

import hashlib

import pytest

from grao.rollout import SamplingParams, draw_seed


def test_draw_seed_is_pinned() -> None:
    """Oracle: literal numbers. Were they to change, a resumed run would draw other samples than before."""
    assert draw_seed(0, 0, 0, 0) == 8662518681111019217
    assert draw_seed(0, 0, 17, 3) == 2093593467313419264
    assert draw_seed(42, 1000, 7472, 15) == 4118555084379200203


def test_draw_seed_is_the_top_63_bits_of_a_hash() -> None:
    """Oracle: BLAKE2b of "run/step/row/member", its 64 bits read as hexadecimal."""
    digest = hashlib.blake2b(b"7/6/5/4", digest_size=8).hexdigest()
    assert draw_seed(7, 6, 5, 4) == int(digest, 16) // 2


def test_draw_seeds_are_distinct() -> None:
    """Oracle: counting; 10⁴ places, among them those whose digits read alike side by side (1, 11 and 11, 1)."""
    places = [
        (run, step, row, member) for run in range(2) for step in range(5) for row in range(50) for member in range(20)
    ]
    seeds = {draw_seed(*place) for place in places}
    assert len(seeds) == len(places) == 10_000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert draw_seed(1, 11, 0, 0) != draw_seed(11, 1, 0, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("inf")),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("stop", ("",)),
        ("stop", "END"),
    ],
)
def test_parameters_out_of_range(field: str, value: object) -> None:
    """Oracle: the message names the field and what was found."""
    with pytest.raises(ValueError, match=field) as error:
        SamplingParams(**{field: value})
    assert repr(value) in str(error.value)


def test_parameters_at_the_edge_of_their_range() -> None:
    """Oracle: the documented meanings of 0 and 1."""
    SamplingParams(max_new_tokens=1, temperature=0.0, top_k=0, top_p=1.0, min_p=1.0, stop=("\n",))
