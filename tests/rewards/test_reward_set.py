from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time

import numpy as np
import pytest
import torch

from grao.rewards import RewardError, RewardFunction, RewardReturnError, RewardSet, combine, comparison, load_reward


class Recorder:
    """Returns the length of each completion and keeps what it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, prompts, completions, completion_ids, log_metric, log_extra, **columns):
        self.calls.append(
            {"prompts": prompts, "completions": completions, "completion_ids": completion_ids, **columns}
        )
        return [len(c) for c in completions]


def by_length(completions, **_):
    return [float(len(c)) for c in completions]


def test_one_call_holds_samples_and_references_group_by_group(make_group):
    """Oracle: the six entries written out by hand."""
    record = Recorder()
    groups = [
        make_group(5, ["a", "bb"], "ccc", prompt="P5", answer="7"),
        make_group(9, ["dddd", "e"], "ff", prompt="P9", answer="12"),
    ]
    scored = RewardSet([RewardFunction(record, name="length")]).score(groups)
    assert record.calls == [
        {
            "prompts": ["P5", "P5", "P5", "P9", "P9", "P9"],
            "completions": ["a", "bb", "ccc", "dddd", "e", "ff"],
            "completion_ids": [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0], [0, 1]],
            "answer": ["7", "7", "7", "12", "12", "12"],
            "reference": ["ccc", "ccc", "ccc", "ff", "ff", "ff"],
        }
    ]
    assert [[m.reward for m in g.members] for g in scored.groups] == [[1.0, 2.0, 3.0], [4.0, 1.0, 2.0]]
    assert scored.groups[0].samples[1].rewards == {"length": 2.0}


def test_groups_given_are_left_as_they_were(make_group):
    """Oracle: identity. The input's members still have no reward; ids, text and columns are carried over."""
    group = make_group()
    (after,) = RewardSet([by_length]).score([group]).groups
    assert all(member.reward is None and member.rewards == {} for member in group.members)
    assert [(m.ids, m.text) for m in after.members] == [(m.ids, m.text) for m in group.members]
    assert after.columns is group.columns


def test_a_group_without_reference_sends_only_its_samples(make_group):
    """Oracle: the list written out by hand."""
    record = Recorder()
    groups = [make_group(0, ["a"], None), make_group(1, ["b"], "c")]
    scored = RewardSet([RewardFunction(record, name="r")]).score(groups)
    assert record.calls[0]["completions"] == ["a", "b", "c"]
    assert record.calls[0]["reference"] == [None, "c", "c"]
    assert scored.groups[0].reference is None
    assert scored.report["r"].references == (1.0,)


def test_rejected_answers_are_scored_only_on_request(make_group):
    """Oracle: lengths counted by hand."""
    group = make_group(samples=["a"], reference=None, rejected="four")
    assert RewardSet([by_length]).score([group]).groups[0].rejected.reward is None
    scored = RewardSet([by_length], score_rejected=True).score([group])
    assert scored.groups[0].rejected.reward == 4.0
    assert scored.groups[0].samples[0].reward == 1.0
    assert scored.report["by_length"].rejected == (4.0,)


def test_conversations_are_passed_as_messages_that_the_function_may_edit(make_group):
    """Oracle: TRL's documented shape, written out; and the group's prompt is unchanged after the edit."""
    prompt = [{"role": "user", "content": "Hi"}]
    seen = []

    def edits(prompts, completions):
        seen.extend(completions)
        prompts[0][0]["content"] = "edited"
        return [0.0] * len(prompts)

    RewardSet([edits]).score([make_group(samples=["x"], reference=None, prompt=prompt)])
    assert seen == [[{"role": "assistant", "content": "x"}]]
    assert prompt == [{"role": "user", "content": "Hi"}]


def test_a_function_may_empty_its_lists(make_group):
    """Oracle: by hand: it fails on "a" alone, and the others still find their completions in the second round."""

    def greedy(completions):
        taken = [completions.pop(0) for _ in range(len(completions))]
        if "a" in taken:
            raise KeyError("a")
        return [float(len(c)) for c in taken]

    (group,) = RewardSet([load_reward(greedy, on_error="unscored")]).score([make_group()]).groups
    assert [member.reward for member in group.members] == [None, 2.0, 3.0]


