"""Functions in the style of OpenRLHF's users, against how OpenRLHF itself calls them."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch

from grao.rewards import RewardError, RewardSet, load_reward
from grao.rewards.openrlhf import OpenRLHFReward


def answer_reward(queries, prompts, labels, **kwargs):
    """The answer is what follows the prompt; rewards, scores and logs as tensors."""
    answers = [query[len(prompt) :].strip() for query, prompt in zip(queries, prompts, strict=True)]
    rewards = torch.tensor([float(answer == label) for answer, label in zip(answers, labels, strict=True)])
    logs = {"accuracy": rewards.mean(), "letters": torch.tensor([len(answer) for answer in answers])}
    return {"rewards": 2 * rewards - 1, "scores": rewards, "extra_logs": logs}


def length_reward(queries, prompts, labels):
    """A bare tensor, longer queries less."""
    return torch.tensor([-float(len(query)) for query in queries])


def first_only(queries, prompts, labels):
    """Presumes lists of one, as OpenRLHF gives them."""
    return {"rewards": torch.tensor(float(len(queries[0])))}


def as_openrlhf_does(function, prompts, completions, labels):
    """OpenRLHF's executor in a few lines: by position, one query at a time, `rewards` of a dict, else the tensor."""
    rewards = []
    for prompt, completion, label in zip(prompts, completions, labels, strict=True):
        result = function([prompt + completion], [prompt], [label])
        result = result["rewards"] if isinstance(result, dict) else result
        rewards.append(torch.as_tensor(result).flatten().tolist()[0])
    return rewards


def rewards(reward, **columns):
    """Of one call, outside a run."""
    return asyncio.run(reward(**columns))


@pytest.mark.parametrize("function", [answer_reward, length_reward, first_only])
@pytest.mark.parametrize("concurrent", [None, 2])
def test_rewards_are_those_that_openrlhf_would_find(function, concurrent, make_group):
    """Oracle: OpenRLHF's way of calling, written out."""
    groups = [
        make_group(0, [" 7", " 18"], None, "3 + 4 =", answer="7"),
        make_group(1, ["5", ""], None, "5", answer="5"),
    ]
    kwargs = {"function": function, "label_column": "answer", "concurrent": concurrent}
    scored = RewardSet([{"path": "openrlhf", "kwargs": kwargs}]).score(groups).groups
    for group in scored:
        texts = [sample.text for sample in group.samples]
        expected = as_openrlhf_does(function, [group.prompt] * 2, texts, [group.columns["answer"]] * 2)
        assert [sample.reward for sample in group.samples] == expected
        assert len(set(expected)) == 2


@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_batches_give_what_single_queries_give(batch_size):
    """Oracle: the answers by hand: right, wrong, right; labels are the empty text where no column is named."""
    reward = OpenRLHFReward(answer_reward, label_column="answer", batch_size=batch_size)
    given = {"prompts": ["a ", "b ", "c "], "completions": ["7", "8", "9"], "answer": ["7", "7", "9"]}
    assert rewards(reward, **given) == [1.0, -1.0, 1.0]
    plain = OpenRLHFReward(answer_reward, batch_size=batch_size)
    assert rewards(plain, prompts=["a "] * 3, completions=["", "8", "9"]) == [1.0, -1.0, -1.0]


def test_what_is_logged_goes_where_it_belongs():
    """Oracle: by hand: of each query to the table; one number for two queries, 0.5, to the metrics."""
    table, metrics = {}, {}
    given = {"prompts": ["a ", "b "], "completions": ["7", "88"], "answer": ["7", "7"]}
    hooks = {"log_extra": table.__setitem__, "log_metric": metrics.__setitem__}
    rewards(OpenRLHFReward(answer_reward, label_column="answer", batch_size=None), **given, **hooks)
    assert table == {"scores": [1.0, 0.0], "letters": [1, 2]}
    assert metrics == {"accuracy": 0.5}
    table.clear()
    rewards(OpenRLHFReward(answer_reward, label_column="answer"), **given, **hooks)
    assert table == {"scores": [1.0, 0.0], "letters": [1, 2], "accuracy": [1.0, 0.0]}


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ([1, 0], [1, 0]),
        (np.array([1.0, 0.5]), [1.0, 0.5]),
        (torch.tensor([[1.0], [0.5]], dtype=torch.bfloat16), [1.0, 0.5]),
        ({"rewards": [True, None]}, [True, None]),
        (torch.tensor([1.0, 0.5], requires_grad=True), [1.0, 0.5]),
    ],
)
def test_returns_of_every_kind_are_read(returned, expected):
    """Oracle: the numbers; [n, 1] is [n]."""
    reward = OpenRLHFReward(lambda queries, prompts, labels: returned, batch_size=None)
    assert rewards(reward, prompts=["a", "b"], completions=["c", "d"]) == expected


