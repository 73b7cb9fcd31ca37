"""Reading a judge's reply."""

from __future__ import annotations

import pytest

from grao.rewards.endpoint.client import UnusableReplyError
from grao.rewards.judging.rubric import Scale
from grao.rewards.judging.verdict import SIGNS, read_score, read_verdict

SCALE = Scale(1, 10, "bad", "good")

EXPLAINED = [
    "1 > 2 because Text 1 is longer",
    "Text 1 is better: 1 > 2",
    "[Judgment Result] 1 > 2",
    "Verdict: 1 > 2",
    "1 > 2\n1 < 2",
    "1 > 2 > 1",
    "<think>1 < 2</think>1 > 2",
    "1 > 2.",
    "``1 > 2``",
    "`1 > 2",
    "1 > 2`",
    "*1 > 2**",
    '{"verdict": "1 > 2"}',
    "1 &gt; 2",
    "１ ＞ ２",
    "¹ > ²",
    "1 ≥ 2",
    "1 >\n2",
    "1 == 2",
    "2 < 1",
    "2 > 1",
    "11 > 2",
    "1 > 22",
    "1",
    "Text 1",
    "文本一更好",
    "Der erste Text ist besser.",
    "I cannot help with that.",
    "",
    " ",
]


@pytest.mark.parametrize("mark", ["", "`", '"', "'", "*", "**"])
@pytest.mark.parametrize(
    ("reply", "value"),
    [("1 > 2", 1), ("1 = 2", 0), ("1 < 2", -1), ("1>2", 1), ("1=2", 0), ("1<2", -1), ("1  >\t2", 1)],
)
def test_a_verdict_alone(reply, value, mark):
    """Oracle: the value of each verdict, by hand, with every pair of marks."""
    assert read_verdict(f"{mark}{reply}{mark}") == value
    assert read_verdict(f" \n{mark}{reply}{mark}\n") == value


@pytest.mark.parametrize("reply", EXPLAINED)
def test_anything_else_is_unusable(reply):
    """Oracle: replies written by hand, none of which is a verdict alone."""
    with pytest.raises(UnusableReplyError, match="not a verdict"):
        read_verdict(reply)


def test_what_is_written_is_what_is_read():
    """Oracle: the values 1, 0, −1 that were written."""
    assert [read_verdict(SIGNS[value]) for value in (1, 0, -1)] == [1, 0, -1]


@pytest.mark.parametrize(
    ("reply", "score"), [("7", 7.0), (" 7.5\n", 7.5), ("`1`", 1.0), ("**10**", 10.0), ("+3", 3.0), ("10.000", 10.0)]
)
def test_a_score_alone(reply, score):
    """Oracle: the number of each reply, by hand."""
    assert read_score(reply, SCALE) == score


@pytest.mark.parametrize(
    "reply", ["7/10", "Score: 7", "7 because", "seven", "7 8", "٧", "７", "1e1", "nan", "inf", "", "7.", ".5", "`7"]
)
def test_anything_else_is_no_score(reply):
    """Oracle: replies written by hand, none of which is a number alone."""
    with pytest.raises(UnusableReplyError, match="not a number"):
        read_score(reply, SCALE)


@pytest.mark.parametrize("reply", ["0", "10.5", "-3", "999999999"])
def test_a_score_must_be_on_the_scale(reply):
    """Oracle: numbers off the scale from 1 to 10, by hand."""
    with pytest.raises(UnusableReplyError, match="not on the scale from 1 to 10"):
        read_score(reply, SCALE)


def test_a_negative_scale():
    """Oracle: −1.5 on a scale from −2 to 2."""
    assert read_score("-1.5", Scale(-2, 2, "bad", "good")) == -1.5


def test_messages_hold_little_of_the_reply():
    """Oracle: the length of the message, and no escape character in it."""
    with pytest.raises(UnusableReplyError) as caught:
        read_verdict("\x1b[2J" + "x" * 10_000)
    assert len(str(caught.value)) < 200
    assert "\x1b" not in str(caught.value)
