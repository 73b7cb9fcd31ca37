"""Config classes built from mappings, written back and described."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from grao.configuration import (
    REQUIRED,
    Key,
    apply_overrides,
    build,
    describe,
    dump_yaml,
    load_yaml,
    to_mapping,
    type_name,
)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Objective:
    kind: ClassVar[str] = "not a key"

    beta: float = 0.5
    """Weight of imitation."""
    negative: Literal["keep", "clamp", "off"] = "keep"
    steps: int = 1
    "Updates per rollout,\n    at least one."

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ValueError(f"beta is {self.beta}; give 0 or more")


@dataclass(frozen=True)
class Reward:
    path: str
    weight: float = 1.0
    """Its share of the sum."""


@dataclass(frozen=True)
class Config:
    model: str
    """Where it lies."""
    objective: Objective = field(default_factory=lambda: Objective(beta=0.25))
    rewards: list[Reward] = field(default_factory=list)
    """Summed."""
    judge: Reward | None = None
    stop: tuple[str, ...] = ()
    span: tuple[int, float] = (1, 2.0)
    shuffle: bool = True
    limit: int | None = None
    source: str | list[str] = "hub"
    columns: dict[str, str] = field(default_factory=dict)
    weights: Mapping[str, Reward] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    colour: Colour = Colour.RED
    sizes: Sequence[int] = field(default_factory=list)
    cached: int = field(default=0, init=False)


WHOLE: dict[str, Any] = {
    "model": "m",
    "objective": {"beta": 1, "negative": "clamp", "steps": 2},
    "rewards": [{"path": "a"}, {"path": "b", "weight": 2}],
    "judge": {"path": "j"},
    "stop": ["x", "y"],
    "span": [3, 4],
    "shuffle": False,
    "limit": 5,
    "source": ["p", "q"],
    "columns": {"prompt": "q"},
    "weights": {"w": {"path": "c"}},
    "options": {"any": [1, "two"]},
    "colour": "blue",
    "sizes": [1, 2],
}
BUILT = Config(
    model="m",
    objective=Objective(beta=1.0, negative="clamp", steps=2),
    rewards=[Reward("a"), Reward("b", 2.0)],
    judge=Reward("j"),
    stop=("x", "y"),
    span=(3, 4.0),
    shuffle=False,
    limit=5,
    source=["p", "q"],
    columns={"prompt": "q"},
    weights={"w": Reward("c")},
    options={"any": [1, "two"]},
    colour=Colour.BLUE,
    sizes=[1, 2],
)


def with_(**changes: Any) -> dict[str, Any]:
    return {"model": "m", **changes}


def test_a_whole_config() -> None:
    """Oracle: the same instance made by hand; ints in float places became floats."""
    built = build(Config, WHOLE)
    assert built == BUILT
    assert type(built.objective.beta) is float
    assert type(built.span[1]) is float


def test_defaults() -> None:
    """Oracle: the dataclass's own constructor."""
    assert build(Config, {"model": "m"}) == Config(model="m")


def test_round_trips() -> None:
    """Oracle: identity, through the mapping and through YAML text; tuples, enums and nested sections included."""
    for config in (BUILT, Config(model="1e-6", objective=Objective(beta=1e-6), limit=None)):
        assert build(Config, to_mapping(config)) == config


def test_the_dump_reads_back_and_keeps_the_order(tmp_path: Path) -> None:
    """Oracle: `load_yaml` and `build`; the order is that of declaration, worked by hand for the first lines."""
    (tmp_path / "c.yaml").write_text(dump_yaml(BUILT), encoding="utf-8")
    assert build(Config, load_yaml(tmp_path / "c.yaml")) == BUILT
    assert dump_yaml(BUILT).startswith("model: m\nobjective:\n  beta: 1.0\n  negative: clamp\n  steps: 2\nrewards:\n")
    assert dump_yaml({"b": 1, "a": 2}) == "b: 1\na: 2\n"


