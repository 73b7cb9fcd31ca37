"""Checks of every promise of `grao.rollout.Engine`, for any engine. `test_engine_conformance.py` runs them.

The oracle is a plain forward of the whole sequence: no cache, no padding, no batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from grao.groups import Member
from grao.rollout import Engine, EngineError, SampleRequest, SamplingParams

PROMPTS = ((13, 44, 75), (20, 51, 82, 113, 144, 175), (27,), (34, 65, 96, 127, 158))


@dataclass(frozen=True)
class Subject:
    """An engine to check."""

    make: Callable[[Any, Any], Engine]
    """(model, tokenizer) → the engine, neither opened nor synced."""
    model: Any
    """A small random causal LM in float32, with more rows of embeddings than the tokenizer has ids."""
    tokenizer: Any

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """Open and sync an engine; close it at the end."""
        engine = self.make(self.model, self.tokenizer)
        engine.open()
        engine.sync(self.model, "0")
        try:
            yield engine
        finally:
            engine.close()

    @torch.no_grad()
    def logits(self, prompt: Sequence[int], ids: Sequence[int], model: Any = None) -> Tensor:
        """Return the logits [T, V] that each of these ids was drawn from."""
        whole = torch.tensor([[*prompt, *ids]])
        return (model or self.model)(input_ids=whole, use_cache=False).logits[0, len(prompt) - 1 : -1].float()


def requests(samples: int, prompts: Sequence[tuple[int, ...]] = PROMPTS) -> list[SampleRequest]:
    """Return one request per prompt, each seed different from all others."""
    return [SampleRequest(p, tuple(1000 * i + g for g in range(samples))) for i, p in enumerate(prompts)]


def pairs(
    engine: Engine, asked: Sequence[SampleRequest], params: SamplingParams
) -> list[tuple[SampleRequest, Member]]:
    """Sample; return each member beside its request."""
    sampled = engine.sample(asked, params)
    assert [len(members) for members in sampled] == [len(request.seeds) for request in asked]
    return [(request, member) for request, members in zip(asked, sampled, strict=True) for member in members]


def check_order(subject: Subject) -> None:
    """One member per seed, in order, in any batch. Oracle: each seed sampled alone (exact engines)."""
    counts = (3, 1, 0, 2)
    asked = [SampleRequest(p, tuple(range(50 * n, 51 * n))) for p, n in zip(PROMPTS, counts, strict=True)]
    params = SamplingParams(max_new_tokens=6)
    with subject.engine() as engine:
        together = engine.sample(asked, params)
        assert [len(members) for members in together] == [3, 1, 0, 2]
        if not engine.exact:
            return
        for request, members in zip(asked, together, strict=True):
            for seed, member in zip(request.seeds, members, strict=True):
                [(alone,)] = engine.sample([SampleRequest(request.prompt_ids, (seed,))], params)
                assert (member.ids, member.text, member.finish) == (alone.ids, alone.text, alone.finish)


def check_distribution(subject: Subject) -> None:
    """Seeds are independent draws from softmax(ℓ/τ). Oracle: E[log π] = −H within 5 standard errors, n = 600."""
    with subject.engine() as engine:
        for temperature in (1.0, 0.5):
            params = SamplingParams(max_new_tokens=1, temperature=temperature)
            drawn = pairs(engine, requests(600, PROMPTS[:1]), params)
            known = subject.logits(PROMPTS[0], [0])[0][: len(subject.tokenizer)] / temperature
            logprobs_V = known.log_softmax(-1)
            entropy = -float((logprobs_V.exp() * logprobs_V).sum())
            spread = math.sqrt(float((logprobs_V.exp() * (logprobs_V + entropy) ** 2).sum()))
            mean = sum(float(logprobs_V[member.ids[0]]) for _, member in drawn) / len(drawn)
            assert abs(mean + entropy) < 5 * spread / math.sqrt(len(drawn))
            assert len({member.ids for _, member in drawn}) > 10


def check_ends(subject: Subject) -> None:
    """Completions end with an end id, which is the last of the ids, or at the limit. Oracle: the definition."""
    before = subject.model.generation_config.eos_token_id
    eos, stops = tuple(range(60)), tuple(range(60, 120))  # about 0.4 per token
    subject.model.generation_config.eos_token_id = list(eos)
    try:
        with subject.engine() as engine:
            params = SamplingParams(max_new_tokens=4, stop_token_ids=stops)
            members = [member for _, member in pairs(engine, requests(12), params)]
    finally:
        subject.model.generation_config.eos_token_id = before
    ends = {*eos, *stops, subject.tokenizer.eos_token_id}
    for member in members:
        assert ends.isdisjoint(member.ids[:-1]), "nothing follows the end"
        assert 1 <= len(member.ids) <= 4
        assert member.finish == ("stop" if member.ids[-1] in ends else "length")
        assert member.finish == "stop" or len(member.ids) == 4
    assert {member.finish for member in members} == {"stop", "length"}
    assert {member.ids[-1] for member in members} & set(eos), "no completion holds its end-of-sequence id"
    assert {member.ids[-1] for member in members} & set(stops), "no completion holds its stop token"


def check_logprobs(subject: Subject) -> None:
    """Log-probs are log softmax(ℓ/τ) over the whole vocabulary, before truncation; at τ = 0, of τ = 1.

    Oracle: the plain forward, within 1e-4 nats for an exact engine, else 0.2.
    """
    tried = (
        SamplingParams(max_new_tokens=6),
        SamplingParams(max_new_tokens=6, temperature=0.7, top_k=5),
        SamplingParams(max_new_tokens=6, temperature=1.5, top_p=0.5, min_p=0.01),
        SamplingParams(max_new_tokens=6, temperature=0.0),
    )
    with subject.engine() as engine:
        for params in tried:
            for request, member in pairs(engine, requests(2), params):
                assert member.logprobs is not None
                assert len(member.logprobs) == len(member.ids)
                logits = subject.logits(request.prompt_ids, member.ids) / (params.temperature or 1.0)
                expected = logits.log_softmax(-1).gather(-1, torch.tensor(member.ids)[:, None])[:, 0]
                error = (torch.tensor(member.logprobs) - expected).abs().max().item()
                assert error < (1e-4 if engine.exact else 0.2), f"log-probs are {error:g} nats off at {params}"


def check_truncation(subject: Subject) -> None:
    """Only what top-k, top-p and min-p leave is drawn; at temperature 0, the likeliest. Oracle: the plain forward."""
    with subject.engine() as engine:
        slack = 1e-4 if engine.exact else 0.2

        def tokens(**settings: Any) -> Iterator[tuple[Tensor, int]]:
            params = SamplingParams(max_new_tokens=5, **settings)
            for request, member in pairs(engine, requests(3), params):
                logits_TV = subject.logits(request.prompt_ids, member.ids)[:, : len(subject.tokenizer)]
                yield from zip(logits_TV.log_softmax(-1), member.ids, strict=True)

        for logprobs_V, token in tokens(temperature=0.0):
            assert logprobs_V[token] >= logprobs_V.max() - slack
        for logprobs_V, token in tokens(top_k=3):
            assert logprobs_V[token] >= logprobs_V.topk(3).values[-1] - slack
        for logprobs_V, token in tokens(min_p=0.5):
            assert logprobs_V[token] >= logprobs_V.max() + math.log(0.5) - slack
        for logprobs_V, token in tokens(top_p=0.3):
            likelier = logprobs_V[logprobs_V > logprobs_V[token] + slack]
            assert likelier.exp().sum() < 0.3 + slack


def check_text(subject: Subject) -> None:
    """The text is the ids decoded without special tokens, up to the end of a stop string. Oracle: the tokenizer."""
    tokenizer = subject.tokenizer
    letters = tuple("abcdefghijklmnopqrst")
    with subject.engine() as engine:
        for _, member in pairs(engine, requests(4), SamplingParams(max_new_tokens=8)):
            assert member.text == tokenizer.decode(member.ids, skip_special_tokens=True)
        stopped = [m for _, m in pairs(engine, requests(8), SamplingParams(max_new_tokens=20, stop=letters))]
    for member in stopped:
        whole = tokenizer.decode(member.ids, skip_special_tokens=True)
        ends = [whole.index(letter) + 1 for letter in letters if letter in whole]
        assert member.text == whole[: min(ends, default=len(whole))]
        assert not any(s in tokenizer.decode(member.ids[:-1], skip_special_tokens=True) for s in letters)
        if ends:
            assert member.finish == "stop"
    assert any(member.text.endswith(letters) for member in stopped), "no completion met a stop string"


def check_known_ids(subject: Subject) -> None:
    """Ids without a token are never drawn. Oracle: the tokenizer's vocabulary; each would come with 1 in 300."""
    known = set(subject.tokenizer.get_vocab().values())
    with subject.engine() as engine:
        params = SamplingParams(max_new_tokens=16, temperature=3.0)
        drawn = [i for _, member in pairs(engine, requests(8), params) for i in member.ids]
    assert set(drawn) <= known


