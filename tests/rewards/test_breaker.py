"""When failures become an outage. The clock is the test's."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from grao.rewards.endpoint.breaker import SUSPICIOUS, Breaker


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def asking():
    with ExitStack() as stack:
        yield stack


def test_suspicious_after_a_row_of_failures_until_an_answer(clock):
    """Oracle: counted by hand."""
    breaker = Breaker(5, 300.0, clock)
    for _ in range(SUSPICIOUS - 1):
        breaker.failed("a", "500", last=False)
    assert not breaker.suspicious
    breaker.failed("a", "500", last=False)
    assert breaker.suspicious
    breaker.answered()
    assert not breaker.suspicious


def test_down_after_questions_in_a_row_without_hope(clock, asking):
    """Oracle: by hand: the third in a row; one answer in between resets the count."""
    breaker = Breaker(3, 300.0, clock)
    asking.enter_context(breaker.asking())
    for _ in range(2):
        breaker.failed("a", "500", last=True)
    breaker.answered()
    for question in "abc":
        assert breaker.down is None
        breaker.failed(question, f"500 on {question}", last=True)
    assert (breaker.down.last_fault, breaker.down.questions, breaker.down.faults) == ("500 on c", 3, 3)


def test_down_after_a_time_without_answers(clock, asking):
    """Oracle: by hand: 299 s are borne, 300 are not."""
    breaker = Breaker(100, 300.0, clock)
    asking.enter_context(breaker.asking())
    breaker.failed("a", "timeout", last=False)
    clock.now += 299
    breaker.failed("b", "timeout", last=False)
    assert breaker.down is None
    clock.now += 1
    breaker.failed("b", "timeout", last=False)
    assert breaker.down.seconds == 300.0


def test_one_question_alone_never_means_an_outage(clock, asking):
    """Oracle: by hand: it may be the question; it runs out of attempts by itself."""
    breaker = Breaker(5, 300.0, clock)
    asking.enter_context(breaker.asking())
    for _ in range(10):
        clock.now += 100
        breaker.failed("poison", "timeout", last=False)
    assert breaker.down is None


def test_time_in_which_nothing_is_asked_does_not_count(clock):
    """Oracle: by hand: a failure at the end of one step and one an hour later, in the next, are no outage."""
    breaker = Breaker(5, 300.0, clock)
    with breaker.asking():
        breaker.failed("a", "500", last=True)
        clock.now += 10
    clock.now += 3600
    with breaker.asking():
        breaker.failed("b", "500", last=False)
        assert breaker.down is None
        clock.now += 290
        breaker.failed("b", "500", last=False)
        assert breaker.down.seconds == 300.0


def test_it_stays_down_until_all_have_heard_and_then_starts_afresh(clock, asking):
    """Oracle: by hand: a late answer to a request that was under way does not revive half a run."""
    breaker = Breaker(1, 300.0, clock)
    with breaker.asking():
        with breaker.asking():
            breaker.failed("a", "500", last=True)
            breaker.answered()
        assert breaker.down is not None
    asking.enter_context(breaker.asking())
    assert breaker.down is None
    assert not breaker.suspicious