@pytest.mark.parametrize("text", ["1e-6", "1E-6", "-2.5e3", ".5e1", " 1e-6 "])
def test_exponents_that_arrive_as_text(text: str) -> None:
    """Oracle: Python's float; any other text is no number."""
    assert build(Objective, {"beta": "1e-6"}).beta == 1e-6
    assert build(Reward, {"path": "a", "weight": text}).weight == float(text)


KNOWN = (
    "model, objective, rewards, judge, stop, span, shuffle, limit, source, columns, weights, options, colour, sizes"
)
NO_BOOLEANS = "YAML reads yes, no, on and off as booleans: put the word in quotes"
REFUSED: list[tuple[Any, str]] = [
    # unknown keys
    (
        with_(objective={"bta": 1}),
        "objective.bta: unknown key; did you mean objective.beta?\nknown keys of objective: beta, negative, steps",
    ),
    (with_(zzz=1), f"zzz: unknown key\nknown keys of the configuration: {KNOWN}"),
    (
        with_(beta=1),
        f"beta: unknown key; did you mean objective.beta?\nknown keys of the configuration: {KNOWN}",
    ),
    (
        with_(modle=1, rewrds=2),
        "modle: unknown key; did you mean model?\nrewrds: unknown key; did you mean rewards?\n"
        f"known keys of the configuration: {KNOWN}",
    ),
    (with_(cached=1), f"cached: unknown key\nknown keys of the configuration: {KNOWN}"),
    ({True: 1}, f"True: unknown key\nknown keys of the configuration: {KNOWN}"),
    (
        with_(rewards=[{"path": "a"}, {"path": "b", "wieght": 1}]),
        "rewards[1].wieght: unknown key; did you mean rewards[1].weight?\nknown keys of rewards[1]: path, weight",
    ),
    # missing keys
    ({}, "model: missing, and required (str)"),
    (with_(rewards=[{}]), "rewards[0].path: missing, and required (str)"),
    # sections
    (None, f"the configuration: expected a section with keys ({KNOWN}), found null"),
    (with_(objective=3), "objective: expected a section with keys (beta, negative, steps), found 3 (int)"),
    (with_(objective=None), "objective: expected a section with keys (beta, negative, steps), found null"),
    (with_(judge=[]), "judge: expected a section with keys (path, weight), found [] (list)"),
    (with_(judge={"weight": "x"}), "judge.path: missing, and required (str)"),
    # scalars
    (with_(objective={"beta": "high"}), "objective.beta: expected float, found 'high' (str); write it as a number"),
    (with_(objective={"beta": "0.3"}), "objective.beta: expected float, found '0.3' (str); write it as a number"),
    (with_(objective={"beta": True}), "objective.beta: expected float, found True (bool)"),
    (with_(objective={"beta": None}), "objective.beta: expected float, found null"),
    (with_(objective={"steps": True}), "objective.steps: expected int, found True (bool)"),
    (with_(objective={"steps": 2.0}), "objective.steps: expected int, found 2.0 (float); write 2"),
    (with_(objective={"steps": 2.5}), "objective.steps: expected int, found 2.5 (float)"),
    (with_(shuffle="yes"), "shuffle: expected bool, found 'yes' (str); write true or false"),
    (with_(shuffle=1), "shuffle: expected bool, found 1 (int); write true or false"),
    ({"model": 7}, "model: expected str, found 7 (int); put it in quotes"),
    ({"model": False}, f"model: expected str, found False (bool); {NO_BOOLEANS}"),
    ({"model": ["a" * 80]}, f"model: expected str, found ['{'a' * 55}... (list)"),
    # choices
    (
        with_(objective={"negative": "clam"}),
        "objective.negative: expected one of 'keep', 'clamp', 'off', found 'clam' (str); did you mean 'clamp'?",
    ),
    (
        with_(objective={"negative": False}),
        f"objective.negative: expected one of 'keep', 'clamp', 'off', found False (bool); {NO_BOOLEANS}",
    ),
    (with_(colour="green"), "colour: expected one of 'red', 'blue', found 'green' (str)"),
    # unions
    (with_(limit="many"), "limit: expected int, found 'many' (str); write it as a number, without quotes"),
    (with_(source=3), "source: expected str | list[str], found 3 (int)"),
    (with_(source=None), "source: expected str | list[str], found null"),
    # containers
    (with_(stop="x"), "stop: expected list[str], found 'x' (str); write [x] for a list of one"),
    (with_(stop={"x": 1}), "stop: expected list[str], found {'x': 1} (mapping)"),
    (with_(stop=["x", 1]), "stop[1]: expected str, found 1 (int); put it in quotes"),
    (with_(span=[1]), "span: expected 2 values (list[int, float]), found 1"),
    (with_(span=[1, "x"]), "span[1]: expected float, found 'x' (str)"),
    (with_(sizes=["x"]), "sizes[0]: expected int, found 'x' (str)"),
    (with_(columns=[1]), "columns: expected dict[str, str], found [1] (list)"),
    (with_(columns={"a": 1}), "columns.a: expected str, found 1 (int); put it in quotes"),
    (with_(columns={1: "a"}), "columns: the key 1: expected str, found 1 (int); put it in quotes"),
    (with_(weights={"w": {"path": 1}}), "weights.w.path: expected str, found 1 (int)"),
    # the dataclass's own refusal
    (with_(objective={"beta": -1}), "objective: beta is -1.0; give 0 or more"),
]


