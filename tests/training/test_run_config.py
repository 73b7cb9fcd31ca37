from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from grao.configuration import build, describe, dump_yaml
from grao.data import DataConfig
from grao.objectives import GRAO, GRPO, OBJECTIVES, SFT
from grao.policy import ModelConfig
from grao.rollout import LocalEngineConfig
from grao.training import CriticConfig, RunConfig, Stage, load_config
from grao.training.trainer_arguments import TRAINER_DEFAULTS, check_trainer

BASE: dict[str, Any] = {
    "model": {"path": "base"},
    "data": {"source": "rows.jsonl"},
    "objective": {"name": "grao"},
    "rewards": [{"path": "exact_match"}],
}


def changed(**changes: Any) -> dict[str, Any]:
    """BASE with dotted keys (``__`` for a dot) set, or taken out by `...`."""
    mapping = copy.deepcopy(BASE)
    for key, value in changes.items():
        *path, last = key.split("__")
        section = mapping
        for name in path:
            section = section.setdefault(name, {})
        if value is ...:
            del section[last]
        else:
            section[last] = value
    return mapping


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (changed(objectiv={"name": "grao"}), "objectiv: unknown key; did you mean objective?"),
        (changed(data__sourc="x"), "data.sourc: unknown key; did you mean data.source?"),
        (
            changed(rollout__num_generation=4),
            "rollout.num_generation: unknown key; did you mean rollout.num_generations",
        ),
        (changed(num_generations=4), "num_generations: unknown key; did you mean rollout.num_generations?"),
        (changed(model__lora={"rank": 4}), "model.lora.rank: unknown key"),
        (changed(evaluation={"data": {"source": "x"}, "evry": 2}), "evaluation.evry: unknown key; did you mean evalu"),
        (
            changed(rewards=[{"path": "math", "weigth": 2}]),
            "rewards[0].weigth: unknown key; did you mean rewards[0].wei",
        ),
        (
            changed(trainer={"learning_rat": 1e-5}),
            "trainer.learning_rat is not known (did you mean 'learning_rate'?). Give a field of "
            "transformers.TrainingArguments",
        ),
        (
            changed(objective__bta=0.3),
            "objective.bta is not known (did you mean 'beta'?); grao has beta, lam, exploration, advantages_over",
        ),
        (changed(objective__name="grpoo"), "objective.name is 'grpoo' (did you mean 'grpo'?); known: grao, "),
        (changed(objective={}), "objective needs a name, such as `name: grao`"),
        (changed(objective=...), "objective: missing, and required"),
        (changed(objective={"name": "dr-grpo"}), "objective 'dr-grpo' needs length. Write {name: dr-grpo, length"),
        (changed(objective={"name": "grao", "beta": -1}), "beta is -1.0; a weight must be a finite number, 0 or more"),
        (changed(rollout__max_new_tokens="many"), "rollout.max_new_tokens: expected int, found 'many' (str)"),
        (
            changed(rollout__temperature=-1.0),
            "rollout: temperature is -1.0; it must be 0 (greedy) or a positive number",
        ),
        (
            changed(rollout__truncated="drop"),
            "rollout.truncated: expected one of 'keep', 'mask', 'unscored', found 'drop'",
        ),
        (changed(data="rows.jsonl"), "data: expected a section with keys (source, format, "),
        (changed(rewards={"path": "math"}), "rewards: expected list"),
        (changed(monitor__kl_every=-1), "monitor: kl_every is -1. Give 0 (never) or a number of steps"),
        (changed(evaluation={"data": {"source": "x"}, "every": 0}), "evaluation: every is 0. Give a number of steps"),
        (
            changed(evaluation={"data": {"source": "x"}, "num_samples": 2}),
            "evaluation: num_samples is 2 at temperature 0, where all answers to a prompt are the same",
        ),
        (
            changed(evaluation={"data": {"source": "x"}, "rewards": [{"pth": "math"}]}),
            "evaluation.rewards[0].pth: unknown key; did you mean evaluation.rewards[0].path?",
        ),
        (
            changed(rollout__num_generations=1),
            "rollout.num_generations is 1, but objective GRAO compares the samples of a group. Give at least 2",
        ),
        (changed(rewards=[]), "objective GRAO scores samples, but no rewards are given. Give at least one"),
        (changed(rewards=...), "objective GRAO scores samples, but no rewards are given. Give at least one"),
        (
            changed(objective={"name": "sft"}, rewards=[], evaluation={"data": {"source": "x"}}),
            "evaluation scores held-out answers, but rewards is empty. Give at least one",
        ),
        (changed(trainer={"eval_steps": 5}), "trainer.eval_steps cannot be set: write evaluation.every instead"),
        (changed(trainer={"resume_from_checkpoint": "x"}), "cannot be set: pass --resume instead"),
        (changed(trainer={"max_steps": 2.5}), "trainer.max_steps is 2.5. Give int"),
        (changed(trainer={"max_steps": "ten"}), "trainer.max_steps is 'ten'. Give int"),
        (changed(trainer={"max_steps": True}), "trainer.max_steps is True. Give int"),
        (changed(trainer={"max_steps": None}), "trainer.max_steps is null. Give int"),
        (changed(trainer={"bf16": "yes"}), "trainer.bf16 is 'yes'. Give bool"),
        (changed(trainer={"bf16": 1}), "trainer.bf16 is 1. Give bool"),
        (changed(trainer={"learning_rate": [1]}), "trainer.learning_rate is [1]. Give float"),
        (changed(trainer={"per_device_train_batch_size": 0}), "per_device_train_batch_size is 0. Give 1 or more"),
        (changed(trainer={"gradient_accumulation_steps": 0}), "gradient_accumulation_steps is 0. Give 1 or more"),
        (changed(trainer={"max_steps": 0}), "trainer.max_steps is 0. Give 1 or more, or set trainer.num_train_epochs"),
        (changed(trainer={"output_dir": 3}), "trainer.output_dir is 3. Give a path, in quotes"),
        (
            changed(trainer={"save_total_limit": 0}),
            "trainer.save_total_limit is 0. Keep at least 1 checkpoint, or all",
        ),
        (changed(rollout__num_iterations=0), "rollout: num_iterations is 0. Give 1 or more"),
        (changed(rollout__num_mini_batches=0), "rollout: num_mini_batches is 0. Give 1 or more"),
        (changed(critic={"kind": "both"}), "critic.kind: expected one of 'shared', 'separate', found 'both'"),
        (changed(critic={"learning_rate": -1.0}), "critic: learning_rate is -1.0. Give 0 or more"),
    ],
)
def test_what_is_wrong_is_named(mapping: dict[str, Any], message: str) -> None:
    """Oracle: the sentence: the dotted key, what was found, what is known or needed."""
    with pytest.raises(ValueError, match=re.escape(message)):
        build(RunConfig, mapping)


