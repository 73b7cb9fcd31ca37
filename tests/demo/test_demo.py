"""The demo: which methods it runs, their configurations, and a whole small one."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from grao.demo.run_demo import METHODS, Method, Stage, method_config, method_mapping, run_demo
from grao.evaluation import Estimate
from grao.objectives import DPO, GRAO, GRPO, PPO, SFT, Objective, make_objective

CHAIN = Method("SFT → GRPO", "sft-grpo", (Stage({"name": "sft"}, 1e-3), Stage({"name": "grpo", "kl": 0.1}, 3e-4)))


def _objective(stage: Stage) -> Objective:
    settings = dict(stage.objective)
    return make_objective(settings.pop("name"), settings)


def test_the_demo_runs_the_methods_it_names() -> None:
    """Oracle: labels and objectives, written out."""
    found = {method.label: [_objective(s) for s in method.stages] for method in METHODS}
    assert found == {
        "SFT": [SFT()],
        "DPO": [DPO()],
        "PPO": [PPO()],
        "GRPO": [GRPO()],
        "SFT → GRPO": [SFT(), GRPO()],
        "GRAO (paper)": [GRAO()],
        "GRAO (recommended)": [GRAO.recommended()],
    }
    assert len({method.folder for method in METHODS}) == len(METHODS)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.folder)
def test_every_method_is_a_configuration_that_is_accepted(method: Method, tmp_path: Path) -> None:
    """Oracle: the same prompts, samples, seed and folder in each; and `RunConfig` takes it."""
    config = method_config(method, tmp_path, steps=60, seed=7)
    assert config.run_directory == tmp_path / method.folder
    assert (config.trainer["seed"], config.trainer["per_device_train_batch_size"]) == (7, 16)
    assert (config.rollout.num_generations, config.rollout.max_new_tokens) == (8, 32)


def test_a_method_of_one_stage_as_a_configuration(tmp_path: Path) -> None:
    """Oracle: what a user would write."""
    method = Method("PPO", "ppo", (Stage({"name": "ppo", "kl": 0.1}, 3e-4),), {"critic": {"kind": "shared"}})
    found = method_mapping(method, tmp_path, steps=60, seed=1)
    assert found["objective"] == {"name": "ppo", "kl": 0.1}
    assert found["critic"] == {"kind": "shared"}
    assert (found["trainer"]["learning_rate"], found["trainer"]["max_steps"]) == (3e-4, 60)


@pytest.mark.parametrize(("steps", "shares"), [(60, (30, 30)), (5, (3, 2)), (2, (1, 1))])
def test_a_chain_divides_the_steps(steps: int, shares: tuple[int, int], tmp_path: Path) -> None:
    """Oracle: the documented form of a chain: steps and learning rate in each stage, max_steps nowhere."""
    found = method_mapping(CHAIN, tmp_path, steps=steps, seed=1)
    assert found["objective"] == [
        {"name": "sft", "steps": shares[0], "learning_rate": 1e-3},
        {"name": "grpo", "kl": 0.1, "steps": shares[1], "learning_rate": 3e-4},
    ]
    assert not {"max_steps", "learning_rate"} & set(found["trainer"])


def test_a_chain_needs_a_step_for_every_stage(tmp_path: Path) -> None:
    """Oracle: the sentence, before anything is written."""
    with pytest.raises(ValueError, match="1 steps cannot be divided among 2 stages: give at least 2"):
        run_demo(tmp_path / "demo", steps=1, methods=[CHAIN])
    assert not (tmp_path / "demo").exists()


def small_demo(output: Path, methods: tuple[Method, ...]) -> str:
    """Runs it with two steps a method and checks what holds for any; returns what it printed."""
    console = Console(width=120, record=True, file=StringIO())
    results = run_demo(output, steps=2, methods=methods, console=console)
    labels = ["base", *(method.label for method in methods)]
    assert [result.name for result in results] == labels
    assert all(result.score.n == 300 for result in results)
    assert all(result.seconds > 0 for result in results[1:])
    record = json.loads((output / "comparison.json").read_text(encoding="utf-8"))
    assert (record["seed"], record["steps"], len(record["results"])) == (0, 2, len(results))
    assert [Estimate(**r["score"]) for r in record["results"]] == [result.score for result in results]
    assert (record["differences"]["of"], list(record["differences"]["less"])) == (labels[-1], labels[:-1])
    for other, difference in zip(results[:-1], record["differences"]["less"].values(), strict=True):
        assert difference["value"] == pytest.approx(results[-1].score.value - other.score.value, abs=1e-12)
    assert record["runs"] == {method.label: method.folder for method in methods}
    assert all((output / folder / "config.yaml").is_file() for folder in record["runs"].values())
    for result in record["results"]:  # the rubric's score of each reference is what its verdicts compared with
        references = [asked["reference_score"] for asked in record["prompts"]]
        signs = [float((x > y) - (x < y)) for x, y in zip(result["scores"], references, strict=True)]
        assert signs == result["verdicts"]
    text = console.export_text()
    assert all(f"{result.name}: score {result.score.value:.2f}" in text for result in results)
    return text


def test_the_callers_threads_come_back(tmp_path: Path) -> None:
    """Oracle: the count from before, after a demo that failed: something else lies where the base model goes."""
    (tmp_path / "task" / "base").mkdir(parents=True)
    (tmp_path / "task" / "base" / "notes.txt").write_text("mine", encoding="utf-8")
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        with pytest.raises(FileExistsError):
            run_demo(tmp_path, steps=2, methods=METHODS[:1], console=Console(file=StringIO()))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_a_small_demo(tmp_path: Path) -> None:
    """Oracle: the labels; the record holds what was returned; differences of means; the time at the end."""
    methods = tuple(method for method in METHODS if method.folder in ("sft", "dpo", "grao-recommended"))
    text = small_demo(tmp_path / "demo", methods)
    assert "s in total. Runs, metrics and models: " in text
    assert "Score of GRAO (recommended) minus the score of" in text


@pytest.mark.slow
def test_the_whole_demo_in_small(tmp_path: Path) -> None:
    """Oracle: as above, for every method the demo names."""
    small_demo(tmp_path / "demo", METHODS)