@pytest.mark.parametrize(("mapping", "message"), REFUSED)
def test_an_invalid_value_is_refused(mapping: Any, message: str) -> None:
    """Oracle: the message from its first character; where the row shows its end, nothing may follow but a remedy."""
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the text is compared
        build(Config, mapping)
    found = str(raised.value)
    assert found == message or (found.startswith(message) and found[len(message)] in ";,")


def test_the_section_can_be_given_a_place() -> None:
    """Oracle: the error message; where a section is read on its own, its messages name it all the same."""
    with pytest.raises(ValueError, match=re.escape("evaluation.objective.bta: unknown key")):
        build(Objective, {"bta": 1}, where="evaluation.objective")
    with pytest.raises(ValueError, match=r"^evaluation: beta is -1\.0; give 0 or more$"):
        build(Objective, {"beta": -1}, where="evaluation")


def test_an_override_with_an_unknown_key_is_refused_like_one_in_the_file() -> None:
    """Oracle: the same sentence as from the mapping."""
    with pytest.raises(ValueError, match=re.escape("objective.bta: unknown key; did you mean objective.beta?")):
        build(Config, apply_overrides({"model": "m"}, ["--objective.bta", "1"]))


@dataclass(frozen=True)
class Members:
    x: int | float | str | bool = 0
    section: Objective | Reward | None = None
    choice: Literal[1, 2] = 1


@pytest.mark.parametrize("value", [1, 1.0, "1", True, "1e-6"])
def test_a_union_takes_the_member_of_the_values_own_type(value: object) -> None:
    """Oracle: the value, unchanged in value and in type."""
    built = build(Members, {"x": value}).x
    assert built == value
    assert type(built) is type(value)


@pytest.mark.parametrize("value", [True, 1.0])
def test_a_choice_is_of_the_choices_own_type(value: object) -> None:
    """Oracle: the error message; Python finds both equal to 1."""
    with pytest.raises(ValueError, match=re.escape(f"choice: expected one of 1, 2, found {value}")):
        build(Members, {"choice": value})


def test_a_union_of_sections_takes_the_one_that_fits() -> None:
    """Oracle: by hand; and a section that fits neither names both."""
    assert build(Members, {"section": {"beta": 1}}).section == Objective(beta=1.0)
    assert build(Members, {"section": {"path": "a"}}).section == Reward("a")
    with pytest.raises(
        ValueError, match=re.escape("section: expected Objective | Reward | null, found {'c': 1} (map")
    ):
        build(Members, {"section": {"c": 1}})


def test_a_value_that_yaml_cannot_store_is_named() -> None:
    """Oracle: the dotted place and the type."""
    with pytest.raises(ValueError, match=re.escape("options.deep[0] is a set, which YAML cannot store")):
        to_mapping(Config(model="m", options={"deep": [set()]}))


