"""The `objective` section: objectives by path and sums, from YAML to a trained model, and what is wrong with one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grao.configuration import build
from grao.objectives import GRAO, GRPO, SFT, Objective, Schedule, Sum, parse_objective, resolve_objective
from grao.training import RunConfig, load_config, train

EXTERNAL = str(Path(__file__).parents[1] / "objectives" / "external_losses.py")
COSINE = {"schedule": "cosine", "start": 1.0, "end": 0.1, "over": 2}
SUM = {"sum": [{"name": "grpo", "clip_high": 0.28}, {"name": "sft", "weight": COSINE}]}


PLAIN = """
from grao.objectives import Needs, Objective


class Plain(Objective):
    needs = Needs(reference=True)

    def __init__(self, gamma, *args):
        self.gamma = gamma
"""


@pytest.mark.parametrize(
    ("objective", "terms"),
    [
        pytest.param({"path": f"{EXTERNAL}:Luffy", "length": 4}, {"policy"}, id="luffy"),
        pytest.param(
            {"path": f"{EXTERNAL}:chord", "peak": 0.9, "decay": 3},
            {"grpo/policy", "token_weighted_sft/imitation"},
            id="chord",
        ),
        pytest.param(SUM, {"grpo/policy", "sft/imitation"}, id="sum"),
        pytest.param([{**SUM, "steps": 2}, {"path": f"{EXTERNAL}:Luffy", "steps": 1}], {"policy"}, id="stages"),
    ],
)
def test_it_trains_from_yaml(
    config: dict[str, Any], write_config: Callable[..., Path], objective: Any, terms: set[str]
) -> None:
    """Oracle: the logged terms by name and that they add up to the loss; the resolved section reads back as it is."""
    if isinstance(objective, list):
        del config["trainer"]["max_steps"]
    loaded = load_config(write_config({**config, "objective": objective}))
    lines = [line for line in train(loaded).trainer.state.log_history if "loss" in line]
    assert len(lines) == 3
    assert {name.removeprefix("loss/") for name in lines[-1] if name.startswith("loss/")} == terms
    for line in lines:
        parts = sum(value for name, value in line.items() if name.startswith("loss/"))
        assert line["loss"] == pytest.approx(parts, abs=1e-5)
    if objective == SUM:
        assert [line["weight/sft"] for line in lines] == pytest.approx([1.0, 0.55, 0.1])
    resolved = loaded.resolved()["objective"]
    again = build(RunConfig, {**config, "objective": resolved})
    assert again.make_objective() == loaded.make_objective()
    assert again.resolved()["objective"] == resolved


def test_a_sum_is_read_and_written() -> None:
    """Oracle: the objects written out in Python; every default of a part, and the weight 1, are written out."""
    made = parse_objective(SUM)
    assert made == Sum(((GRPO(clip_high=0.28), 1.0), (SFT(), Schedule("cosine", 1.0, 0.1, over=2))))
    resolved = resolve_objective(SUM)
    assert resolved["sum"][0]["weight"] == 1.0
    assert resolved["sum"][0]["clip_low"] == 0.2
    assert resolved["sum"][1]["weight"] == {**COSINE, "from_step": 0}
    nested = {"sum": [{"sum": [{"name": "sft"}], "weight": 2}, {"path": f"{EXTERNAL}:chord"}]}
    assert parse_objective(resolve_objective(nested)) == parse_objective(nested)


@pytest.mark.parametrize(
    "made",
    [
        GRAO.recommended(beta=0.3),
        GRPO.dr_grpo(length=7),
        Sum(((GRPO(kl=0.1), 1.0), (Sum(((SFT(), Schedule("step", 1.0, 0.0)),)), 0.5))),
        parse_objective({"path": f"{EXTERNAL}:Luffy", "gamma": 0.2}),
    ],
    ids=lambda made: made.title,
)
def test_an_object_is_described_by_a_section_that_makes_it_again(made: Objective) -> None:
    """Oracle: equality of the object and what its section makes."""
    assert parse_objective(resolve_objective(made)) == made


def test_a_class_that_is_no_dataclass_has_the_settings_it_was_given(tmp_path: Path) -> None:
    """Oracle: the section itself, and the path of the class for an object."""
    (tmp_path / "plain.py").write_text(PLAIN, encoding="utf-8")
    section = {"path": f"{tmp_path}/plain.py:Plain", "gamma": 0.5}
    assert resolve_objective(section) == section
    assert resolve_objective(parse_objective(section)) == {"path": section["path"]}


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"sum": []}, "objective.sum is []. Give a list such as [{name: grpo}, {name: sft}]."),
        ({"sum": [{"name": "grpo"}], "kl": 1}, "objective.kl is unknown: a sum has no fields."),
        ({"name": "grpo", "sum": []}, "objective has name and sum. Give one of them."),
        ({"nam": "grpo"}, "objective needs a name, such as `name: grao`, a path or a sum (did you mean 'name'?)."),
        ({"sum": [{"name": "grpo"}, "sft"]}, "objective.sum[1] is 'sft'. Write a section such as {name: grao}."),
        ({"name": ["grpo"]}, "objective.name is ['grpo'] (did you mean"),
        ({"name": None}, "objective.name is None; known: grao, "),
        ({"sum": [{"name": "grpoo"}]}, "objective.sum[0].name is 'grpoo' (did you mean 'grpo'?)"),
        ({"sum": [{"name": "grpo", "kll": 1}]}, "objective.sum[0].kll is not known (did you mean 'kl'?); grpo has"),
        (
            {"sum": [{"name": "sft", "weight": "much"}]},
            "objective.sum[0].weight is 'much'. Give a number, or",
        ),
        ({"sum": [{"name": "sft", "weight": -1}]}, "objective.sum[0].weight is -1; give a finite number, 0 or more"),
        ({"sum": [{"name": "sft", "weight": {"schedule": "linear"}}]}, "objective.sum[0].weight.start"),
        ({"sum": [{"name": "sft", "weight": {**COSINE, "ove": 1}}]}, "objective.sum[0].weight.ove"),
        ({"path": "losses"}, "objective.path 'losses' is not a dotted path: write package.module:name"),
        ({"path": "losses.py"}, "objective.path 'losses.py' is a file: write losses.py:name, with a name in it"),
        ({"path": 3}, "objective.path is 3. Write package.module:Class or folder/file.py:Class."),
        ({"path": f"{EXTERNAL}:Lufy"}, "has no attribute 'Lufy' (nearest: Luffy)"),
        ({"path": f"{EXTERNAL}:Luffy", "gama": 1}, "objective.gama is not known (did you mean 'gamma'?)"),
        ({"path": f"{EXTERNAL}:Luffy", "gamma": "big"}, "objective.gamma"),
        ({"path": "math:pi"}, "objective.path 'math:pi' is 3.14"),
        ({"path": "pathlib:Path"}, "Give a subclass of grao.Objective, or a function that returns one."),
        ({"path": "os:getcwd"}, "It must return an instance of grao.Objective."),
        ({"sum": [{"path": "math:isqrt"}]}, "objective.sum[0] 'math:isqrt'"),
    ],
)
def test_what_is_wrong_is_named(objective: dict[str, Any], message: str) -> None:
    """Oracle: the sentence: the key, what was found, what to write."""
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_objective(objective)