CHAIN: list[dict[str, Any]] = [{"name": "sft", "steps": 20}, {"name": "grpo", "kl": 0.1, "steps": 30}]


def chain(place: int = 0, **changes: Any) -> dict[str, Any]:
    """BASE with the stages of CHAIN, one of them changed; `...` takes a key out."""
    stages = copy.deepcopy(CHAIN)
    stages[place] = {k: v for k, v in {**stages[place], **changes}.items() if v is not ...}
    return changed(objective=stages)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            changed(objective=[]),
            "objective is an empty list. Give one objective, or stages with a name and steps each",
        ),
        (chain(steps=...), "objective[0] is a stage without steps. Write {name: sft, steps: 100}"),
        (chain(1, steps="many"), "objective[1].steps is 'many'. Give int"),
        (chain(1, steps=True), "objective[1].steps is True. Give int"),
        (chain(1, steps=2.5), "objective[1].steps is 2.5. Give int"),
        (chain(1, steps=0), "The stage GRPO has 0 steps. Give 1 or more"),
        (chain(1, learning_rate=-1e-3), "The stage GRPO has a learning rate of -0.001. Give 0 or more"),
        (chain(1, learning_rate="fast"), "objective[1].learning_rate is 'fast'. Give float | null"),
        (chain(1, kll=0.1), "objective[1].kll is not known (did you mean 'kl'?); grpo has clip_low, clip_high, kl"),
        (chain(1, name="grpoo"), "objective[1].name is 'grpoo' (did you mean 'grpo'?)"),
        (chain(1, name=...), "objective[1] needs a name, such as `name: grao`"),
        (
            {**chain(), "trainer": {"max_steps": 60}},
            "objective is a list of stages with 50 steps in total, which is the length of the run. Leave out "
            "trainer.max_steps and trainer.num_train_epochs",
        ),
        (
            {**chain(), "trainer": {"num_train_epochs": 2}},
            "objective is a list of stages with 50 steps in total, which is the length of the run. Leave out "
            "trainer.max_steps and trainer.num_train_epochs",
        ),
        ({**chain(), "rewards": []}, "objective[1] GRPO scores samples, but no rewards are given. Give at least one"),
        (
            {**chain(), "rollout": {"num_generations": 1}},
            "rollout.num_generations is 1, but objective[1] GRPO compares the samples of a group. Give at least 2",
        ),
        (
            changed(objective__steps=20),
            "objective.steps belongs to a list of stages. Set trainer.max_steps instead",
        ),
        (
            changed(objective__learning_rate=1e-5),
            "objective.learning_rate belongs to a list of stages. Set trainer.learning_rate instead",
        ),
    ],
)
def test_what_is_wrong_with_stages_is_named(mapping: dict[str, Any], message: str) -> None:
    """Oracle: the sentence."""
    with pytest.raises(ValueError, match=re.escape(message)):
        build(RunConfig, mapping)


