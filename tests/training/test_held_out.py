"""Held-out evaluation while training: by rewards of its own, and against the policy that training began with."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from grao import GRAO, Rollout, align
from grao.configuration import build
from grao.records import read_run
from grao.training import RunConfig, train

Config = dict[str, Any]


def go(config: Config, **flags: bool) -> list[dict[str, Any]]:
    """Train; the log lines of the evaluations."""
    run = train(build(RunConfig, config), console=Console(file=io.StringIO()), **flags)
    return [dict(line) for line in read_run(run.directory).metrics if "eval_n" in line]


def answers(step: int, folder: str = "run") -> list[dict[str, Any]]:
    rows = read_run(folder).completions(step, held_out=True)
    return [row for row in rows if row["kind"] == "sample"]


def net_gain(later: list[dict[str, Any]], start: list[dict[str, Any]]) -> float:
    """Mean over prompts of the mean sign over all pairs: a plain double loop."""
    gains = []
    for prompt in dict.fromkeys(row["row"] for row in later):
        own, before = ([r["reward"] for r in rows if r["row"] == prompt] for rows in (later, start))
        signs = [(x > y) - (x < y) for x in own for y in before]
        gains.append(sum(signs) / len(signs))
    return sum(gains) / len(gains)


@pytest.fixture
def evaluated(config: Config) -> Config:
    config["evaluation"] = {
        "data": {"source": "rows.jsonl"},
        "every": 2,
        "rewards": [{"path": "length", "kwargs": {"target": 0, "maximum": 4}}],
        "num_samples": 2,
        "temperature": 1.0,
        "max_new_tokens": 6,
    }
    config["trainer"] |= {"max_steps": 4, "learning_rate": 5e-2}
    return config


@pytest.mark.slow
def test_held_out_answers_are_scored_by_rewards_of_their_own(evaluated: Config) -> None:
    """Oracle: the records: two answers a prompt of up to six tokens, scored by length; training by vowels, up to four.

    NAG by a double loop over the recorded answers of the start and of each later evaluation.
    """
    lines = go(evaluated)
    assert [line["step"] for line in lines] == [0, 2, 4]
    for line in lines:
        rows = answers(line["step"])
        assert len(rows) == 24
        assert all("rewards/length" in row and "rewards/vowels" not in row for row in rows)
        assert 4 < max(row["length"] for row in rows) <= 6
        assert line["eval_reward"] == pytest.approx(sum(row["reward"] for row in rows) / 24, abs=1e-12)
    assert "eval_nag" not in lines[0]
    gains = [net_gain(answers(step), answers(0)) for step in (2, 4)]
    assert [line["eval_nag"] for line in lines[1:]] == pytest.approx(gains, abs=1e-12)
    assert any(gain != 0 for gain in gains)
    samples = [row for row in read_run("run").completions(1) if row["kind"] == "sample"]
    assert all("rewards/vowels" in row and row["length"] <= 4 for row in samples)


@pytest.mark.slow
def test_a_resumed_run_finds_the_answers_of_the_start(evaluated: Config, caplog: pytest.LogCaptureFixture) -> None:
    """Oracle: an uninterrupted run's evaluations, number by number."""
    whole = go(evaluated)
    evaluated["trainer"] |= {"output_dir": "resumed", "max_steps": 2}
    go(evaluated)
    evaluated["trainer"]["max_steps"] = 4
    resumed = go(evaluated, resume=True)
    kept = [{k: v for k, v in line.items() if "time" not in k and "second" not in k} for line in resumed]
    expected = [{k: v for k, v in line.items() if "time" not in k and "second" not in k} for line in whole]
    assert kept[-1] == expected[-1]
    assert "eval_nag" in kept[-1]
    assert "eval_nag" not in caplog.text


def test_without_a_start_there_is_no_nag_and_that_is_said_once(
    evaluated: Config, caplog: pytest.LogCaptureFixture
) -> None:
    """Oracle: the sentence, once for two evaluations; the other figures are there."""
    evaluated["evaluation"]["at_start"] = False
    with caplog.at_level(logging.WARNING):
        lines = go(evaluated)
    assert [line["step"] for line in lines] == [2, 4]
    assert all("eval_nag" not in line and "eval_ras" in line for line in lines)
    assert caplog.text.count("no eval_nag: the policy was not evaluated before training") == 1


def test_sft_without_training_rewards_is_evaluated_by_its_own(evaluated: Config) -> None:
    """Oracle: the steps by hand; SFT scores nothing in training."""
    evaluated |= {"objective": {"name": "sft"}, "rewards": []}
    assert [line["step"] for line in go(evaluated)] == [0, 2, 4]


def test_from_python(workplace: Path, rows: list[dict[str, str]]) -> None:
    """Oracle: a reward that says 3 to everything held out, and is asked about nothing else."""

    def three(prompts: list[str], **columns: Any) -> list[float]:
        assert set(prompts) <= {row["prompt"] for row in rows[8:]}
        return [3.0 for _ in prompts]

    run = align(
        "base",
        rows[:8],
        objective=GRAO(),
        rewards=["tiny_rewards:vowels"],
        rollout=Rollout(max_new_tokens=4, num_generations=2),
        held_out=rows[8:],
        held_out_rewards=[three],
        output_dir="python",
        max_steps=1,
        use_cpu=True,
        per_device_train_batch_size=2,
        console=Console(file=io.StringIO()),
    )
    lines = [line for line in read_run(run.directory).metrics if "eval_n" in line]
    assert [line["eval_reward"] for line in lines] == [3.0, 3.0]
    assert read_run(run.directory).config["evaluation"]["rewards"] == [{"path": "three", "weight": 1.0}]


def test_rewards_without_rows_of_their_own(rows: list[dict[str, str]]) -> None:
    """Oracle: the sentence."""
    with pytest.raises(ValueError, match="held_out_rewards has no rows to score"):
        align("base", rows, objective=GRAO(), rewards=["length"], held_out_rewards=["length"])
    with pytest.raises(ValueError, match="rewards is 'length'"):
        align("base", rows, objective=GRAO(), rewards="length")
