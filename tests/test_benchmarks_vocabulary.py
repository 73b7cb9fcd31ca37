"""What a vocabulary costs in memory: the arithmetic by hand, and the operating system's own count."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

LIMIT = 10**9
"""Bytes by which 152k words may grow the peak over 8k, beyond the embedding's weight, gradient and moments."""


@pytest.fixture
def vocabulary(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    return importlib.import_module("vocabulary")


def test_growth_leaves_out_the_embedding_and_what_training_keeps_of_it(vocabulary: Any) -> None:
    """By hand: 10 words more of 5 channels are 200 bytes, four times that is 800; of 1,000 bytes 200 are left."""
    small, large = (vocabulary.Case(words, hidden=5) for words in (20, 30))
    peaks = vocabulary.Peak(loaded=0, peak=7_000), vocabulary.Peak(loaded=0, peak=8_000)
    assert vocabulary.growth(large, peaks[1], small, peaks[0]) == 200


def test_both_ways_to_score_a_case_agree(vocabulary: Any) -> None:
    """The library's path against plain logits and torch's cross-entropy: they are measured on the same work."""
    from grao.policy import group_logprobs, install_scoring

    model = vocabulary.random_model(vocabulary.SHAPES["tiny"], seed=0)
    install_scoring(model)
    case = vocabulary.Case(vocabulary=320, groups=2, samples=3, prompt_tokens=5, tokens=4)
    batch = vocabulary.groups_of(case)
    assert int(batch.mask_PMT.sum()) == case.scored_tokens == 2 * 3 * 4
    with torch.no_grad():
        expected = vocabulary.logprobs_of_all_logits(model, batch)
        torch.testing.assert_close(group_logprobs(model, batch).logprobs_PMT, expected)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are counted by Linux")
def test_a_vocabulary_of_152k_adds_less_than_a_gigabyte(vocabulary: Any) -> None:
    """VmHWM of fresh processes. The control, all logits at once, shows that the count would see them: at 32k they
    are 4,096 · 32,768 · 4 bytes, and each of them exists with its gradient."""

    def grown(words: int, smallest: Any, **how: bool) -> int:
        case = vocabulary.Case(words, **how)
        assert case.scored_tokens == 4096
        return vocabulary.growth(case, vocabulary.measure(case, threads=1), *smallest)

    first = vocabulary.Case(8192)
    smallest = first, vocabulary.measure(first, threads=1)
    assert grown(151936, smallest) < LIMIT
    assert grown(32768, smallest, all_logits=True) > 2 * 4096 * (32768 - 8192) * 4