def test_stages_of_a_configuration() -> None:
    """Oracle: the same stages in Python; their steps are the run's; rates as YAML 1.1 and people write them."""
    mapping = chain(1, learning_rate="1e-5")
    config = build(RunConfig, mapping)
    assert config.make_objective() == [Stage(SFT(), 20), Stage(GRPO(kl=0.1), 30, 1e-5)]
    assert config.trainer["max_steps"] == 50
    assert build(RunConfig, {**mapping, "trainer": {"max_steps": 50}}).trainer["max_steps"] == 50
    assert config.objective == mapping["objective"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"objective": "grao"}, "objective is 'grao'. Give an object such as GRAO(), or a list of stages"),
        ({"objective": GRAO}, "Give an object such as GRAO(), or a list of stages"),
        ({"objective": [GRAO()]}, "Give a stage such as Stage(GRAO(), steps=100)"),
        ({"rollout": {"num_generations": 2}}, "rollout is {'num_generations': 2}. Give an instance of Rollout"),
        ({"critic": "shared"}, "critic is 'shared'. Give an instance of CriticConfig"),
        ({"monitor": {}}, "monitor is {}. Give an instance of Monitor"),
        ({"engine": LocalEngineConfig}, "engine is the class LocalEngineConfig. Give an instance of it"),
        ({"engine": {"path": "nowhere.engines:Mine"}}, "engine: path 'nowhere.engines:Mine': there is no module"),
    ],
)
def test_what_is_wrong_with_objects_is_named(given: dict[str, Any], message: str) -> None:
    """Oracle: the sentence: the argument, what was found, what to give."""
    with pytest.raises(ValueError, match=re.escape(message)):
        RunConfig(**{"model": ModelConfig("base"), "data": DataConfig("rows.jsonl"), "objective": SFT(), **given})


def test_an_engine_that_is_a_dataclass_is_described_by_its_class() -> None:
    """Oracle: by hand: the class. Its fields, such as a model, are no settings."""

    @dataclass
    class Held:
        model: Any
        exact: bool = True

        def sample(self, requests: Any, params: Any) -> Any: ...

        open = sync = close = sample

    config = RunConfig(ModelConfig("base"), DataConfig("rows.jsonl"), SFT(), engine=Held(object()))  # type: ignore[arg-type]
    [(key, path)] = config.resolved()["engine"].items()
    assert (key, path.split(":")[0], path.split(".")[-1]) == ("path", __name__, "Held")