def test_weighted_sum_equals_a_plain_loop(make_group):
    """Oracle: a double loop from the definition Σ w·r over the functions that scored the member, None if none."""
    rng = random.Random(0)
    texts = [f"t{i}" for i in range(40)]
    table = {name: {t: rng.choice([None, None, rng.uniform(-2, 2)]) for t in texts} for name in ("a", "b", "c")}
    weights = {"a": 1.0, "b": -0.5, "c": 3.0}
    functions = [
        RewardFunction(
            lambda completions, of=table[name], **_: [of[c] for c in completions], name=name, weight=weights[name]
        )
        for name in table
    ]
    groups = [make_group(i, texts[4 * i : 4 * i + 3], texts[4 * i + 3]) for i in range(10)]
    scored = RewardSet(functions).score(groups)
    unscored = 0
    for group in scored.groups:
        for member in group.members:
            total, found = 0.0, False
            for name, values in table.items():
                if values[member.text] is not None:
                    total, found = total + weights[name] * values[member.text], True
            assert member.reward == (total if found else None)
            assert member.rewards == {name: values[member.text] for name, values in table.items()}
            unscored += not found
    assert unscored > 0  # the case that matters occurred


def test_combine_by_hand():
    """Oracle: 2·1 + 0.5·3 = 3.5; all None is None, and a single zero is 0.0, not None."""
    assert combine({"a": 1.0, "b": None, "c": 3.0}, {"a": 2.0, "b": 9.0, "c": 0.5}) == 3.5
    assert combine({"a": None, "b": None}, {"a": 1.0, "b": 1.0}) is None
    assert combine({"a": 0.0, "b": None}, {"a": 1.0, "b": 1.0}) == 0.0


def test_functions_receive_only_the_names_they_accept(make_group):
    """Oracle: the functions themselves, which would raise TypeError on any other name."""

    def completions_only(completions):
        return [1.0] * len(completions)

    def ids_only(completion_ids):
        return [float(len(ids)) for ids in completion_ids]

    def with_column(completions, answer, missing=None):
        assert missing is None
        return [float(a) for a in answer]

    scored = RewardSet([completions_only, ids_only, with_column]).score([make_group(answer="4", other=1)])
    assert scored.groups[0].samples[1].rewards == {"completions_only": 1.0, "ids_only": 2.0, "with_column": 4.0}


def test_a_missing_column_is_named_with_those_that_exist(make_group):
    """Oracle: the message, read."""

    def needs(completions, solution):
        return []

    with pytest.raises(ValueError, match=r"'needs' needs 'solution'.*columns: answer, reference;"):
        RewardSet([needs]).score([make_group(answer="4")])


def test_a_column_named_like_an_argument_is_refused(make_group):
    """Oracle: the message, read."""
    with pytest.raises(ValueError, match=r"'completions'.*Rename"):
        RewardSet([by_length]).score([make_group(completions="x")])


def test_context_reaches_functions_by_name_and_unrepeated(make_group):
    """Oracle: identity of the object passed."""
    state, seen = object(), []

    def wants_state(completions, trainer_state):
        seen.append(trainer_state)
        return [0.0] * len(completions)

    RewardSet([wants_state, by_length]).score([make_group()], context={"trainer_state": state})
    assert seen == [state]


# Async


def test_async_functions_overlap_each_other_and_the_sync_ones(make_group):
    """Oracle: each async function waits until the other and the sync one are running; in sequence none would end."""
    arrived = {name: threading.Event() for name in ("first", "second", "sync")}

    async def meet(name, others):
        arrived[name].set()
        while not all(arrived[other].is_set() for other in others):
            await asyncio.sleep(0.001)

    async def first(completions):
        await meet("first", ["second", "sync"])
        return [1.0] * len(completions)

    async def second(completions):
        await meet("second", ["first", "sync"])
        return [2.0] * len(completions)

    def sync(completions):
        arrived["sync"].set()
        return [4.0] * len(completions)

    functions = [RewardFunction(first, "first", timeout=5), RewardFunction(second, "second", timeout=5), sync]
    (group,) = RewardSet(functions).score([make_group()]).groups
    assert [member.reward for member in group.members] == [7.0, 7.0, 7.0]
    assert group.reference.rewards == {"first": 1.0, "second": 2.0, "sync": 4.0}


def test_async_callables_of_every_kind_are_awaited(make_group):
    """Oracle: the number each returns."""
    from functools import partial

    async def function(completions, value=1.0):
        return [value] * len(completions)

    class Judge:
        async def __call__(self, completions, **_):
            return [3.0] * len(completions)

    functions = [
        RewardFunction(function, "f"),
        RewardFunction(partial(function, value=2.0), "p"),
        RewardFunction(Judge(), "j"),
    ]
    (group,) = RewardSet(functions).score([make_group()]).groups
    assert group.samples[0].rewards == {"f": 1.0, "p": 2.0, "j": 3.0}


