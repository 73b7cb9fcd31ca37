"""Training and evaluation on the verdicts of a judge whose endpoint fails in a third of all requests, or goes away."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from tests.rewards.faulty_endpoint import FAULTS, ODD_REPLIES, FaultyEndpoint

from grao.configuration import build
from grao.evaluation import EvaluateConfig, evaluate
from grao.records import read_run
from grao.rewards import RewardError
from grao.training import RunConfig, train

pytestmark = pytest.mark.slow

STEPS = 3
VERDICTS = {1: "1 > 2", 0: "1 = 2", -1: "1 < 2"}


def more_vowels(messages: list[dict[str, str]]) -> str:
    """The judge: the text with more vowels is better."""
    first, second = (
        sum(character in "aeiou" for character in text)
        for text in re.findall(r"=== BEGIN TEXT [12] \w+ ===\n(.*?)\n=== END", messages[-1]["content"], re.DOTALL)
    )
    return VERDICTS[(first > second) - (first < second)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_bpe_model: Callable[..., Path]) -> Path:
    write_bpe_model(tmp_path / "base", ["row 0 has a question and an answer"] * 10, 280)
    rows = [{"prompt": f"row {i} has a question", "reference": "an answer" * (1 + i % 3)} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def judged_by(server: FaultyEndpoint, name: str, timeout: float = 60.0) -> list[dict[str, Any]]:
    """The `rewards` section: patient with requests that fail, quick to ask again.

    What comes after `timeout` has been paid for all the same, so it is long where no request is made to hang.
    """
    settings = {"rubric": "helpfulness", "model": "judge", "base_url": server.url, "cache": f"{name}.sqlite"}
    patience = {"timeout": timeout, "backoff": 0.001, "longest_wait": 0.02, "max_attempts": 16}
    others = {"max_reply_attempts": 6, "down_requests": 2}
    return [{"path": "judge", "name": "vowels", "kwargs": {**settings, **patience, **others}}]


def trained(name: str, rewards: list[dict[str, Any]], *, resume: bool = False) -> tuple[str, pd.DataFrame]:
    """SHA-256 of the weights, and every completion with its rewards; `grao train` of three steps."""
    mapping = {
        "model": {"path": "base"},
        "data": {"source": "rows.jsonl"},
        "objective": {"name": "grao-recommended"},
        "rewards": rewards,
        "rollout": {"num_generations": 4, "max_new_tokens": 6},
        "trainer": {
            "output_dir": name,
            "max_steps": STEPS,
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 4,
            "use_cpu": True,
        },
    }
    run = train(build(RunConfig, mapping), resume=resume, console=Console(file=io.StringIO()))
    weights = hashlib.sha256((run.model / "model.safetensors").read_bytes()).hexdigest()
    return weights, pd.DataFrame(list(read_run(run.directory).completions()))


def evaluated(name: str, rewards: list[dict[str, Any]]) -> tuple[Any, bytes]:
    """The figures, and the items of the trained model; `grao evaluate` against the base."""
    mapping = {
        "models": [{"name": "base", "path": "base"}, {"name": "grao", "path": name}],
        "data": {"source": "rows.jsonl"},
        "rewards": rewards,
        "sampling": {"max_new_tokens": 6, "num_samples": 2},
        "output_dir": f"{name}-evaluation",
    }
    found = evaluate(build(EvaluateConfig, mapping), console=Console(file=io.StringIO()))
    folder = Path(f"{name}-evaluation")
    return found.summaries["grao"].as_dict(), (folder / "items" / "grao.parquet").read_bytes()


def test_faults_change_no_score_and_no_weight(place: Path) -> None:
    """Oracle: the same run with a healthy endpoint, bit for bit; the endpoint's own count of what was paid for.

    Thirty percent of the requests meet any of the endpoint's faults, verdicts in a foreign language or with an
    explanation among them.
    """
    with FaultyEndpoint(more_vowels) as healthy:
        expected = trained("healthy", judged_by(healthy, "healthy"))
        figures = evaluated("healthy", judged_by(healthy, "healthy"))
    with FaultyEndpoint(more_vowels, rate=0.3, faults=[*FAULTS, *ODD_REPLIES]) as faulty:
        weights, completions = trained("faulty", judged_by(faulty, "faulty", 5.0))
        assert set(faulty.played) == {*FAULTS, *ODD_REPLIES}  # each of them happened
        assert weights == expected[0]
        pd.testing.assert_frame_equal(completions, expected[1])
        assert evaluated("faulty", judged_by(faulty, "faulty", 5.0)) == figures
        assert max(faulty.paid.values()) == 1
    assert completions["reward"].notna().all()
    assert figures[0]["all"]["unscored"] == 0
    assert figures[0]["all"]["ras"]["n"] == 8


def test_an_endpoint_that_goes_away_stops_the_run_which_goes_on_when_it_is_back(place: Path) -> None:
    """Oracle: the run that nothing stopped, bit for bit; over both halves no answer is paid for twice."""
    with FaultyEndpoint(more_vowels) as healthy:
        expected = trained("whole", judged_by(healthy, "whole"))
        all_answers = sum(healthy.paid.values())
    with FaultyEndpoint(more_vowels) as leaving:

        def leave(messages: list[dict[str, str]]) -> str:
            if sum(leaving.paid.values()) >= all_answers * 2 // 3:
                leaving.away = True
            return more_vowels(messages)

        leaving.judge = leave
        with pytest.raises(RewardError, match=r"is down.*--resume"):
            trained("stopped", judged_by(leaving, "stopped"))
        assert 0 < sum(leaving.paid.values()) < all_answers
        leaving.judge, leaving.away = more_vowels, False
        weights, completions = trained("stopped", judged_by(leaving, "stopped"), resume=True)
    assert weights == expected[0]
    pd.testing.assert_frame_equal(completions, expected[1])
    assert +leaving.paid == +healthy.paid
    assert set((+leaving.paid).values()) == {1}
