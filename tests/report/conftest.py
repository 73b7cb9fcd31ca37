"""What tests of the report are made from: small runs and records with made-up numbers, none of them a result."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from grao.records import RunDirectory

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    '<img src=x onerror="window.hacked = 1">',
    "{{ 7 * 7 }} {% raw %} ${7 * 7}",
    "\u2028\u2029 \x00 \x1b \ud800 ]]> <!-- --> &amp; \"'`",
    '=HYPERLINK(1), \n second line, a "quoted" word',
)
"""Texts that a page must show as they are."""

METHODS = ("base", "SFT", "GRPO", "GRAO (paper)")

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Writes a run: `metrics` a line a step from 1, `completions` rows by step."""

    def write(
        name: str,
        metrics: Sequence[Mapping[str, Any]] = (),
        completions: Mapping[int, Sequence[Mapping[str, Any]]] | None = None,
        held_out: Mapping[int, Sequence[Mapping[str, Any]]] | None = None,
        **config: Any,
    ) -> Path:
        sections: dict[str, Any] = {
            "model": {"path": "models/tiny"},
            "data": {"source": "rows.jsonl"},
            "objective": {"name": "grao"},
            "trainer": {"max_steps": 100},
        }
        run = RunDirectory.create(tmp_path / name, sections | config)
        for step, values in enumerate(metrics, start=1):
            run.append_metrics(step, values)
        for step, rows in (completions or {}).items():
            run.write_completions(step, rows)
        for step, rows in (held_out or {}).items():
            run.write_completions(step, rows, held_out=True)
        return run.path

    return write


def group(row: int, prompt: Any, reference: str, answers: Sequence[tuple[str, float | None]]) -> list[dict[str, Any]]:
    """The rows that training writes for one prompt: its samples, then its reference."""
    samples = [
        {"row": row, "kind": "sample", "prompt": prompt, "completion": text, "reward": reward, "advantage": 0.5,
         "length": 3, "finish": "stop"}
        for text, reward in answers
    ]  # fmt: skip
    given = {"row": row, "kind": "reference", "prompt": prompt, "completion": reference, "reward": 1.0,
             "advantage": -0.5, "length": 3, "finish": "given"}  # fmt: skip
    return [*samples, given]


def metrics_of(steps: int) -> list[dict[str, float]]:
    """Lines as GRAO logs them; every value follows from the step."""
    return [
        {
            "loss": 1.0 - step / 100,
            "reward": step / 10,
            "reward/reference": 1.0,
            "logprobs/reference": -2.0 + step / 50,
            "logprobs/samples": -1.0,
            "loss/exploration": -0.1 * step,
            "loss/imitation": 0.3 if step < steps / 2 else -0.2,
            "loss/regulariser": 0.1,
            "grad/share/exploration": 0.25,
            "grad/share/imitation": 0.5,
            "grad/share/regulariser": 0.25,
            "kl": 0.01 * step,
            "entropy": 1.5,
            "completions/mean_length": 12.0,
            "grad_norm": 0.5,
            "learning_rate": 1e-6 * step,
            "something/own": float(step),
        }
        for step in range(1, steps + 1)
    ]


def estimate(value: float | None, half: float | None = 0.5, n: int = 8) -> dict[str, Any]:
    """As records write one; `half` of None: no interval, as with one seed."""
    bounds = (None, None) if half is None or value is None else (value - half, value + half)
    return {"value": value, "low": bounds[0], "high": bounds[1], "n": n}


def comparison_record(texts: Sequence[str] = ("one .", "two .", "three .")) -> dict[str, Any]:
    """As the demo writes it: method i scores i, i + 1, i + 2 on three prompts."""
    results = []
    for place, name in enumerate(METHODS):
        trained = place > 0
        results.append(
            {
                "name": name,
                "score": estimate(place + 1.0),
                "by_category": {"harmful": estimate(-1.0 * place), "benign": estimate(2.0 * place)},
                "ras": estimate(0.1 * place, 0.05),
                "nag": estimate(0.2 * place, 0.05) if trained else None,
                "nag_win": estimate(0.3 * place, 0.05) if trained else None,
                "wins": place,
                "ties": 1,
                "losses": 5 - place,
                "kl": estimate(2.0 * place) if trained else None,
                "mean_length": estimate(10.0 + place),
                "seconds": 3.0 * place,
                "answers": [f"{name} says {text}" for text in texts],
                "scores": [float(place + i) for i in range(len(texts))],
            }
        )
    return {
        "seed": 0,
        "steps": 60,
        "results": results,
        "differences": {"of": METHODS[-1], "less": {name: estimate(0.5, 0.25) for name in METHODS[:-1]}},
        "runs": {},
        "prompts": [
            {"prompt": f"prompt {i}: {text}", "category": ("harmful", "benign")[i % 2], "reference": f"reference {i}",
             "reference_score": 2.0}
            for i, text in enumerate(texts)
        ],
    }  # fmt: skip


