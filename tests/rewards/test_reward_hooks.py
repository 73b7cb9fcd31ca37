"""What reward functions note beside their values: `log_metric` and `log_extra`, with TRL's signatures."""

from __future__ import annotations

import inspect

import pytest

from grao.rewards import RewardError, RewardReport, RewardSet, load_reward
from grao.rewards.errors import StopError
from grao.training.completion_rows import completion_rows


def shouts(completions, log_metric, log_extra, **columns):
    """A value, a metric and a column; fails on "x"."""
    log_extra("upper", [text.upper() for text in completions])
    log_metric("mean_length", sum(map(len, completions)) / len(completions))
    if "x" in completions:
        raise KeyError("x")
    return [float(len(text)) for text in completions]


async def later(completions, **columns):
    columns["log_metric"]("calls", 1)
    columns["log_extra"]("upper", ["later"] * len(completions))
    return [1.0] * len(completions)


def plain(completions):
    return [0.0] * len(completions)


def extras(scored):
    return [[dict(member.extras) for member in group.members] for group in scored.groups]


def test_the_hooks_have_trls_signatures():
    """Oracle: TRL's own methods, which it hands to reward functions under these names."""
    trainer = pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer
    from grao.rewards.reward_hooks import HookLog

    for ours, theirs in (
        (HookLog.log_metric, trainer._log_metric),
        (HookLog.log_extra, trainer._log_completion_extra),
    ):
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)


def test_a_metric_keeps_its_name_and_a_column_its_members(make_group):
    """Oracle: by hand: lengths 1, 2, 3 and 4, 1, 2 of samples and references, whose mean is 13/6."""
    groups = [make_group(0, ["a", "bb"], "ccc"), make_group(1, ["dddd", "e"], "ff")]
    scored = RewardSet([shouts]).score(groups)
    assert scored.report.metrics()["mean_length"] == pytest.approx(13 / 6, rel=1e-15)
    assert extras(scored) == [
        [{"upper": "A"}, {"upper": "BB"}, {"upper": "CCC"}],
        [{"upper": "DDDD"}, {"upper": "E"}, {"upper": "FF"}],
    ]
    rows = completion_rows(scored.groups)
    assert [row["extra/upper"] for row in rows] == ["A", "BB", "CCC", "DDDD", "E", "FF"]


def test_async_functions_and_keyword_catchers_get_them_too(make_group):
    """Oracle: by hand; the column that both functions fill is prefixed by their names, the other is not."""
    scored = RewardSet([shouts, later, plain]).score([make_group(0, ["a"], "b")])
    assert scored.report.metrics()["calls"] == 1.0
    assert extras(scored) == [
        [{"shouts/upper": "A", "later/upper": "later"}, {"shouts/upper": "B", "later/upper": "later"}]
    ]


def test_a_failed_call_leaves_no_notes_and_the_members_alone_leave_theirs(make_group):
    """Oracle: by hand: "x" fails alone and with the others; what the others logged alone stays: lengths 1 and 3."""
    scored = RewardSet([load_reward(shouts, on_error="unscored")]).score([make_group(0, ["a", "x"], "ccc")])
    assert [member.reward for member in scored.groups[0].members] == [1.0, None, 3.0]
    assert extras(scored) == [[{"upper": "A"}, {}, {"upper": "CCC"}]]
    assert scored.report["shouts"].logged == {"mean_length": (1.0, 3.0)}
    assert scored.report.metrics()["mean_length"] == 2.0


def test_processes_are_merged_by_calls(make_group):
    """Oracle: by hand: three calls with 1, 3 and 8 give their mean, 4; not the mean of two processes' means."""
    one = RewardSet([load_reward(shouts, on_error="unscored")]).score([make_group(0, ["a", "x"], "ccc")])
    two = RewardSet([load_reward(shouts, on_error="unscored")]).score([make_group(1, ["d" * 8], None)])
    merged = RewardReport.merge([one.report, two.report])
    assert merged["shouts"].logged == {"mean_length": (1.0, 3.0, 8.0)}
    assert merged.metrics()["mean_length"] == 4.0


def test_a_comparison_says_nothing_of_references(make_group):
    """Oracle: by hand: the reference is not sent, so nothing is noted of it."""
    scored = RewardSet([load_reward(shouts, comparison=True)]).score([make_group(0, ["a"], "b")])
    assert extras(scored) == [[{"upper": "A"}, {}]]


def test_a_column_of_the_wrong_length_is_refused(make_group):
    """Oracle: the message has both numbers and the column."""

    def short(completions, log_extra):
        log_extra("why", ["only one"])
        return [0.0] * len(completions)

    with pytest.raises(RewardError, match=r"log_extra\('why', …\) was given 1 values for 2 completions"):
        RewardSet([short]).score([make_group(0, ["a"], "b")])


@pytest.mark.parametrize("on_error", ["raise", "unscored"])
@pytest.mark.parametrize("first", [True, False])
def test_what_must_stop_the_run_is_never_isolated(make_group, on_error, first):
    """Oracle: by hand: one call where it stops at once; where members are tried alone, none after the batch of it."""
    calls = []

    def down(completions):
        calls.append(len(completions))
        if not first and len(completions) > 1:
            raise KeyError("some other error")
        raise StopError("the endpoint is down")

    with pytest.raises(StopError, match="the endpoint is down"):
        RewardSet([load_reward(down, on_error=on_error)]).score([make_group(0, ["a", "b"], "c")])
    assert calls == ([3] if first else [3, 1] if on_error == "raise" else [3, 1, 1, 1])