def test_the_critic_of_one_part_is_no_baseline_for_another() -> None:
    """Oracle: the sentence; GRPO alone is refused with one sample per prompt, so it is in a sum with PPO."""
    objective = {"sum": [{"name": "ppo"}, {"name": "grpo"}]}
    with pytest.raises(ValueError, match="num_generations is 1, but objective PPO \\+ GRPO compares the samples"):
        build(RunConfig, changed(objective=objective, rollout={"num_generations": 1}))
    build(RunConfig, changed(objective={"sum": [{"name": "ppo"}]}, rollout={"num_generations": 1}))


def test_a_critic_needs_no_second_sample() -> None:
    """Oracle: by hand: PPO compares no samples, so one a prompt will do."""
    config = build(RunConfig, changed(objective={"name": "ppo"}, rollout={"num_generations": 1}))
    assert config.rollout.num_generations == 1


def test_the_resolved_stages_describe_the_same_run(write_yaml: Callable[[str, str], Path]) -> None:
    """Oracle: an identity: read back, it resolves to itself, and to equal stages; every field is written out."""
    config = build(RunConfig, {**chain(1, learning_rate=1e-5), "critic": {"kind": "separate", "learning_rate": 0.1}})
    again = load_config(write_yaml("resolved.yaml", dump_yaml(config.resolved())))
    assert again.resolved() == config.resolved()
    assert again.make_objective() == config.make_objective()
    assert again.critic == config.critic == CriticConfig("separate", 0.1)
    stage = config.resolved()["objective"][1]
    assert (stage["name"], stage["steps"], stage["learning_rate"], stage["clip_low"]) == ("grpo", 30, 1e-5, 0.2)


def test_overrides_reach_a_stage(write_yaml: Callable[[str, str], Path]) -> None:
    """Oracle: the fields by hand; the number of steps follows, and a place that is none is told."""
    text = dump_yaml(chain())
    overrides = ["--objective.1.kl", "0.05", "--objective.0.steps=5", "--objective.0.learning_rate=1e-4"]
    config = load_config(write_yaml("run.yaml", text), overrides)
    assert config.make_objective() == [Stage(SFT(), 5, 1e-4), Stage(GRPO(kl=0.05), 30)]
    assert config.trainer["max_steps"] == 35
    with pytest.raises(
        ValueError, match=r"cannot set objective\.2\.kl: objective is a list of 2 items without index '2'"
    ):
        load_config(write_yaml("run.yaml", text), ["--objective.2.kl=1"])


def test_one_sample_is_enough_where_none_is_compared() -> None:
    """Oracle: SFT draws no samples, so neither rewards nor their number matter."""
    config = build(RunConfig, changed(objective={"name": "sft"}, rewards=[], rollout={"num_generations": 1}))
    assert not config.make_objective().needs.samples


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"learning_rate": "1e-6"}, 1e-6),  # what YAML 1.1 reads as text
        ({"learning_rate": 1}, 1),
        ({"max_steps": 20.0}, 20),
        ({"bf16": True}, True),
        ({"warmup_steps": 0.1}, 0.1),
        ({"optim": "sgd"}, "sgd"),
        ({"save_total_limit": None}, None),
    ],
)
def test_trainer_values(given: dict[str, Any], expected: Any) -> None:
    """Oracle: the value by hand, and its type."""
    [key] = given
    found = check_trainer(given)[key]
    assert found == expected
    assert type(found) is type(expected)


def test_our_defaults_hold_unless_told_otherwise() -> None:
    """Oracle: the table of defaults; epochs instead of steps take the default number of steps away."""
    assert check_trainer({}) == TRAINER_DEFAULTS
    assert "max_steps" not in check_trainer({"num_train_epochs": 2})
    arguments = build(RunConfig, changed(trainer={"num_train_epochs": 2, "use_cpu": True})).training_arguments()
    assert (arguments.num_train_epochs, arguments.max_steps) == (2, -1)
    assert (arguments.learning_rate, arguments.weight_decay, arguments.seed) == (1e-6, 0.01, 42)
    assert arguments.remove_unused_columns is False
    assert arguments.save_total_limit is None  # we delete, once a newer checkpoint is sealed


