"""Functions in the style of verl's users, against how verl itself calls them."""

from __future__ import annotations

import asyncio
import inspect
import re

import numpy as np
import pytest
import torch

from grao.rewards import RewardError, RewardSet, load_reward
from grao.rewards.verl import VerlReward

CHAT = [{"role": "user", "content": "3 + 4?"}]


def gsm8k_score(data_source, solution_str, ground_truth, extra_info=None):
    """A number, or 0.1 for the form alone."""
    found = re.findall(r"#### (-?\d+)", solution_str)
    return (1.0 if found[-1] == ground_truth else 0.1) if found else 0.0


def detailed_score(data_source, solution_str, ground_truth, extra_info=None, bonus=0.0):
    """A dict: the score and what is to be logged."""
    right = solution_str.strip() == ground_truth
    result = {"score": right + bonus * (extra_info or {}).get("level", 0), "acc": right}
    return {**result, "source": data_source} if right else result


async def judged_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    """Async, and the later the longer the answer."""
    await asyncio.sleep(0.001 * len(solution_str))
    return float(len(solution_str))


def batch_score(data_sources, solution_strs, ground_truths, extra_infos):
    """All at once, dicts and numbers mixed."""
    pairs = zip(solution_strs, ground_truths, strict=True)
    return [{"score": 1.0, "acc": 1} if text == truth else -1.0 for text, truth in pairs]


def as_verl_does(function, rows, completions, **reward_kwargs):
    """verl's naive reward manager in a few lines: each completion by keyword, `score` of a dict, else the value."""

    async def run():
        scores = []
        for row, completion in zip(rows, completions, strict=True):
            arguments = {
                "data_source": row["data_source"],
                "solution_str": completion,
                "ground_truth": row["reward_model"]["ground_truth"],
                "extra_info": dict(row.get("extra_info") or {}),
                **reward_kwargs,
            }
            result = function(**arguments)
            result = await result if inspect.iscoroutinefunction(function) else result
            scores.append(result["score"] if isinstance(result, dict) else result)
        return scores

    return asyncio.run(run())


def scores(reward, **columns):
    """Of one call, outside a run."""
    return asyncio.run(reward(**columns))


ROWS = [
    {"data_source": "a", "reward_model": {"ground_truth": "7", "style": "rule"}, "extra_info": {"level": 2}},
    {"data_source": "b", "reward_model": {"ground_truth": "12", "style": "rule"}, "extra_info": None},
    {"data_source": "b", "reward_model": {"ground_truth": "5", "style": "rule"}, "extra_info": {"level": 4}},
]
COMPLETIONS = [["so #### 7", "7", "8"], ["#### 11", "12", ""], ["5", "#### 5", "five"]]


@pytest.mark.parametrize(
    ("function", "reward_kwargs"),
    [(gsm8k_score, {}), (detailed_score, {}), (detailed_score, {"bonus": 0.25}), (judged_score, {})],
)
@pytest.mark.parametrize("concurrent", [None, 1, 3])
def test_scores_are_those_that_verl_would_find(function, reward_kwargs, concurrent, make_group):
    """Oracle: verl's way of calling, written out, on rows as verl's files hold them."""
    groups = [make_group(i, texts, None, **row) for i, (texts, row) in enumerate(zip(COMPLETIONS, ROWS, strict=True))]
    kwargs = {"function": function, "reward_kwargs": reward_kwargs, "concurrent": concurrent}
    scored = RewardSet([{"path": "verl", "kwargs": kwargs}]).score(groups).groups
    found = [[sample.reward for sample in group.samples] for group in scored]
    expected = [
        as_verl_does(function, [row] * len(texts), texts, **reward_kwargs)
        for row, texts in zip(ROWS, COMPLETIONS, strict=True)
    ]
    assert found == expected
    assert len({reward for rewards in found for reward in rewards}) > 1


def test_a_batch_function_is_called_once():
    """Oracle: 1 where answer and truth are alike, else −1; conversations are read by their last turn."""
    reward = VerlReward(batch_score, ground_truth_column="answer", data_source="a")
    texts = [[{"role": "assistant", "content": text}] for text in ("7", "8")]
    assert scores(reward, completions=texts, answer=["7", "7"]) == [1.0, -1.0]
    assert reward.required_columns == ("answer",)


def test_what_else_a_dict_holds_is_logged():
    """Oracle: by hand; a key that one result lacks is None there."""
    logged = {}
    reward = VerlReward(detailed_score, ground_truth_column="answer", data_source="a")
    scores(reward, completions=["7", "8"], answer=["7", "7"], log_extra=logged.__setitem__)
    assert logged == {"acc": [True, False], "source": ["a", None]}