def test_async_calls_share_one_loop_and_work_inside_a_running_one(make_group):
    """Oracle: identity of the loop over two calls, the second made from within a coroutine, as in a notebook."""
    loops = []

    async def judge(completions):
        loops.append(asyncio.get_running_loop())
        return [0.0] * len(completions)

    rewards = RewardSet([judge])
    rewards.score([make_group()])

    async def notebook():
        return rewards.score([make_group()])

    asyncio.run(notebook())
    assert loops[0] is loops[1]


def test_a_coroutine_from_a_plain_function_is_refused(make_group):
    """Oracle: the message, read."""

    async def judge(completions):
        return [0.0] * len(completions)

    with pytest.raises(RewardReturnError, match=r"'hidden'.*coroutine.*async def"):
        RewardSet([RewardFunction(lambda completions: judge(completions), "hidden")]).score([make_group()])


# Comparison


@comparison
def wins(completions, reference, **_):
    assert all(c != r for c, r in zip(completions, reference, strict=True)), "the reference was sent"
    return [float(len(c) - len(r)) for c, r in zip(completions, reference, strict=True)]


def test_a_comparison_is_not_asked_about_the_reference_whose_value_is_zero(make_group):
    """Oracle: lengths by hand (1 − 3, 2 − 3), and R(y, y) = 0 by definition."""
    scored = RewardSet([wins, RewardFunction(by_length, "length", weight=10.0)]).score([make_group()])
    (group,) = scored.groups
    assert [s.rewards["wins"] for s in group.samples] == [-2.0, -1.0]
    assert group.reference.rewards == {"wins": 0.0, "length": 3.0}
    assert group.reference.reward == 30.0
    assert scored.report["wins"].references == (0.0,)
    assert scored.report.metrics()["rewards/wins/reference_mean"] == 0.0


def test_a_setting_makes_any_function_a_comparison(make_group):
    """Oracle: a recording function sees two completions, not three."""
    record = Recorder()
    RewardSet([RewardFunction(record, "r", comparison=True)]).score([make_group()])
    assert record.calls[0]["completions"] == ["a", "bb"]


def test_a_comparison_without_a_reference_names_the_row(make_group):
    """Oracle: the message, read."""
    with pytest.raises(ValueError, match=r"'wins' compares.*row 12 has none"):
        RewardSet([wins]).score([make_group(1), make_group(12, reference=None)])


# Failures that stop the run


def fails_on(bad):
    def fails(completions, **_):
        if any(c in bad for c in completions):
            raise ZeroDivisionError("inside the verifier")
        return [1.0] * len(completions)

    return fails


def test_an_exception_names_function_row_member_and_completion(make_group):
    """Oracle: the message, read; and the original exception is the cause."""
    groups = [make_group(3), make_group(8, ["x", "bad " + "z" * 500], "ref")]
    function = RewardFunction(fails_on({"bad " + "z" * 500}), name="verifier")
    with pytest.raises(RewardError) as caught:
        RewardSet([function]).score(groups)
    message = str(caught.value)
    assert "'verifier'" in message
    assert "row 8, sample 1" in message
    assert "bad zzz" in message
    assert "z" * 197 not in message  # cut to 200 characters
    assert "z" * 196 in message
    assert "ZeroDivisionError: inside the verifier" in message
    assert "on_error: unscored" in message
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert not isinstance(caught.value, ValueError)


def test_an_async_exception_on_the_reference_is_named_too(make_group):
    """Oracle: the message, read."""

    async def judge(completions):
        if "ccc" in completions:
            raise ConnectionError("refused")
        return [0.0] * len(completions)

    with pytest.raises(
        RewardError, match="'judge' raised ConnectionError: refused on row 4, reference, completion 'ccc'"
    ):
        RewardSet([judge]).score([make_group(4)])