def check_refusals(subject: Subject) -> None:
    """Empty prompts and prompts too long for the model are refused. Oracle: the contract, at the limit itself."""
    positions = subject.model.config.max_position_embeddings
    long = tuple(13 for _ in range(positions - 3))
    with subject.engine() as engine:
        with pytest.raises(ValueError, match="empty"):
            engine.sample([*requests(1), SampleRequest((), (1,))], SamplingParams(max_new_tokens=2))
        with pytest.raises(ValueError, match=str(positions)):
            engine.sample([SampleRequest(long, (1,))], SamplingParams(max_new_tokens=4))
        assert pairs(engine, [SampleRequest(long, (1,))], SamplingParams(max_new_tokens=3))
        assert engine.sample([], SamplingParams()) == []


def check_sync(subject: Subject) -> None:
    """`sync` changes the weights that are sampled from. Oracle: the plain forward of the new ones; then as before."""
    other = copy.deepcopy(subject.model)
    with torch.no_grad():
        other.get_input_embeddings().weight.mul_(2.0)
    params = SamplingParams(max_new_tokens=5)
    with subject.engine() as engine:
        first = engine.sample(requests(2), params)
        engine.sync(other, "1")
        for request, member in pairs(engine, requests(2), params):
            expected = subject.logits(request.prompt_ids, member.ids, other).log_softmax(-1)
            expected = expected.gather(-1, torch.tensor(member.ids)[:, None])[:, 0]
            error = (torch.tensor(member.logprobs) - expected).abs().max().item()
            assert error < (1e-4 if engine.exact else 0.2), "not the log-probs of the synced weights"
        engine.sync(subject.model, "2")
        again = engine.sample(requests(2), params)
        assert [[m.ids for m in members] for members in again] == [[m.ids for m in members] for members in first]


