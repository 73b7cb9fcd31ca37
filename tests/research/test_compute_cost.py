"""What a run has spent: tokens as they were, FLOPs by the documented approximation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from grao.configuration import build
from grao.demo.base_model import ModelSpec, word_tokenizer
from grao.records import RunDirectory, RunRecord, read_run
from grao.training import RunConfig
from research.compute_cost import ComputeCost, active_parameters, cost_by_step

N = 1000


def run(folder: Path, objective: Any, tokens: list[int], lengths: dict[int, list[int]], **sections: Any) -> Any:
    """A record with these totals of tokens, and samples of these lengths beside a reference of 99 at some steps."""
    trainer = {} if isinstance(objective, list) else {"max_steps": len(tokens)}
    mapping = {
        "model": {"path": "m"},
        "data": {"source": "d"},
        "objective": objective,
        "rewards": [{"path": "math"}],
        "trainer": trainer,
        **sections,
    }
    directory = RunDirectory.create(folder / "run", {"seed": 0})
    for step, total in enumerate(tokens, 1):
        directory.append_metrics(step, {"loss": 0.0, "num_tokens": total})
    for step, samples in lengths.items():
        rows = [{"kind": "sample", "length": n} for n in samples] + [{"kind": "reference", "length": 99}]
        directory.write_completions(step, rows)
    record: RunRecord = read_run(directory.path)
    return cost_by_step(record, build(RunConfig, mapping), N)


def test_grao_samples_and_trains(tmp_path: Path) -> None:
    """Oracle: by hand: 2 N a token drawn, 6 N a token trained on."""
    found = run(tmp_path, {"name": "grao"}, [50, 120], {1: [4, 6], 2: [10, 20]})
    assert found == {
        0: ComputeCost(),
        1: ComputeCost(10, 50, N * (2 * 10 + 6 * 50)),
        2: ComputeCost(40, 120, N * (2 * 40 + 6 * 120)),
    }


def test_a_chain_by_its_stages(tmp_path: Path) -> None:
    """Oracle: by hand: SFT draws nothing; GRPO with a KL makes one pass more without gradient, 8 N a token."""
    stages = [{"name": "sft", "steps": 1}, {"name": "grpo", "steps": 1, "kl": 0.1}]
    found = run(tmp_path, stages, [30, 100], {2: [5]})
    assert found[1] == ComputeCost(0, 30, N * 6 * 30)
    assert found[2] == ComputeCost(5, 100, N * (6 * 30 + 2 * 5 + 8 * 70))


def test_ppo_trains_a_second_model(tmp_path: Path) -> None:
    """Oracle: by hand: 6 N policy, 6 N critic, 2 N each for the log-probs of the frozen policy
    and of the behaviour, and for values; samples count once, at the step that drew them.
    """
    found = run(
        tmp_path,
        {"name": "ppo"},
        [10, 20],
        {1: [3]},
        rollout={"num_iterations": 2},
        trainer={"max_steps": 2, "save_steps": 2},
    )
    assert found[2] == ComputeCost(3, 20, N * (2 * 3 + (12 + 6) * 20))


@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe"])
def test_active_parameters(family: str) -> None:
    """Oracle: of a dense model all; of six experts, two a token, a third of the experts' weights."""
    spec = ModelSpec(family=family, hidden_size=16, num_attention_heads=2, num_key_value_heads=2, intermediate_size=12)
    model = AutoModelForCausalLM.from_config(spec.config(word_tokenizer(["a", "b"])))
    experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    assert (experts > 0) == (family == "qwen3_moe")
    assert active_parameters(model) == model.num_parameters() - experts + experts / 3
