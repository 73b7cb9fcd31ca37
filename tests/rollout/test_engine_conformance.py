"""The conformance suite on the local engine, on one written here, and on engines that break one promise each."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tests.rollout import engine_conformance as suite
from tests.rollout.engine_conformance import CHECKS, Subject
from torch import Tensor
from transformers import PreTrainedModel

from grao import GRAO, Rollout, align
from grao.groups import Member
from grao.rollout import EngineError, LocalEngine, LocalEngineConfig, SampleRequest, SamplingParams
from grao.rollout.engine import check_lengths
from grao.rollout.stopping import eos_ids


class GenerateEngine:
    """An engine in 40 lines: `generate` of transformers, one completion at a time."""

    exact = True
    is_open = False

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def open(self) -> None:
        self.is_open = True

    def sync(self, model: Any, version: str) -> None:
        self.model = model

    def close(self) -> None:
        self.is_open = False

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[tuple[Member, ...]]:
        if not self.is_open:
            raise EngineError("The engine is closed.")
        check_lengths(requests, params.max_new_tokens, self.model.config.max_position_embeddings)
        return [tuple(self._one(r.prompt_ids, seed, params) for seed in r.seeds) for r in requests]

    def _one(self, prompt: tuple[int, ...], seed: int, params: SamplingParams) -> Member:
        ends = [*eos_ids(self.model, self.tokenizer), *params.stop_token_ids]
        how = {name: getattr(params, name) for name in ("temperature", "top_k", "top_p", "min_p")}
        how |= {"eos_token_id": ends, "pad_token_id": 0, "tokenizer": self.tokenizer}
        how |= {"stop_strings": list(params.stop)} if params.stop else {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            out = self.model.generate(
                torch.tensor([prompt]), max_new_tokens=params.max_new_tokens, do_sample=params.temperature > 0, **how,
                logits_processor=[self._known], return_dict_in_generate=True, output_logits=True,
            )  # fmt: skip
        ids = out.sequences[0, len(prompt) :].tolist()
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        found = [text.index(s) + len(s) for s in params.stop if s in text]
        logprobs_TV = (torch.cat(out.logits) / (params.temperature or 1.0)).log_softmax(-1)
        logprobs = tuple(row[i].item() for row, i in zip(logprobs_TV, ids, strict=True))
        finish = "stop" if found or ids[-1] in ends else "length"
        return Member(tuple(ids), text[: min(found, default=len(text))], finish, logprobs)

    def _known(self, ids: Tensor, scores: Tensor) -> Tensor:
        if not scores.isfinite().all():
            raise FloatingPointError("The logits are not finite.")
        return scores.index_fill(1, torch.arange(len(self.tokenizer), scores.shape[1]), -torch.inf)


def generate(model: Any, tokenizer: Any) -> GenerateEngine:
    return GenerateEngine(tokenizer)


def any_id(model: Any, tokenizer: Any) -> GenerateEngine:
    return AnyId(tokenizer)


def rounded(model: Any, tokenizer: Any) -> LocalEngine:
    return LocalEngineConfig(dtype="bfloat16").make(model, tokenizer)


ENGINES: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "local": (LocalEngine, "qwen3"),
    "local, without shared prompts": (LocalEngine, "qwen3_next"),
    "local, without packed weights, two rows": (partial(LocalEngine, packed=False, max_rows=2), "llama"),
    "local, in bfloat16": (rounded, "llama"),
    "generate": (generate, "llama"),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("engine", ENGINES)
def test_conformance(
    engine: str, check: Callable[[Subject], None], build: Callable[..., PreTrainedModel], tokenizer: Any
) -> None:
    """Oracle: stated by each check."""
    make, family = ENGINES[engine]
    check(Subject(make, build(family), tokenizer))


# --- every promise, broken once --------------------------------------------------------------------------------------

Members = list[tuple[Member, ...]]


class Broken(LocalEngine):
    """Breaks one promise: `change` edits members, `ask` the requests and parameters."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        change: Callable[[Member, SamplingParams, Any], Member] = lambda member, params, tokenizer: member,
        ask: Callable[..., tuple[Sequence[SampleRequest], SamplingParams]] = lambda requests, params: (
            requests,
            params,
        ),
    ) -> None:
        super().__init__(model, tokenizer)
        self.change, self.ask = change, ask

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> Members:
        sampled = super().sample(*self.ask(requests, params))
        return [tuple(self.change(member, params, self.tokenizer) for member in members) for members in sampled]


