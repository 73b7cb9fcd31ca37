"""TRL's own reward functions run unchanged. Oracle throughout: the same function, called directly."""

from __future__ import annotations

import pytest

from grao.groups import Group, Member
from grao.rewards import Length, RewardSet, load_reward

rewards = pytest.importorskip("trl.rewards")

TEXTS = [
    r"<think>a</think> It is \boxed{\frac{1}{3}}",
    r"It is \boxed{\frac{1}{2}}",
    r"<think>\boxed{2}</think> none",
    "no answer at all, no answer at all",
]
SOLUTIONS = [r"\frac{1}{3}", r"\frac{1}{2}", "nothing to parse"]
FUNCTIONS = [
    rewards.accuracy_reward,
    rewards.reasoning_accuracy_reward,
    rewards.think_format_reward,
    rewards.get_soft_overlong_punishment(max_completion_len=40, soft_punish_cache=20),
    rewards.get_repetition_penalty_reward(ngram_size=2),
    rewards.get_cosine_scaled_reward(max_len=50),
]


@pytest.fixture
def groups():
    """Three conversations; each is answered by the four texts, the last of them as the reference."""
    members = [Member(ids=tuple(x % 7 for x in range(len(text))), text=text) for text in TEXTS]
    return [
        Group(
            row=row,
            prompt=[{"role": "user", "content": f"Question {row}"}],
            prompt_ids=(1,),
            samples=tuple(members[:3]),
            reference=members[3],
            columns={"solution": solution},
        )
        for row, solution in enumerate(SOLUTIONS)
    ]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("timeout", [None, 30.0])
def test_a_trl_function_gives_what_it_gives_by_itself(groups, function, timeout):
    """Oracle: a direct call with TRL's arguments; with a timeout it runs in a thread that cannot use signals."""
    members = [(g, m) for g in groups for m in g.members]
    direct = function(
        prompts=[g.prompt for g, _ in members],
        completions=[[{"role": "assistant", "content": m.text}] for _, m in members],
        completion_ids=[list(m.ids) for _, m in members],
        solution=[g.columns["solution"] for g, _ in members],
    )
    scored = RewardSet([load_reward(function, timeout=timeout)]).score(groups)
    assert [m.reward for g in scored.groups for m in g.members] == direct
    assert scored.report.functions[0].name == function.__name__
    assert len(set(direct)) > 1  # the texts do tell good from bad


def test_a_trl_factory_loads_by_path():
    """Oracle: TRL's own values: 0 at 10 tokens, −0.5 at 15, −1 at 21. `Length` has the same equation."""
    built = load_reward(
        "trl.rewards:get_soft_overlong_punishment", {"max_completion_len": 20, "soft_punish_cache": 10}
    )
    ids = [[1] * n for n in range(30)]
    assert built.name == "soft_overlong_punishment_reward"
    assert [built.call(completion_ids=ids)[n] for n in (10, 15, 21)] == [0.0, -0.5, -1.0]
    assert built.call(completion_ids=ids) == Length(10, 20)(completion_ids=ids)