def check_life_cycle(subject: Subject) -> None:
    """`open` and `close` may be repeated; a closed engine refuses to sample, and can be opened again."""
    engine, params = subject.make(subject.model, subject.tokenizer), SamplingParams(max_new_tokens=3)
    engine.open()
    engine.open()
    engine.sync(subject.model, "0")
    first = engine.sample(requests(2), params)
    engine.close()
    engine.close()
    with pytest.raises(EngineError):
        engine.sample(requests(2), params)
    engine.open()
    engine.sync(subject.model, "0")
    assert [m.ids for ms in engine.sample(requests(2), params) for m in ms] == [m.ids for ms in first for m in ms]
    engine.close()


def check_not_finite(subject: Subject) -> None:
    """Logits that are not finite raise FloatingPointError. Oracle: a weight that is NaN."""
    broken = copy.deepcopy(subject.model)
    with torch.no_grad():
        broken.get_input_embeddings().weight[13, 0] = torch.nan
    with subject.engine() as engine:
        engine.sync(broken, "1")
        with pytest.raises(FloatingPointError):
            engine.sample(requests(1), SamplingParams(max_new_tokens=2))


CHECKS = (
    check_order,
    check_distribution,
    check_ends,
    check_logprobs,
    check_truncation,
    check_text,
    check_known_ids,
    check_refusals,
    check_sync,
    check_life_cycle,
    check_not_finite,
)
