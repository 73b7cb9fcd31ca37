"""What is accepted as an engine's reply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from grao.groups import Group, Member
from grao.rollout import EngineError, SamplingParams, sample_groups

GROUPS = [Group(row=4, prompt="a", prompt_ids=(3,)), Group(row=9, prompt="b", prompt_ids=(4,))]
GOOD = Member((5, 1), "x", "stop", (-0.1, -0.2))


class Replies:
    exact = True

    def __init__(self, reply: list[tuple[Member, ...]]) -> None:
        self.reply = reply

    def sample(self, requests: Sequence[Any], params: SamplingParams) -> list[tuple[Member, ...]]:
        return self.reply

    def sync(self, model: Any, version: str) -> None: ...

    def open(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ([(GOOD, GOOD)], "The engine answered 1 of 2 requests"),
        ([(GOOD, GOOD), (GOOD,)], "The engine returned 1 of 2 completions for row 9"),
        ([(GOOD, Member((), "", "stop", ())), (GOOD, GOOD)], "a completion with 0 ids and 0 log-probs for row 4"),
        ([(GOOD, GOOD), (GOOD, Member((5, 1), "x", "stop", (-0.1,)))], "2 ids and 1 log-probs for row 9"),
    ],
)
def test_a_reply_that_is_not_usable(reply: list[tuple[Member, ...]], message: str) -> None:
    """Oracle: the sentence. A group that silently shrinks would train on other statistics."""
    with pytest.raises(EngineError, match=message):
        sample_groups(Replies(reply), GROUPS, SamplingParams(), seed=0, step=0, num_samples=2)


def test_a_reply_that_is() -> None:
    """Oracle: the members that the engine returned; log-probs may be missing as a whole."""
    reply = [(GOOD, Member((5,), "y", "length")), (GOOD, GOOD)]
    groups = sample_groups(Replies(reply), GROUPS, SamplingParams(), seed=0, step=0, num_samples=2)
    assert [group.samples for group in groups] == reply