def test_notes_end_on_their_members(make_group):
    """Oracle: by hand, through a whole scoring: a sample that is right, one that is not, and the reference."""
    kwargs = {"function": detailed_score, "ground_truth_column": "answer", "data_source": "a"}
    (group,) = (
        RewardSet([{"path": "verl", "kwargs": kwargs}]).score([make_group(0, ["7", "8"], "7", answer="7")]).groups
    )
    right, wrong = {"acc": True, "source": "a"}, {"acc": False, "source": None}
    assert [member.extras for member in group.members] == [right, wrong, right]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, 1.0), (None, None), (torch.tensor(0.5), 0.5), (np.float32(0.25), 0.25), ({"score": None}, None)],
)
def test_values_of_every_kind_are_read(value, expected, make_group):
    """Oracle: the numbers; None is unscored."""
    reward = VerlReward(lambda solution_str: value)
    (group,) = RewardSet([reward]).score([make_group(0, ["a"], None)]).groups
    assert group.samples[0].reward == expected


def test_a_function_gets_what_it_takes_and_its_own_copy_of_extra_info():
    """Oracle: the arguments it was called with, written out; the row as it was."""
    seen = []

    def writes(solution_str, extra_info):
        seen.append(dict(extra_info))
        extra_info["seen"] = True
        return 0.0

    info = {"index": 3}
    reward = VerlReward(writes, extra_info_column="info")
    assert scores(reward, completions=["a", "b"], info=[info, info]) == [0.0, 0.0]
    assert seen == [{"index": 3}] * 2
    assert info == {"index": 3}
    assert reward.required_columns == ("info",)


def test_one_bad_item_leaves_the_others_their_scores(make_group):
    """Oracle: by hand: the second sample raises; unscored, counted as an error, or the run stops and names it."""

    async def fragile(solution_str, ground_truth, **kwargs):
        return 1.0 / len(solution_str)

    kwargs = {"function": fragile, "ground_truth_column": None, "data_source": "a"}
    groups = [make_group(4, ["a", "", "bb"], None)]
    scored = RewardSet([{"path": "verl", "kwargs": kwargs, "on_error": "unscored"}]).score(groups)
    assert [sample.reward for sample in scored.groups[0].samples] == [1.0, None, 0.5]
    assert scored.report["verl"].errors == 1
    with pytest.raises(RewardError, match=r"ZeroDivisionError.*row 4, sample 1"):
        RewardSet([{"path": "verl", "kwargs": kwargs}]).score(groups)


def test_at_most_so_many_async_calls_run_at_once():
    """Oracle: a counter in the function."""
    running, most = 0, 0

    async def counts(solution_str):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1
        return 0.0

    scores(VerlReward(counts, concurrent=3), completions=["a"] * 9)
    assert most == 3


def needs_batch(data, return_dict=False):
    return 0.0


def needs_server(data_source, solution_str, ground_truth, extra_info, reward_router_address):
    return 0.0


def sees_nothing(ground_truth):
    return 0.0


class Manager:
    def run_single(self, data):
        return {}


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        (needs_batch, {}, "needs data.*data is a DataProto, verl's own batch"),
        (needs_server, {}, "needs reward_router_address.*verl's own reward model server"),
        (sees_nothing, {}, "takes ground_truth, but neither solution_str nor solution_strs"),
        (Manager, {}, "is the class Manager, not a function.*name the function that scores"),
        (Manager(), {}, "is a Manager, not a function"),
        (gsm8k_score, {"concurrent": 0}, "concurrent is 0. Give 1 or more"),
    ],
)
def test_what_cannot_be_called_here_is_refused(function, settings, message):
    """Oracle: the messages, read."""
    with pytest.raises(ValueError, match=message):
        VerlReward(function, **settings)


def test_columns_that_do_not_fit_are_named(make_group):
    """Oracle: the messages, read: no such column; no dict; no such key; a result without a score."""
    with pytest.raises(ValueError, match=r"'verl' cannot be built with 'truth_column' .nearest: ground_truth_column"):
        load_reward("verl", {"function": gsm8k_score, "truth_column": "answer"})
    with pytest.raises(ValueError, match=r"reward 'verl' needs 'data_source', 'reward_model', which is not a column"):
        RewardSet([{"path": "verl", "kwargs": {"function": gsm8k_score}}]).score([make_group(0)])
    reward = VerlReward(gsm8k_score, data_source="a")
    with pytest.raises(ValueError, match="an entry of 'reward_model' is not a dict with 'ground_truth': 'x'"):
        scores(reward, completions=["a"], reward_model=["x"])
    with pytest.raises(ValueError, match="extra_info is 'x', not a dict"):
        scores(reward, completions=["a"], reward_model=[{"ground_truth": "x"}], extra_info=["x"])
    with pytest.raises(ValueError, match=r"returned a dict of acc. The key 'score' must hold the reward"):
        scores(VerlReward(lambda solution_str: {"acc": 1}), completions=["a"])
    with pytest.raises(ValueError, match="returned a float for a batch"):
        scores(VerlReward(lambda solution_strs: 1.0), completions=["a"])


def test_a_file_is_named_as_verl_names_it(tmp_path, monkeypatch):
    """Oracle: the function in the file: 7 is right."""
    (tmp_path / "my_reward.py").write_text("def compute_score(solution_str, ground_truth): return solution_str == '7'")
    monkeypatch.chdir(tmp_path)
    kwargs = {"function": "./my_reward.py:compute_score", "ground_truth_column": None}
    reward = load_reward("verl", kwargs, name="right")
    assert scores(reward.call, completions=["7", "8"]) == [True, False]