def test_every_key_is_described() -> None:
    """Oracle: the table by hand. Sections are opened with the defaults that their owner gives them; the text under a
    field is one line; a field with none has none; what is no key (ClassVar, init=False) is not listed."""
    assert describe(Config) == [
        Key("model", "str", REQUIRED, "Where it lies."),
        Key("objective.beta", "float", 0.25, "Weight of imitation."),
        Key("objective.negative", "'keep' | 'clamp' | 'off'", "keep", ""),
        Key("objective.steps", "int", 1, "Updates per rollout, at least one."),
        Key("rewards", "list[Reward]", [], "Summed."),
        Key("rewards[].path", "str", REQUIRED, ""),
        Key("rewards[].weight", "float", 1.0, "Its share of the sum."),
        Key("judge", "Reward | null", None, ""),
        Key("judge.path", "str", REQUIRED, ""),
        Key("judge.weight", "float", 1.0, "Its share of the sum."),
        Key("stop", "list[str]", (), ""),
        Key("span", "list[int, float]", (1, 2.0), ""),
        Key("shuffle", "bool", True, ""),
        Key("limit", "int | null", None, ""),
        Key("source", "str | list[str]", "hub", ""),
        Key("columns", "dict[str, str]", {}, ""),
        Key("weights", "dict[str, Reward]", {}, ""),
        Key("weights.*.path", "str", REQUIRED, ""),
        Key("weights.*.weight", "float", 1.0, "Its share of the sum."),
        Key("options", "dict[str, Any]", {}, ""),
        Key("colour", "'red' | 'blue'", Colour.RED, ""),
        Key("sizes", "list[int]", [], ""),
    ]
    assert repr(REQUIRED) == "required"


@dataclass(frozen=True)
class Child(Objective):
    steps: int = 4
    """Overridden."""
    extra: float | None = None


def test_inherited_fields_keep_their_documentation() -> None:
    """Oracle: by hand; the class that declares a field last has the last word on it."""
    assert describe(Child) == [
        Key("beta", "float", 0.5, "Weight of imitation."),
        Key("negative", "'keep' | 'clamp' | 'off'", "keep", ""),
        Key("steps", "int", 4, "Overridden."),
        Key("extra", "float | null", None, ""),
    ]


def test_a_class_made_at_run_time_has_no_documentation() -> None:
    """Oracle: by hand; there is no source to read, and no error."""
    made = make_dataclass("Made", [("x", int, 3)], frozen=True)
    assert describe(made) == [Key("x", "int", 3, "")]


@pytest.mark.parametrize(
    ("hint", "name"),
    [
        (float | None, "float | null"),
        (tuple[str, ...], "list[str]"),
        (Mapping[str, list[int]], "dict[str, list[int]]"),
        (dict, "dict"),
        (Any, "Any"),
        (Literal["a", 1, None], "'a' | 1 | None"),
    ],
)
def test_type_names(hint: Any, name: str) -> None:
    """Oracle: by hand."""
    assert type_name(hint) == name


def test_a_config_class_of_another_library(tmp_path: Path) -> None:
    """Oracle: transformers' TrainingArguments, fields that were not declared for us: the values are those its
    own constructor gives, and the strictness is ours."""
    from transformers import TrainingArguments

    keys = {"output_dir": str(tmp_path), "learning_rate": "1e-6", "max_steps": 3, "report_to": "none", "seed": 7}
    built = build(TrainingArguments, keys, "trainer")
    direct = TrainingArguments(**keys | {"learning_rate": 1e-6})
    same = ("learning_rate", "max_steps", "report_to", "seed", "lr_scheduler_type", "save_strategy")
    assert [getattr(built, name) for name in same] == [getattr(direct, name) for name in same]
    with pytest.raises(
        ValueError, match=re.escape("trainer.learning_rat: unknown key; did you mean trainer.learning_rate?")
    ):
        build(TrainingArguments, {"learning_rat": 1}, "trainer")
    with pytest.raises(ValueError, match=re.escape("trainer.max_steps: expected int, found 'x' (str)")):
        build(TrainingArguments, {"max_steps": "x"}, "trainer")
