"""Measuring a model on a task's test prompts, and the demo's tables."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from grao.data import EncodedExample, Encoder, load_examples
from grao.evaluation import bootstrap_mean
from grao.experiments.comparison import Outcome, measure
from grao.experiments.demo import METHODS, answers_table, comparison_table, method_config
from grao.experiments.tasks import Dialogue, write_task
from grao.objectives import GRAO, GRPO, SFT
from grao.policy import FrozenPolicy, ModelConfig, Policy, load_policy
from grao.rewards import RewardSet, load_reward

TASK = Dialogue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("task")
    write_task(TASK, path, n_train=8, n_validation=4, n_test=24, steps=30, quiet=True)
    return path


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[EncodedExample]:
    encoder = Encoder(load_policy(ModelConfig(str(folder / "base"))).tokenizer)
    return encoder.encode_all(load_examples(folder / "test.jsonl"))[0]


def outcome(folder: Path, rows: list[EncodedExample], shift: float = 0.0, base: bool = True) -> Outcome:
    policy: Policy = load_policy(ModelConfig(str(folder / "base")))
    frozen = FrozenPolicy(policy.model) if base else None
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1 + shift)
    rubric = RewardSet([load_reward(TASK.rubric)])
    return measure("model", policy, frozen, rows, rubric, max_new_tokens=24)


def test_scores_are_the_rubrics(folder: Path, rows: list[EncodedExample]) -> None:
    """Oracle: the task's own score on each answer, a plain loop for wins, ties and categories."""
    result = outcome(folder, rows)
    expected = [TASK.score(str(r.example.prompt), a) for r, a in zip(rows, result.answers, strict=True)]
    assert list(result.scores) == expected
    assert result.score == bootstrap_mean(expected)
    references = [TASK.score(str(r.example.prompt), r.example.reference or "") for r in rows]
    assert result.win_rate.value == sum(s > y for s, y in zip(expected, references, strict=True)) / len(rows)
    assert result.tie_rate == sum(s == y for s, y in zip(expected, references, strict=True)) / len(rows)
    for category, mean in result.by_category.items():
        own = [s for s, r in zip(expected, rows, strict=True) if r.example.columns["category"] == category]
        assert mean == pytest.approx(sum(own) / len(own), abs=1e-12)


def test_kl_is_zero_at_the_base_and_positive_away_from_it(folder: Path, rows: list[EncodedExample]) -> None:
    """Oracle: KL(π ‖ π) = 0, and KL > 0 for another distribution."""
    assert outcome(folder, rows).kl == 0
    assert outcome(folder, rows, shift=0.2).kl > 0.01


def test_the_same_seeds_give_the_same_answers(folder: Path, rows: list[EncodedExample]) -> None:
    """Oracle: identity."""
    assert outcome(folder, rows).answers == outcome(folder, rows, base=False).answers


def test_the_tables_name_every_model_and_category(folder: Path, rows: list[EncodedExample]) -> None:
    """Oracle: the outcome's own numbers, found in the printed text."""
    result = outcome(folder, rows)
    console = Console(width=140, record=True, file=StringIO())
    console.print(comparison_table([result]))
    console.print(answers_table(rows, [result]))
    text = console.export_text()
    for expected in ("benign", "entity", "harmful", f"{result.score.value:.2f} [{result.score.low:.2f}"):
        assert expected in text
    first = {str(r.example.columns["category"]): r for r in reversed(rows)}
    assert all(str(row.example.prompt) in text for row in first.values())


def test_the_demo_runs_the_methods_it_names(tmp_path: Path) -> None:
    """Oracle: the objectives, written out."""
    objectives = [method_config(m, tmp_path, steps=1, seed=0).make_objective() for m in METHODS]
    assert objectives == [SFT(), GRPO(), GRAO(), GRAO.recommended()]