class Reversed(LocalEngine):
    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> Members:
        return [members[::-1] for members in super().sample(requests, params)]


class Sorted(LocalEngine):
    """Answers short prompts first."""

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> Members:
        return super().sample(sorted(requests, key=lambda r: len(r.prompt_ids)), params)


class Stale(LocalEngine):
    def sync(self, model: Any, version: str) -> None:
        if not hasattr(self, "model"):
            super().sync(model, version)


class NeverClosed(LocalEngine):
    def close(self) -> None: ...


class ClosedForGood(LocalEngine):
    def open(self) -> None: ...


class IgnoresNaN(LocalEngine):
    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> Members:
        try:
            return super().sample(requests, params)
        except FloatingPointError:
            return [tuple(Member((0,), "", "length", (0.0,)) for _ in r.seeds) for r in requests]


class AnyId(GenerateEngine):
    def _known(self, ids: Tensor, scores: Tensor) -> Tensor:
        return scores


def without_end(member: Member, params: SamplingParams, tokenizer: Any) -> Member:
    cut = member.finish == "stop" and len(member.ids) > 1
    return replace(member, ids=member.ids[:-1], logprobs=(member.logprobs or ())[:-1]) if cut else member


def of_temperature_one(member: Member, params: SamplingParams, tokenizer: Any) -> Member:
    return replace(member, logprobs=tuple(x * (params.temperature or 1.0) for x in member.logprobs or ()))


def of_what_is_left(member: Member, params: SamplingParams, tokenizer: Any) -> Member:
    renormalised = tuple(x + 0.01 for x in member.logprobs or ()) if params.top_k else member.logprobs
    return replace(member, logprobs=renormalised)


def uncut(member: Member, params: SamplingParams, tokenizer: Any) -> Member:
    return replace(member, text=tokenizer.decode(member.ids, skip_special_tokens=True) + " ")


def seeds_of_places(requests: Sequence[SampleRequest], params: SamplingParams) -> Any:
    return [replace(r, seeds=tuple(1000 * i + g for g in range(len(r.seeds)))) for i, r in enumerate(requests)], params


def one_seed(requests: Sequence[SampleRequest], params: SamplingParams) -> Any:
    return [replace(r, seeds=(0,) * len(r.seeds)) for r in requests], params


def shortened(requests: Sequence[SampleRequest], params: SamplingParams) -> Any:
    return [replace(r, prompt_ids=r.prompt_ids[-50:]) for r in requests], params


def started(requests: Sequence[SampleRequest], params: SamplingParams) -> Any:
    return [replace(r, prompt_ids=r.prompt_ids or (1,)) for r in requests], params