def test_the_search_for_the_culprit_is_bounded(make_group):
    """Oracle: calls counted: 1 with all members, 64 alone; the message says that none of the 64 raised."""
    calls = itertools.count()

    def fails_together(completions):
        next(calls)
        if len(completions) > 1:
            raise RuntimeError("too many")
        return [0.0]

    with pytest.raises(RewardError, match=r"called with 101 completions.*row 0, sample 0.*none of the first 64"):
        RewardSet([fails_together]).score([make_group(0, [str(i) for i in range(100)])])
    assert next(calls) == 65


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1.0, 2.0], "returned 2 values for 3 completions.*row 7, sample 0, completion 'a'"),
        ([1.0, float("nan"), 1.0], "returned nan for row 7, sample 1, completion 'bb'"),
        ([1.0, 0.0, float("-inf")], "returned -inf for row 7, reference, completion 'ccc'"),
        ([1.0, "good", 1.0], "returned 'good' of type str for row 7, sample 1, completion 'bb'"),
        ([1j, 1.0, 1.0], "of type complex for row 7, sample 0"),
        ([[1.0], 1.0, 1.0], "of type list for row 7, sample 0"),
        (torch.zeros(3, 2), "of type Tensor for row 7, sample 0"),
        ([10**400, 1.0, 1.0], "returned inf for row 7, sample 0"),
        (None, "returned a NoneType. Return a list of 3 numbers"),
        (1.0, "returned a float. Return a list of 3 numbers"),
        ({"a": 1}, "returned a dict. Return a list of 3 numbers"),
        ("abc", "returned a str. Return a list of 3 numbers"),
    ],
)
def test_a_wrong_return_names_function_row_and_completion(make_group, returned, message):
    """Oracle: the message, read. It is a RewardError and a ValueError at once."""
    function = RewardFunction(lambda completions: returned, name="odd")
    with pytest.raises(RewardReturnError, match=f"'odd'.*{message}") as caught:
        RewardSet([function]).score([make_group(7)])
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, RewardError)


@pytest.mark.parametrize(
    "returned",
    [
        [True, False, 2],
        (1.0, 0, 2.0),
        np.array([1.0, 0.0, 2.0], dtype=np.float32),
        torch.tensor([1.0, 0.0, 2.0], dtype=torch.bfloat16),
        [np.bool_(True), torch.tensor(0), np.int64(2)],
    ],
)
def test_numbers_of_every_kind_are_read(make_group, returned):
    """Oracle: 1, 0, 2, as Python floats."""
    (group,) = RewardSet([RewardFunction(lambda completions: returned, "n")]).score([make_group()]).groups
    assert [member.reward for member in group.members] == [1.0, 0.0, 2.0]
    assert all(type(member.reward) is float for member in group.members)


# Failures that leave members unscored


def test_one_bad_member_does_not_unscore_the_batch(make_group, caplog):
    """Oracle: by hand: of six members two fail. They are None (never 0), the others 1; logged once, counted."""
    groups = [make_group(3, ["a", "bad"], "r"), make_group(8, ["worse", "b"], "r")]
    function = RewardFunction(fails_on({"bad", "worse"}), "verifier", on_error="unscored")
    scored = RewardSet([function]).score(groups)
    assert [[m.reward for m in g.members] for g in scored.groups] == [[1.0, None, 1.0], [None, 1.0, 1.0]]
    assert scored.groups[0].samples[1].rewards == {"verifier": None}
    report = scored.report["verifier"]
    assert (report.errors, report.unscored) == (2, 2)
    assert len(caplog.records) == 1
    logged = caplog.text
    assert "'verifier' left 2 of 6 members unscored" in logged
    assert "ZeroDivisionError: inside the verifier on row 3, sample 1, completion 'bad'" in logged


def test_a_function_that_is_down_unscores_all_after_a_bounded_number_of_calls(make_group):
    """Oracle: calls counted by hand: 1 with all members and 64 alone; 101 members None, all counted as errors."""
    calls = itertools.count()

    def down(completions):
        next(calls)
        raise ConnectionError

    scored = RewardSet([RewardFunction(down, "down", on_error="unscored")]).score(
        [make_group(0, [str(i) for i in range(100)])]
    )
    assert [member.reward for member in scored.groups[0].members] == [None] * 101
    assert scored.report["down"].errors == scored.report["down"].unscored == 101
    assert "rewards/down/mean" not in scored.report.metrics()
    assert next(calls) == 65


def test_more_members_than_one_round_of_isolation(make_group):
    """Oracle: by hand: members "0" and "99" of 101 fail, all others score 1."""
    function = RewardFunction(fails_on({"0", "99"}), "v", on_error="unscored")
    scored = RewardSet([function]).score([make_group(0, [str(i) for i in range(100)])])
    expected = [None, *[1.0] * 98, None]
    assert [sample.reward for sample in scored.groups[0].samples] == expected
    assert scored.groups[0].reference.reward == 1.0


def test_async_failures_are_isolated_at_the_same_time(make_group):
    """Oracle: by hand which member fails; the six single calls wait for each other, so in sequence they would hang."""
    alone = 0

    async def judge(completions):
        nonlocal alone
        if len(completions) == 1:
            alone += 1
            while alone < 6:
                await asyncio.sleep(0.001)
        if "bad" in completions:
            raise ConnectionError
        return [1.0] * len(completions)

    groups = [make_group(0, ["a", "b"], "c"), make_group(1, ["bad", "b"], "c")]
    scored = RewardSet([RewardFunction(judge, "judge", on_error="unscored", timeout=5)]).score(groups)
    assert [[m.reward for m in g.members] for g in scored.groups] == [[1.0] * 3, [None, 1.0, 1.0]]