def test_held_out_answers_are_scored_and_drawn_as_evaluation_says() -> None:
    """Oracle: by hand: what is not said is the training's; the temperature is 0."""
    said = {"data": {"source": "x"}, "rewards": [{"path": "exact_match"}], "num_samples": 2, "temperature": 0.5}
    for evaluation, rewards, drawn in (
        ({"data": {"source": "x"}}, ["math"], (9, 0.0, 1, ("\n",))),
        ({**said, "max_new_tokens": 5}, ["exact_match"], (5, 0.5, 2, ("\n",))),
    ):
        rollout = {"max_new_tokens": 9, "stop": ["\n"], "temperature": 1.0}
        config = build(RunConfig, changed(evaluation=evaluation, rollout=rollout, rewards=[{"path": "math"}]))
        assert config.evaluation is not None
        found = config.evaluation.sampling(config.rollout)
        assert [reward.path for reward in config.evaluation.rewards or config.rewards] == rewards
        assert (found.max_new_tokens, found.temperature, found.num_samples, found.stop) == drawn


def test_what_transformers_refuses_names_the_section() -> None:
    """Oracle: the section in front of transformers' own sentence."""
    config = build(RunConfig, changed(trainer={"warmup_steps": -1}))
    with pytest.raises(ValueError, match=r"The section trainer is refused by transformers: .*warmup_steps = -1"):
        config.training_arguments()


def test_evaluation_decides_transformers_own_settings() -> None:
    """Oracle: by hand."""
    evaluation = {"data": {"source": "x"}, "every": 7, "at_start": False}
    config = build(RunConfig, changed(evaluation=evaluation, trainer={"use_cpu": True}))
    arguments = config.training_arguments()
    assert (arguments.eval_strategy, arguments.eval_steps, arguments.eval_on_start) == ("steps", 7, False)


@pytest.mark.parametrize("key", ["dtype", "max_rows", "max_batch_tokens", "packed"])
def test_a_setting_that_moved_to_the_engine_names_its_new_place(key: str) -> None:
    """Oracle: the sentence."""
    with pytest.raises(ValueError, match=rf"rollout\.{key}: unknown key; it is now engine\.{key}"):
        build(RunConfig, changed(rollout={key: 1}))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_resolved_configuration_describes_the_same_run(
    name: str, tmp_path: Path, write_yaml: Callable[[str, str], Path]
) -> None:
    """Oracle: an identity: read back, it resolves to itself, and to an equal objective."""
    settings = {"length": 64} if name == "dr-grpo" else {}
    config = build(RunConfig, changed(objective={"name": name, **settings}, model__lora={"r": 4}))
    again = load_config(write_yaml("resolved.yaml", dump_yaml(config.resolved())))
    assert again.resolved() == config.resolved()
    assert again.make_objective() == config.make_objective()
    assert again.rollout == config.rollout
    assert again.model == config.model


@pytest.fixture
def write_yaml(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_overrides_reach_every_section(write_yaml: Callable[[str, str], Path]) -> None:
    """Oracle: the fields by hand."""
    text = "model: {path: base}\ndata: {source: rows.jsonl}\nobjective: {name: grao}\nrewards: [{path: math}]\n"
    config = load_config(
        write_yaml("run.yaml", text),
        ["--objective.beta", "0.3", "rewards.0.weight=2", "--trainer.learning_rate=1e-5", "--rollout.stop", "[x]"],
    )
    assert config.make_objective().beta == 0.3  # type: ignore[attr-defined]
    assert config.rewards[0].weight == 2.0
    assert config.trainer["learning_rate"] == 1e-5
    assert config.rollout.stop == ("x",)


def test_every_key_has_a_sentence() -> None:
    """Oracle: the descriptions themselves: no key whose meaning nobody wrote down, but two that say it by name."""
    silent = {key.name for key in describe(RunConfig) if not key.doc}
    assert silent <= {"model.lora.dropout", "rollout.max_new_tokens"}