def curve(values: Sequence[float | None], half: float | None = 0.5) -> dict[str, Any]:
    """A curve over steps 0, 5, 10, ..."""
    bounds = [[None if v is None or half is None else v + sign * half for v in values] for sign in (-1, 1)]
    return {"x": [5 * i for i in range(len(values))], "value": list(values), "low": bounds[0], "high": bounds[1],
            "x_label": "steps"}  # fmt: skip


def experiment_record(half: float | None = 0.5) -> dict[str, Any]:
    """As an experiment summarises itself: four methods in two regimes."""
    aggregates = [
        {
            "axes": {"method": name, "regime": regime},
            "n": 8,
            "diverged": int(name == "GRPO" and regime == "often"),
            "metrics": {
                "score": estimate(place + 10.0 * shift, half),
                "ras": estimate(0.1 * place, half and 0.05),
                "kl": estimate(2.0 * place, half) if place else estimate(None),
                "win_rate": estimate(0.2),
                "tie_rate": estimate(0.3),
                "loss_rate": estimate(0.5),
                "odd": estimate(1.0),
            },
            "by_category": {"harmful": {"score": estimate(-1.0, half)}, "benign": {"score": estimate(1.0, half)}},
            "rewards": {"mean": 1.0, "variance": 4.0, "q25": 0.0, "q50": 1.0, "q75": 2.0},
            "curves": {
                "score": curve([1.0, 2.0, float(place)], half),
                "score_by_compute": curve([1.0, 2.0, float(place)], half),
                "loss/exploration": curve([-0.1, -0.2, -0.3], half),
                "loss/imitation": curve([0.5, 0.1, -0.2], half),
                "entropy": curve([1.0, 0.9, 0.8], half),
            },
        }
        for shift, regime in enumerate(("rarely", "often"))
        for place, name in enumerate(METHODS)
    ]
    return {
        "plan": {
            "name": "main",
            "title": "A made-up experiment",
            "description": "Numbers for tests.",
            "axes": {"method": list(METHODS), "regime": ["rarely", "often"]},
            "compared": "method",
            "metrics": {
                "score": {"label": "score", "unit": "points", "better": "higher"},
                "kl": {"label": "KL to the base", "unit": "nats", "better": "none"},
            },
        },
        "aggregates": aggregates,
        "differences": [
            {"axes": {"regime": "rarely"}, "metric": "score", "of": METHODS[-1], "less": name, **estimate(1.0, half)}
            for name in METHODS[:-1]
        ],
        "claims": [
            {"id": "a", "claim": "GRAO beats SFT", "source": "Table 1", "verdict": "holds", "effect": estimate(1.0),
             "unit": "points", "plan": "main", "rule": "above 0"},
            {"id": "b", "claim": "GRAO beats GRPO", "source": "Table 1", "verdict": "does not hold",
             "effect": estimate(-2.0), "unit": "points", "plan": "main", "rule": "above 0"},
            {"id": "c", "claim": "half the steps", "source": "Figure 2", "verdict": "undecided here",
             "effect": estimate(0.25, None, 1), "unit": "ratio", "plan": "main", "rule": "below 1"},
        ],
        "tuning": [
            {"axes": {"method": "SFT"}, "grid": [{"setting": {"rate": 0.001}, "value": 2.5},
             {"setting": {"rate": 0.003}, "value": 3.5}], "chosen": {"rate": 0.003}},
        ],
        "answers": {
            "prompts": ["what ?", [{"role": "user", "content": "who ?"}]],
            "categories": ["benign", "harmful"],
            "references": ["this .", "no ."],
            "reference_scores": [2.0, 3.0],
            "methods": {name: {"answers": ["a .", "b ."], "scores": [1.0, None]} for name in METHODS},
        },
        "provenance": {"seeds": [0, 1]},
    }  # fmt: skip


def write_json(folder: Path, name: str, content: Any) -> Path:
    """`folder/name` with this content; NaN and infinity as Python writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath(name).write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """The functions above, for tests."""
    return SimpleNamespace(
        HOSTILE=HOSTILE,
        METHODS=METHODS,
        group=group,
        metrics=metrics_of,
        estimate=estimate,
        comparison=comparison_record,
        curve=curve,
        experiment=experiment_record,
        write_json=write_json,
    )