def test_async_functions_run_beside_each_other():
    """Oracle: a counter in the function: two at a time; the order of the queries kept."""
    running, most = 0, 0

    async def slow(queries, prompts, labels):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (6 - len(queries[0])))
        running -= 1
        return [float(len(queries[0]))]

    reward = OpenRLHFReward(slow, concurrent=2)
    found = rewards(reward, prompts=[""] * 5, completions=["a", "bb", "ccc", "dddd", "eeeee"])
    assert found == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert most == 2


def test_an_error_is_the_rewards_own(make_group):
    """Oracle: by hand: 1/0 for the empty completion; unscored and counted, or named."""
    kwargs = {"function": lambda queries, prompts, labels: [1.0 / (len(queries[0]) - 1)]}
    groups = [make_group(2, ["a", ""], None)]
    scored = RewardSet([{"path": "openrlhf", "kwargs": kwargs, "on_error": "unscored"}]).score(groups)
    assert [sample.reward for sample in scored.groups[0].samples] == [1.0, None]
    assert scored.report["openrlhf"].errors == 1
    with pytest.raises(RewardError, match=r"ZeroDivisionError.*row 2, sample 1"):
        RewardSet([{"path": "openrlhf", "kwargs": kwargs}]).score(groups)


def test_conversations_need_a_template(tmp_path):
    """Oracle: the template written out by hand, open for the answer; without one the error names the remedy."""
    from grao.demo.base_model import word_tokenizer

    tokenizer = word_tokenizer(["a"])
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['content'] }}>{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
    )
    tokenizer.save_pretrained(tmp_path)
    seen = []

    def sees(queries, prompts, labels):
        seen.append((queries, prompts, labels))
        return [0.0]

    given = {"prompts": [[{"role": "user", "content": "a"}]], "completions": [[{"role": "assistant", "content": "b"}]]}
    rewards(OpenRLHFReward(sees, chat_template=str(tmp_path)), **given)
    assert seen == [(["<a>A:b"], ["<a>A:"], [""])]
    with pytest.raises(ValueError, match=r"the prompt is a conversation.*Set chat_template"):
        rewards(OpenRLHFReward(sees), **given)


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        (lambda queries: [0.0], {}, r"cannot be called with \(queries, prompts, labels\)"),
        (lambda queries, prompts, labels, model: [0.0], {}, "cannot be called with.*'model'"),
        (torch.nn.Identity, {}, "is the class Identity, not a function"),
        (length_reward, {"batch_size": 0}, "batch_size is 0. Give 1 or more, or null"),
    ],
)
def test_what_cannot_be_called_here_is_refused(function, settings, message):
    """Oracle: the messages, read."""
    with pytest.raises(ValueError, match=message):
        OpenRLHFReward(function, **settings)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned None. Return a tensor or list"),
        ({"scores": [1.0]}, "returned a dict of scores"),
        ([1.0, 2.0], "returned 2 rewards for 1 queries. Give one per query"),
    ],
)
def test_returns_that_are_no_rewards_are_refused(returned, message):
    """Oracle: the messages, read."""
    reward = OpenRLHFReward(lambda queries, prompts, labels: returned)
    with pytest.raises(ValueError, match=message):
        rewards(reward, prompts=["a"], completions=["b"])


def test_labels_need_their_column(make_group):
    """Oracle: the message, read; and the reward loads by its name, as in YAML."""
    reward = load_reward({"path": "openrlhf", "kwargs": {"function": length_reward, "label_column": "answer"}})
    assert reward.name == "openrlhf"
    with pytest.raises(ValueError, match="reward 'openrlhf' needs 'answer', which is not a column"):
        RewardSet([reward]).score([make_group(0)])
