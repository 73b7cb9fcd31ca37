"""How long to wait before asking again."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from statistics import fmean

import pytest

from grao.rewards.endpoint.backoff import read_retry_after, wait_before


def test_waits_are_spread_below_a_ceiling_that_doubles():
    """Oracle: uniform on [0, c) has mean c/2; c = 1, 2, 4, 5, 5 by hand; 3,000 draws are within 4 σ of it."""
    for attempt, ceiling in ((2, 1.0), (3, 2.0), (4, 4.0), (5, 5.0), (9, 5.0)):
        waits = [wait_before(attempt, base=1.0, longest=5.0, key=f"question {i}") for i in range(3000)]
        assert 0 <= min(waits) < 0.01 * ceiling
        assert 0.99 * ceiling < max(waits) < ceiling
        assert fmean(waits) == pytest.approx(ceiling / 2, abs=4 * ceiling / (12 * 3000) ** 0.5)


def test_waits_are_keyed_and_leave_the_global_generator_alone():
    """Oracle: identity for the same key, another value for another; Python's generator is where it was."""
    before = random.getstate()
    assert wait_before(3, base=1.0, longest=9.0, key="a") == wait_before(3, base=1.0, longest=9.0, key="a")
    assert wait_before(3, base=1.0, longest=9.0, key="a") != wait_before(3, base=1.0, longest=9.0, key="b")
    assert random.getstate() == before


def test_an_endpoint_that_says_when_is_believed_up_to_a_limit():
    """Oracle: by hand: at least what it says and less than `base` more; an hour is cut to `longest`."""
    assert 7.0 <= wait_before(2, base=0.5, longest=60.0, key="a", retry_after=7.0) < 7.5
    assert 60.0 <= wait_before(2, base=0.5, longest=60.0, key="a", retry_after=3600.0) < 60.5


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:27:30 GMT", 0.0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", 30.0),
    ],
)
def test_the_header_in_both_its_forms(header, seconds):
    """Oracle: by hand, at 07:28:00 on that day (RFC 9110 10.2.3); what is neither is ignored, not followed."""
    assert read_retry_after(header, now=datetime(2026, 10, 21, 7, 28, tzinfo=UTC)) == seconds
