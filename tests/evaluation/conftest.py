"""Small models, rows and scorers in a working directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

SCORERS = '''
"""Scorers for evaluations that are started from a configuration."""

from pathlib import Path


def vowels(completions, **columns):
    """Share of the characters that are vowels."""
    return [sum(c in "aeiou" for c in text) / max(len(text), 1) for text in completions]


def counted(prompts, completions, **columns):
    """As `vowels`; writes every prompt that it scores to asked.txt."""
    with Path("asked.txt").open("a") as file:
        file.write("".join(prompt + chr(10) for prompt in prompts))
    return vowels(completions)


def longer(completions, reference, **columns):
    """1, 0, -1: longer than, as long as, shorter than the reference."""
    pairs = zip(completions, reference, strict=True)
    return [float((len(c) > len(r)) - (len(c) < len(r))) for c, r in pairs]


longer.compares_with_reference = True


def noting(completions, log_metric, log_extra, **columns):
    """As `vowels`, with logged metrics and extras."""
    log_metric("judge/requests", float(len(completions)))
    log_metric("judge/cached_share", 0.5)
    log_extra("first", [text[:1] for text in completions])
    return vowels(completions)


def picky(prompts, completions, **columns):
    """Scores even rows only."""
    return [None if int(prompt.split()[1]) % 2 else 1.0 for prompt in prompts]


def outage(prompts, completions, **columns):
    """Fails for prompts from row 6 on while the file `down` exists."""
    if Path("down").exists() and any(int(prompt.split()[1]) >= 6 for prompt in prompts):
        raise ConnectionError("no reply")
    return counted(prompts, completions)
'''

TEXTS = ["row 0 has a question and an answer in words", "a few more words to learn from"] * 10


@pytest.fixture(scope="session")
def evaluation_models(tmp_path_factory: pytest.TempPathFactory, write_bpe_model: Callable[..., Path]) -> Path:
    """`base`; `moved`, the same with other weights; `words`, which has another tokenizer; `short`, of 40 positions."""
    folder = tmp_path_factory.mktemp("models")
    write_bpe_model(folder / "base", TEXTS, 280)
    write_bpe_model(folder / "moved", TEXTS, 280)
    write_bpe_model(folder / "words", TEXTS, 300)
    write_bpe_model(folder / "short", TEXTS, 280, max_position_embeddings=40)
    weights = folder / "moved" / "model.safetensors"
    generator = torch.Generator().manual_seed(1)
    state = {name: w + 0.02 * torch.randn(w.shape, generator=generator) for name, w in load_file(weights).items()}
    save_file(state, weights, metadata={"format": "pt"})
    return folder


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluation_models: Path, request: pytest.FixtureRequest
) -> Path:
    """A working directory with models, ten rows of two categories, and its own module of scorers."""
    (tmp_path / "models").symlink_to(evaluation_models)
    rows = [
        {
            "prompt": f"row {i} has a question",
            "reference": "an answer" * (1 + i % 3),
            "category": "odd" if i % 2 else "even",
        }
        for i in range(10)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    module = f"scorers_{abs(hash(request.node.nodeid))}"  # unique: those of other tests are imported already
    (tmp_path / f"{module}.py").write_text(SCORERS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def scorer(bench: Path) -> Callable[[str], str]:
    """The dotted path of one of the scorers."""
    module = next(bench.glob("scorers_*.py")).stem
    return lambda name: f"{module}:{name}"


@pytest.fixture
def described(scorer: Callable[[str], str]) -> dict[str, Any]:
    """A small evaluation as a YAML mapping, for tests to change."""
    return {
        "models": [{"name": "base", "path": "models/base"}, {"name": "moved", "path": "models/moved"}],
        "data": {"source": "rows.jsonl"},
        "rewards": [{"path": scorer("counted")}],
        "sampling": {"max_new_tokens": 8, "num_samples": 2},
        "batch": 4,
        "output_dir": "evaluation",
    }
