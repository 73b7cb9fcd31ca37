from __future__ import annotations

import dataclasses

import pytest

from grao.rewards.judging.question import Material, ask_messages
from grao.rewards.judging.rubric import Rubric, Scale, builtin_rubrics, load_rubric

BREVITY = """\
name: brevity
kind: pairwise
task: Which text is shorter?
criteria: |
  - Count words.
"""
SCALE = "scale: {low: 0, high: 5, low_means: long, high_means: short}\n"


def test_the_built_in_rubrics():
    """Oracle: the names in the documentation; each loads as the kind that its name says."""
    assert builtin_rubrics("pairwise") == ["harmlessness", "helpfulness"]
    assert builtin_rubrics("absolute") == ["harmlessness-absolute", "helpfulness-absolute"]
    for kind in ("pairwise", "absolute"):
        for name in builtin_rubrics(kind):
            rubric = load_rubric(name, kind)
            assert (rubric.name, rubric.kind) == (name, kind)


def test_a_rubric_from_a_file_a_mapping_and_itself(tmp_path):
    """Oracle: the fields, by hand."""
    path = tmp_path / "brevity.yaml"
    path.write_text(BREVITY)
    expected = Rubric("brevity", "pairwise", "Which text is shorter?", "- Count words.\n")
    mapping = {"name": "brevity", "kind": "pairwise", "task": expected.task, "criteria": expected.criteria}
    for source in (path, str(path), mapping, expected):
        assert load_rubric(source, "pairwise") == expected
    path.write_text(BREVITY.replace("pairwise", "absolute") + SCALE)
    assert load_rubric(path, "absolute").scale == Scale(0.0, 5.0, "long", "short")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BREVITY.replace("criteria", "critera"), "rubric.critera: unknown key; did you mean rubric.criteria"),
        (BREVITY.replace("task: Which text is shorter?\n", ""), "rubric.task: missing, and required"),
        (BREVITY.replace("Which text is shorter?", "7"), "rubric.task: expected str, found 7"),
        (BREVITY.replace("Which text is shorter?", "' '"), "rubric: task is empty"),
        (BREVITY.replace("pairwise", "pairwis"), "rubric.kind: expected one of .* did you mean 'pairwise'"),
        (BREVITY.replace("name: brevity", "name: be brief"), "rubric: name is 'be brief'"),
        (
            BREVITY + SCALE,
            "rubric: an absolute rubric needs a scale, a pairwise one must not have it; this one has one",
        ),
        (BREVITY.replace("pairwise", "absolute"), "this one has none"),
        (
            BREVITY.replace("pairwise", "absolute") + SCALE.replace("high: 5", "high: 0"),
            "rubric.scale: .*runs from 0 to 0",
        ),
        (BREVITY + "task: again\n", "key 'task' is given twice"),
        ("- a list\n", "contains a list"),
    ],
)
def test_messages_name_file_and_key(tmp_path, text, message):
    """Oracle: the message, read."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load_rubric(path, "pairwise")
    assert str(path) in str(caught.value)


def test_what_is_no_rubric_is_named_with_what_is_near(tmp_path, monkeypatch):
    """Oracle: the message, read."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no rubric is named 'helpfullness' \(did you mean 'helpfulness'\?\)"):
        load_rubric("helpfullness", "pairwise")
    with pytest.raises(FileNotFoundError, match=r"no rubric file rubrics/mine\.yaml"):
        load_rubric("rubrics/mine.yaml", "pairwise")
    with pytest.raises(
        ValueError, match=r"'helpfulness' is pairwise, and this judge is absolute.*helpfulness-absolute"
    ):
        load_rubric("helpfulness", "absolute")


def test_every_word_of_a_rubric_reaches_the_judge():
    """Oracle: the messages (the keys of the cache) change with each field except the name."""
    material = Material.of("Q", ("a",), 1000, "cut_end")
    rubric = Rubric("r", "absolute", "Task.", "Criteria.", Scale(0, 5, "Low.", "High."))
    base = ask_messages(rubric, material, (0,))
    assert rubric.scale is not None
    changed = [
        dataclasses.replace(rubric, task="Another."),
        dataclasses.replace(rubric, criteria="Others."),
        *(
            dataclasses.replace(rubric, scale=dataclasses.replace(rubric.scale, **{key: value}))
            for key, value in {"low": 1, "high": 6, "low_means": "x", "high_means": "y"}.items()
        ),
    ]
    asked = [ask_messages(one, material, (0,)) for one in changed]
    assert base not in asked
    assert all(asked.count(one) == 1 for one in asked)
    assert ask_messages(dataclasses.replace(rubric, name="s"), material, (0,)) == base