BROKEN: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Subject], None]]] = {
    "members in another order": (Reversed, suite.check_order),
    "requests in another order": (Sorted, suite.check_order),
    "draws depend on the batch": (partial(Broken, ask=seeds_of_places), suite.check_order),
    "one seed for all": (partial(Broken, ask=one_seed), suite.check_distribution),
    "another temperature": (
        partial(Broken, ask=lambda r, params: (r, replace(params, temperature=1.0))),
        suite.check_distribution,
    ),
    "ids without the end": (partial(Broken, change=without_end), suite.check_ends),
    "stop tokens ignored": (
        partial(Broken, ask=lambda r, params: (r, replace(params, stop_token_ids=()))),
        suite.check_ends,
    ),
    "one token too few": (
        partial(Broken, ask=lambda r, params: (r, replace(params, max_new_tokens=max(1, params.max_new_tokens - 1)))),
        suite.check_ends,
    ),
    "always stopped": (
        partial(Broken, change=lambda m, *_: replace(m, finish="stop")),
        suite.check_ends,
    ),
    "log-probs of temperature 1": (partial(Broken, change=of_temperature_one), suite.check_logprobs),
    "log-probs after truncation": (partial(Broken, change=of_what_is_left), suite.check_logprobs),
    "no log-probs": (
        partial(Broken, change=lambda m, *_: replace(m, logprobs=None)),
        suite.check_logprobs,
    ),
    "top-k ignored": (
        partial(Broken, ask=lambda r, params: (r, replace(params, top_k=0))),
        suite.check_truncation,
    ),
    "top-p ignored": (
        partial(Broken, ask=lambda r, params: (r, replace(params, top_p=1.0))),
        suite.check_truncation,
    ),
    "min-p ignored": (
        partial(Broken, ask=lambda r, params: (r, replace(params, min_p=0.0))),
        suite.check_truncation,
    ),
    "greedy ignored": (
        partial(Broken, ask=lambda r, p: (r, replace(p, temperature=p.temperature or 1.0))),
        suite.check_truncation,
    ),
    "other text": (partial(Broken, change=uncut), suite.check_text),
    "stop strings ignored": (
        partial(Broken, ask=lambda r, params: (r, replace(params, stop=()))),
        suite.check_text,
    ),
    "ids without a token": (any_id, suite.check_known_ids),
    "long prompts cut": (partial(Broken, ask=shortened), suite.check_refusals),
    "empty prompts filled": (partial(Broken, ask=started), suite.check_refusals),
    "the first weights for ever": (Stale, suite.check_sync),
    "samples though closed": (NeverClosed, suite.check_life_cycle),
    "cannot be opened again": (ClosedForGood, suite.check_life_cycle),
    "NaN not reported": (IgnoresNaN, suite.check_not_finite),
}


@pytest.mark.parametrize("flaw", BROKEN)
def test_a_broken_promise_is_caught(flaw: str, build: Callable[..., PreTrainedModel], tokenizer: Any) -> None:
    """Oracle: planted; each engine breaks one promise, and its check fails."""
    make, check = BROKEN[flaw]
    # pytest's own failure ("DID NOT RAISE") is no Exception.
    with pytest.raises((AssertionError, EngineError, pytest.fail.Exception)):
        check(Subject(make, build("llama"), tokenizer))


def test_every_check_catches_something() -> None:
    """Oracle: the lists themselves."""
    assert {check for _, check in BROKEN.values()} == set(CHECKS)


# --- and it trains ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_engine_of_another_library_trains(
    tmp_path: Path, build: Callable[..., PreTrainedModel], tokenizer: Any
) -> None:
    """Oracle: the engine's log-probs equal the policy's at every step: each step samples from the current weights."""
    build("llama").save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    engine = GenerateEngine(tokenizer)
    run = align(
        str(tmp_path / "base"),
        [{"prompt": "ab", "reference": "c"}, {"prompt": "de", "reference": "the"}],
        objective=GRAO(),
        rewards=[length],
        rollout=Rollout(max_new_tokens=6, num_generations=3),
        engine=engine,
        output_dir=str(tmp_path / "run"),
        max_steps=3,
        learning_rate=1e-2,
        per_device_train_batch_size=2,
        save_strategy="no",
        use_cpu=True,
        console=Console(file=io.StringIO()),
    )
    logged = [line for line in run.trainer.state.log_history if "loss" in line]
    assert len(logged) == 3
    assert all(line["sampling/logprob_difference"] < 1e-5 for line in logged)
    assert not engine.is_open
    assert re.search("GenerateEngine", (tmp_path / "run/config.yaml").read_text(encoding="utf-8"))


def length(completions: Sequence[str], **columns: Any) -> list[float]:
    return [float(len(completion)) for completion in completions]
