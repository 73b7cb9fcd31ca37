from __future__ import annotations

import gzip
import json

import pytest

from grao.rewards import ExactMatch, Format, Length, RewardSet


def test_exact_match_forgives_case_and_white_space():
    """Oracle: by hand."""
    score = ExactMatch()
    completions = ["  The  Cat\n", "the cat!", "Straße", [{"role": "assistant", "content": "THE CAT"}], "x"]
    answers = ["the cat", "the cat", "STRASSE", "the cat", None]
    assert score(completions=completions, answer=answers) == [1.0, 0.0, 1.0, 1.0, None]


def test_exact_match_can_be_strict():
    """Oracle: by hand: each switch alone decides its pair."""
    pairs = {"strip": (" a", "a"), "ignore_case": ("A", "a"), "collapse_whitespace": ("a  b", "a b")}
    for switch, (completion, answer) in pairs.items():
        assert ExactMatch()(completions=[completion], answer=[answer]) == [1.0]
        assert ExactMatch(**{switch: False})(completions=[completion], answer=[answer]) == [0.0]
    assert ExactMatch(column="gold")(completions=["7"], gold=[7]) == [1.0]


def test_exact_match_names_the_column_it_needs(make_group):
    """Oracle: the message, read."""
    with pytest.raises(ValueError, match=r"'ExactMatch' needs 'answer'.*columns: gold, reference"):
        RewardSet([ExactMatch()]).score([make_group(gold="x")])


def test_format_must_match_the_whole_completion():
    """Oracle: by hand."""
    assert Format(r"\d+")(completions=["12", "12 ", "a12"]) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("3 + 4 = 7\n#### 7", 1.0),
        ("Two\nlines.\n#### -1,200.50\n", 1.0),
        ("#### 7", 0.0),  # no worked solution
        ("\n \n#### 7", 0.0),
        ("3 + 4 = 7 #### 7", 0.0),  # not a line of its own
        ("3 + 4\n#### 7 apples", 0.0),
        ("3 + 4\n#### 7\nDone.", 0.0),  # not the last
        ("3\n#### 3\n4\n#### 7", 0.0),  # twice
        ("3 + 4 = 7\n####", 0.0),
        ("", 0.0),
    ],
)
def test_gsm8k_format(text, reward):
    """Oracle: the format's definition, applied by hand."""
    assert Format(preset="gsm8k")(completions=[text]) == [reward]


def test_every_gsm8k_solution_has_its_format(shared_data):
    """Oracle: the data itself."""
    for split in ("train", "test"):
        with gzip.open(shared_data / "gsm8k" / f"{split}.jsonl.gz", "rt") as lines:
            solutions = [json.loads(line)["answer"] for line in lines]
        assert all(reward == 1.0 for reward in Format(preset="gsm8k")(completions=solutions))


def test_format_settings_are_checked():
    """Oracle: the messages, read."""
    with pytest.raises(ValueError, match="either `pattern` or `preset`"):
        Format()
    with pytest.raises(ValueError, match=r"'gsm9k'. Choose one of gsm8k"):
        Format(preset="gsm9k")
    with pytest.raises(ValueError, match="not a regular expression"):
        Format("(")


def test_length_by_hand():
    """Oracle: target 10, maximum 20: 0 up to 10, −0.1 at 11, −0.5 at 15, −1 from 20 on."""
    ids = [[1] * n for n in (0, 10, 11, 15, 20, 99)]
    assert Length(10, 20)(completion_ids=ids) == [0.0, 0.0, -0.1, -0.5, -1.0, -1.0]
    with pytest.raises(ValueError, match="target 20, maximum 20"):
        Length(20, 20)