def test_nan_and_infinity_become_unscored_on_request(make_group):
    """Oracle: by hand: NaN and ∞ are None, counted as errors; the function's own None is unscored but no error."""
    function = RewardFunction(lambda completions: [float("nan"), float("inf"), None, 0.0], "n", on_error="unscored")
    scored = RewardSet([function]).score([make_group(0, ["a", "b", "c"], "d")])
    assert [member.reward for member in scored.groups[0].members] == [None, None, None, 0.0]
    assert (scored.report["n"].errors, scored.report["n"].unscored) == (2, 3)


def test_a_bug_in_the_function_stops_the_run_even_so(make_group):
    """Oracle: `unscored` is for outages; a wrong length raises all the same."""
    with pytest.raises(RewardReturnError, match="returned 1 values for 3"):
        RewardSet([RewardFunction(lambda completions: [1.0], "n", on_error="unscored")]).score([make_group()])


def test_another_function_still_scores_what_one_could_not(make_group):
    """Oracle: by hand: the sum is the other function's weighted value alone, never that plus 0·weight or 0."""
    functions = [
        RewardFunction(fails_on({"a"}), "broken", weight=5.0, on_error="unscored"),
        RewardFunction(by_length, "length", weight=2.0),
    ]
    (group,) = RewardSet(functions).score([make_group()]).groups
    assert [member.reward for member in group.members] == [2.0, 9.0, 11.0]


# Timeouts


def test_a_sync_timeout_stops_the_run_with_its_name(make_group):
    """Oracle: the message, read; the wait is bounded by the timeout, not by the function."""
    release = threading.Event()

    def hangs(completions):
        release.wait(30)
        return [0.0] * len(completions)

    begin = time.perf_counter()
    with pytest.raises(RewardError, match=r"'hangs' took longer.*0\.05 seconds.*3 completions.*row 6, sample 0"):
        RewardSet([RewardFunction(hangs, "hangs", timeout=0.05)]).score([make_group(6)])
    release.set()
    assert time.perf_counter() - begin < 5


def test_a_timeout_unscores_the_whole_call_on_request(make_group, caplog):
    """Oracle: by hand: three members None, three errors, one line in the log; an async one likewise, and cancelled."""
    cancelled = threading.Event()

    async def hangs(completions):
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def sleeps(completions):
        time.sleep(0.5)

    for function in (hangs, sleeps):
        caplog.clear()
        scored = RewardSet([RewardFunction(function, "slow", timeout=0.05, on_error="unscored")]).score([make_group()])
        assert [member.reward for member in scored.groups[0].members] == [None, None, None]
        assert scored.report["slow"].errors == 3
        assert 0.05 <= scored.report["slow"].seconds < 0.4
        assert len(caplog.records) == 1
    assert cancelled.is_set()


def test_a_function_within_its_timeout_scores_in_a_thread_of_its_own(make_group):
    """Oracle: the thread's identity, and the value."""
    where = []

    def quick(completions):
        where.append(threading.current_thread())
        return [1.0] * len(completions)

    (group,) = RewardSet([RewardFunction(quick, "quick", timeout=10)]).score([make_group()]).groups
    assert group.samples[0].reward == 1.0
    assert where[0] is not threading.main_thread()


def test_a_timeout_of_the_functions_own_is_an_error_like_any_other(make_group):
    """Oracle: with isolation the two others keep their score, which a timeout of ours would not leave them."""

    async def judge(completions):
        if "a" in completions:
            raise TimeoutError("the server's")
        return [1.0] * len(completions)

    (group,) = RewardSet([RewardFunction(judge, "judge", timeout=5, on_error="unscored")]).score([make_group()]).groups
    assert [member.reward for member in group.members] == [None, 1.0, 1.0]


def test_no_members_no_call(make_group):
    """Oracle: a function that would raise is not called."""
    scored = RewardSet([fails_on({""})]).score([make_group(samples=[], reference=None)])
    assert scored.report["fails"].samples == ()
    assert RewardSet([fails_on({""})]).score([]).groups == ()


def test_names_must_differ():
    """Oracle: the message, read."""
    with pytest.raises(ValueError, match="two reward functions are named 'by_length'"):
        RewardSet([by_length, by_length])
    with pytest.raises(ValueError, match="no reward function"):
        RewardSet([])
