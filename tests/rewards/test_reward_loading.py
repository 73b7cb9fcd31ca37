from __future__ import annotations

import sys
from functools import partial

import pytest

from grao.dotted_path import import_path
from grao.rewards import BUILTIN_REWARDS, Length, RewardFunction, comparison, load_reward

MODULE = """
import asyncio

LEVEL = 3

def brevity(completions, target=10, **columns):
    return [-abs(len(c) - target) for c in completions]

async def judge(completions, **columns):
    return [1.0 for c in completions]

def make_bonus(bonus):
    def given(completions):
        return [bonus for c in completions]
    return given

class Scorer:
    compares_with_reference = True

    def __init__(self, scale=1.0):
        self.scale = scale

    def __call__(self, completions, reference):
        return [self.scale * (c == r) for c, r in zip(completions, reference)]

scorer = Scorer(2.0)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """`house_rewards.py` in the current working directory, which is not on the path; all forgotten afterwards."""
    (tmp_path / "house_rewards.py").write_text(MODULE)
    (tmp_path / "broken_rewards.py").write_text("import surely_not_installed\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    yield
    for name in ("house_rewards", "broken_rewards"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("path", ["house_rewards:brevity", "house_rewards.brevity"])
def test_dotted_paths_find_modules_in_the_working_directory(module, path):
    """Oracle: −|1 − 10| = −9 and −|12 − 10| = −2."""
    reward = load_reward(path)
    assert reward.name == "brevity"
    assert reward.call(completions=["a", "b" * 12]) == [-9, -2]


def test_kwargs_bind_functions_build_classes_and_call_factories(module):
    """Oracle: numbers by hand: −|1 − 4|; 5·(a = a); the bonus."""
    assert load_reward("house_rewards:brevity", {"target": 4}).call(completions=["a"]) == [-3]
    built = load_reward({"path": "house_rewards:Scorer", "kwargs": {"scale": 5.0}})
    assert built.call(completions=["a", "b"], reference=["a", "a"]) == [5.0, 0.0]
    assert built.name == "Scorer"
    assert load_reward("house_rewards:make_bonus", {"bonus": 7.0}).call(completions=["a"]) == [7.0]


def test_instances_and_async_functions_load_as_they_are(module):
    """Oracle: 2·(a = a), and Python's own test for async functions."""
    assert load_reward("house_rewards:scorer").call(completions=["a"], reference=["a"]) == [2.0]
    assert load_reward("house_rewards:judge").is_async
    assert load_reward("house_rewards:judge", {"extra": 1}).is_async
    assert not load_reward("house_rewards:brevity").is_async


def test_a_function_declares_that_it_compares(module):
    """Oracle: the class attribute, the decorator, and a setting that overrules them."""

    @comparison
    def wins(completions, reference):
        return []

    assert load_reward("house_rewards:Scorer").comparison
    assert load_reward(wins).comparison
    assert load_reward(partial(wins)).comparison
    assert not load_reward(wins, comparison=False).comparison
    assert not load_reward("house_rewards:brevity").comparison


def test_a_mapping_sets_every_field(module):
    """Oracle: the fields, read back."""
    reward = load_reward(
        {"path": "house_rewards:brevity", "name": "short", "weight": 0.5, "on_error": "unscored", "timeout": 3}
    )
    assert (reward.name, reward.weight, reward.on_error, reward.timeout) == ("short", 0.5, "unscored", 3)
    assert load_reward(reward) is reward
    assert load_reward(reward, weight=2.0).weight == 2.0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("house_rewards:brevty", r"'house_rewards' has no attribute 'brevty' \(nearest: brevity\)"),
        ("house_reward:brevity", r"no module 'house_reward' \(nearest: house_rewards"),
        ("house_rewards.sub.x", "no module 'house_rewards.sub'"),
        ("house_rewards:Scorer.scal", "has no attribute 'scal'"),
        ("broken_rewards:f", "'broken_rewards' imports 'surely_not_installed', which is not installed"),
        ("house_rewards:LEVEL", "is a int, not a function"),
        ("house_rewards:", "write package.module:name or folder/file.py:name"),
        ("exact_mach", r"no reward is named 'exact_mach' \(nearest: exact_match\)"),
        ({"path": "length", "kwargs": {"target": 1}}, "'length' cannot be built with.*'maximum'"),
        ({"path": "house_rewards:Scorer", "kwargs": {"scal": 1}}, "cannot be built.*'scal'"),
        ({"path": "house_rewards:judge", "wieght": 1}, r"'wieght' is not a key of a reward \(nearest: weight\)"),
        ({"weight": 1}, "needs the key 'path'"),
        (3, "found a int"),
        ({"path": "house_rewards:judge", "on_error": "zero"}, "Choose 'raise' or 'unscored'"),
        ({"path": "house_rewards:judge", "timeout": 0}, "number of seconds"),
        ({"path": "house_rewards:judge", "weight": float("nan")}, "finite"),
    ],
)
def test_what_cannot_be_loaded_is_named_with_what_is_near(module, source, message):
    """Oracle: the message, read."""
    with pytest.raises(ValueError, match=message):
        load_reward(source)


def test_every_builtin_exists():
    """Oracle: each path in the table names something callable."""
    for path in BUILTIN_REWARDS.values():
        assert callable(import_path(path))
    assert load_reward("length", {"target": 1, "maximum": 2}) == RewardFunction(Length(1, 2), "length")
    assert load_reward("exact_match").name == "exact_match"


def test_a_file_and_a_name_in_it_are_a_path(module, tmp_path):
    """Oracle: −|1 − 10| = −9 from the file; the same module object both times; another folder's file stays apart."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "house_rewards.py").write_text("def brevity(completions): return [5]\n")
    reward = load_reward("house_rewards.py:brevity")
    assert reward.name == "brevity"
    assert reward.call(completions=["a"]) == [-9]
    assert load_reward("./other/house_rewards.py:brevity").call(completions=["a"]) == [5]
    assert import_path(f"{tmp_path}/house_rewards.py:scorer") is import_path("house_rewards.py:scorer")


def test_files_that_hold_no_reward_are_told(module, tmp_path):
    """Oracle: the messages, read; a file that cannot be imported leaves nothing behind."""
    with pytest.raises(ValueError, match=r"'house_rewards.py' is a file. Name the function in it"):
        load_reward("house_rewards.py")
    with pytest.raises(ValueError, match=r"there is no file '.*nowhere.py'"):
        load_reward("nowhere.py:brevity")
    with pytest.raises(ValueError, match="the file imports 'surely_not_installed', which is not installed"):
        load_reward("broken_rewards.py:brevity")
    with pytest.raises(ValueError, match=r"has no attribute 'brevty' \(nearest: brevity\)"):
        load_reward("house_rewards.py:brevty")
    assert str(tmp_path / "broken_rewards.py") not in sys.modules
