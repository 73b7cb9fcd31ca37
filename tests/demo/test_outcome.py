"""Measuring a model on a task's test prompts, alone, against the base, and against other models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from grao.data import EncodedExample, Encoder, load_examples
from grao.demo.dialogue import Dialogue
from grao.demo.outcome import Base, Outcome, differences, measure
from grao.demo.synthetic_task import write_task
from grao.evaluation import Estimate, bootstrap_mean, nag, nag_win, paired_difference, ras, ras_ties_half
from grao.policy import FrozenPolicy, LoadedPolicy, ModelConfig, load_policy
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


def measured(folder: Path, rows: list[EncodedExample], base: Base | None, shift: float = 0.0) -> Outcome:
    """The base model, its weights stretched by 1 + shift."""
    policy: LoadedPolicy = load_policy(ModelConfig(str(folder / "base")))
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1 + shift)
    return measure("model", policy, rows, RewardSet([load_reward(TASK.rubric)]), base=base, max_new_tokens=24)


@pytest.fixture(scope="module")
def base(folder: Path, rows: list[EncodedExample]) -> Base:
    policy = load_policy(ModelConfig(str(folder / "base")))
    return Base(FrozenPolicy(policy.model), measured(folder, rows, None))


@pytest.fixture(scope="module")
def moved(folder: Path, rows: list[EncodedExample], base: Base) -> Outcome:
    return measured(folder, rows, base, shift=0.2)


def test_scores_are_the_rubrics(rows: list[EncodedExample], moved: Outcome) -> None:
    """Oracle: the task's own score on each answer; a plain loop for categories and verdicts."""
    expected = [TASK.score(str(r.example.prompt), a) for r, a in zip(rows, moved.answers, strict=True)]
    references = [TASK.score(str(r.example.prompt), r.example.reference or "") for r in rows]
    assert list(moved.scores) == expected
    assert moved.score == bootstrap_mean(expected)
    verdicts = [1.0 if s > y else -1.0 if s < y else 0.0 for s, y in zip(expected, references, strict=True)]
    assert list(moved.verdicts) == verdicts
    assert (moved.wins, moved.ties, moved.losses) == tuple(verdicts.count(v) for v in (1.0, 0.0, -1.0))
    assert sorted(moved.by_category) == ["benign", "entity", "harmful"]
    for category, estimate in moved.by_category.items():
        own = [s for s, r in zip(expected, rows, strict=True) if r.example.columns["category"] == category]
        assert estimate == bootstrap_mean(own)


def test_wins_are_those_of_the_evaluation_room(rows: list[EncodedExample], base: Base, moved: Outcome) -> None:
    """Oracle: RAS on scores and NAG on verdicts (the paper's reward), called here on the rubric's own numbers."""
    references = [TASK.score(str(r.example.prompt), r.example.reference or "") for r in rows]
    assert moved.ras == ras(moved.scores, references)
    assert moved.ras_ties_half == ras_ties_half(moved.scores, references)
    assert moved.nag == nag(moved.verdicts, base.outcome.verdicts)
    assert moved.nag_win == nag_win(moved.verdicts, base.outcome.verdicts)


def test_the_base_itself_has_nothing_to_gain(base: Base) -> None:
    """Oracle: NAG and the KL to the base are about another model."""
    assert (base.outcome.nag, base.outcome.nag_win, base.outcome.kl) == (None, None, None)


def test_a_model_that_did_not_move(folder: Path, rows: list[EncodedExample], base: Base) -> None:
    """Oracle: the same seeds give the same answers, so NAG is 0 without a doubt; KL(π ‖ π) = 0."""
    result = measured(folder, rows, base)
    assert result.answers == base.outcome.answers
    assert result.nag == Estimate(0.0, 0.0, 0.0, 24)
    assert result.kl == Estimate(0.0, 0.0, 0.0, 24)


def test_kl_is_positive_away_from_the_base(moved: Outcome) -> None:
    """Oracle: KL > 0 for another distribution; k3 ≥ 0 for each token, so the interval too."""
    assert moved.kl is not None
    assert 0.01 < moved.kl.low <= moved.kl.value <= moved.kl.high


def test_length_counts_tokens_with_the_end(folder: Path, moved: Outcome) -> None:
    """Oracle: the tokenizer on the answers' texts, whole words; an end token unless the limit of 24 was met."""
    tokenizer = load_policy(ModelConfig(str(folder / "base"))).tokenizer
    words = [len(tokenizer(answer)["input_ids"]) for answer in moved.answers]
    assert moved.mean_length.value == pytest.approx(sum(min(n + 1, 24) for n in words) / len(words), abs=1e-12)


def test_differences_are_paired_by_prompt(base: Base, moved: Outcome) -> None:
    """Oracle: `paired_difference` of the scores, by name; a model is not held against itself."""
    first = replace(base.outcome, name="base")
    better = replace(moved, name="better", scores=tuple(s + 1 for s in moved.scores))
    found = differences(better, [first, moved, better])
    assert found == {
        "base": paired_difference(better.scores, first.scores),
        "model": Estimate(1.0, 1.0, 1.0, 24),
    }


def test_an_outcome_is_plain_data(moved: Outcome) -> None:
    """Oracle: JSON gives back what went in, estimates as mappings of their fields."""
    plain = json.loads(json.dumps(moved.as_dict()))
    assert Estimate(**plain["score"]) == moved.score
    assert {c: Estimate(**e) for c, e in plain["by_category"].items()} == moved.by_category
    assert (tuple(plain["answers"]), tuple(plain["verdicts"])) == (moved.answers, moved.verdicts)


def test_a_base_of_other_prompts_is_refused(folder: Path, rows: list[EncodedExample], base: Base) -> None:
    """Oracle: the sentence."""
    with pytest.raises(ValueError, match="12 rewards against 24: a paired comparison needs both sides on the same"):
        measured(folder, rows[:12], base)
