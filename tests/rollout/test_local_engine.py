from __future__ import annotations

import copy
import logging
import math
import random
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import numpy as np
import peft
import pytest
import torch
from accelerate.utils import convert_outputs_to_fp32
from transformers import LlamaConfig, LlamaForCausalLM

from grao.compat.torch_packed_linear import packed_linears
from grao.compat.transformers_attention import AttentionRefusedError
from grao.policy import install_scoring
from grao.rollout import LocalEngine, SampleRequest, SamplingParams, local_engine
from grao.rollout.decoder import GroupDecoder
from grao.rollout.decoding_loop import sample_completions

# Some models compute a part in float32 whatever their dtype is: eager attention's softmax, a router, a recurrence.
FLOAT64_TOLERANCE = {"gemma2": 1e-6, "deepseek_v3": 1e-6, "qwen3_next": 2e-6}


def drawn(engine: LocalEngine, requests: list[SampleRequest], params: SamplingParams) -> list[list[tuple[int, ...]]]:
    return [[member.ids for member in members] for members in engine.sample(requests, params)]


def check_logprobs(model, requests, samples, temperature, teacher_forced, tolerance, dtype=torch.float32) -> None:
    for request, members in zip(requests, samples, strict=True):
        for member in members:
            found = torch.tensor(member.logprobs, dtype=dtype)
            expected = teacher_forced(model, request.prompt_ids, member, temperature)
            torch.testing.assert_close(found, expected.to(dtype), rtol=0, atol=tolerance)


class TestLogprobs:
    def test_float32(self, family, build, ask, tokenizer, teacher_forced) -> None:
        """Oracle: a plain full forward of each prompt with its sample; prompts of uneven length, every family."""
        model, requests = build(family), ask([3, 17, 9], 3)
        samples = LocalEngine(model, tokenizer).sample(requests, SamplingParams(max_new_tokens=14, temperature=0.7))
        check_logprobs(model, requests, samples, 0.7, teacher_forced, tolerance=2e-6)

    def test_float64(self, family, build, ask, tokenizer, teacher_forced) -> None:
        """Oracle: the same in float64, where what is left is no round-off."""
        model, requests = build(family, torch.float64), ask([3, 17, 9], 3)
        samples = LocalEngine(model, tokenizer).sample(requests, SamplingParams(max_new_tokens=14, temperature=0.7))
        tolerance = FLOAT64_TOLERANCE.get(family, 1e-9)
        check_logprobs(model, requests, samples, 0.7, teacher_forced, tolerance, torch.float64)

    def test_the_oracle_sees_the_prompt(self, family, build, ask, tokenizer, teacher_forced) -> None:
        """Oracle: negative control; another prompt of the same length gives log-probs that differ by over 0.01."""
        model, [request] = build(family), ask([9], 1)
        [[member]] = LocalEngine(model, tokenizer).sample([request], SamplingParams(max_new_tokens=5))
        other = [(token + 50) % 256 for token in request.prompt_ids]
        expected = teacher_forced(model, other, member)
        assert (torch.tensor(member.logprobs) - expected).abs().max() > 0.01

    def test_adapters(self, build, ask, tokenizer, teacher_forced) -> None:
        """Oracle: a plain full forward through the adapters; and without them, which differs."""
        with torch.random.fork_rng():
            torch.manual_seed(1)
            lora = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
            model = peft.get_peft_model(build("qwen3"), lora).eval()
        requests = ask([3, 8], 2)
        samples = LocalEngine(model, tokenizer).sample(requests, SamplingParams(max_new_tokens=10))
        check_logprobs(model, requests, samples, 1.0, teacher_forced, tolerance=2e-6)
        with model.disable_adapter():
            without = teacher_forced(model, requests[0].prompt_ids, samples[0][0])
        assert (torch.tensor(samples[0][0].logprobs) - without).abs().max() > 0.01

    def test_a_padded_vocabulary(self, build, ask, tokenizer, teacher_forced) -> None:
        """Oracle: a plain full forward, whose softmax includes the ids that no token has, though none is drawn."""
        model, known = build("qwen3", torch.float64), len(tokenizer)
        with torch.no_grad():
            model.lm_head.weight[known:] *= 8  # likely ids, were they allowed
        requests = ask([3, 8], 8)
        for params in (SamplingParams(max_new_tokens=10), SamplingParams(max_new_tokens=10, temperature=0.0)):
            samples = LocalEngine(model, tokenizer).sample(requests, params)
            assert max(token for members in samples for member in members for token in member.ids) < known
            check_logprobs(model, requests, samples, 1.0, teacher_forced, 1e-9, torch.float64)
        with torch.no_grad():  # of 160 draws none would be such an id with a probability below 1e-15
            logits = model(torch.tensor([requests[0].prompt_ids])).logits[0, -1]
        assert logits.softmax(-1)[known:].sum() > 0.2

    def test_under_autocast(self, qwen, ask, tokenizer, teacher_forced) -> None:
        """Oracle: a plain full forward under the same autocast, to 4 units of bfloat16's last place at 4."""
        requests = ask([9, 9], 2)
        with torch.autocast("cpu", torch.bfloat16):
            samples = LocalEngine(qwen, tokenizer).sample(requests, SamplingParams(max_new_tokens=8))
            check_logprobs(qwen, requests, samples, 1.0, teacher_forced, tolerance=4 * 2.0**-6)
        exact = teacher_forced(qwen, requests[0].prompt_ids, samples[0][0])
        assert (torch.tensor(samples[0][0].logprobs) - exact).abs().max() > 1e-4  # it was not ignored

    @pytest.mark.parametrize("family", ["qwen3", "gemma2", "deepseek_v3"])
    def test_of_rounded_weights(self, family, build, ask, tokenizer, teacher_forced) -> None:
        """Oracle: identity, an engine of a copy with rounded weights; a plain full forward of it, to bfloat16's
        rounding; and the log-probs of the weights as they are, which differ."""
        model, requests, params = build(family), ask([3, 17, 9], 3), SamplingParams(max_new_tokens=8)
        rounded = copy.deepcopy(model)
        for p in rounded.parameters():  # not its buffers
            p.data = p.data.bfloat16()
        before = {name: x.clone() for name, x in model.state_dict().items()}
        samples = LocalEngine(model, tokenizer, dtype=torch.bfloat16).sample(requests, params)
        assert samples == LocalEngine(rounded, tokenizer).sample(requests, params)
        check_logprobs(rounded, requests, samples, 1.0, teacher_forced, tolerance=8 * 2.0**-6)
        exact = teacher_forced(model, requests[0].prompt_ids, samples[0][0])
        assert (torch.tensor(samples[0][0].logprobs) - exact).abs().max() > 1e-4
        assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


class TestSharedPrompts:
    """A model that can keep its prompts once does, and draws the same as one that copies them."""

    LENGTHS = (3, 17, 9, 5, 12)
    PARAMS = SamplingParams(max_new_tokens=24, temperature=0.8)

    @pytest.fixture
    def decoders(self, monkeypatch) -> list[str]:
        """The kinds of decoders that samples are drawn with; a check makes its own."""
        kinds: list[str] = []

        def watched(decoder, *others, **options):
            kinds.append(type(decoder).__name__)
            return sample_completions(decoder, *others, **options)

        monkeypatch.setattr(local_engine, "sample_completions", watched)
        return kinds

    @pytest.mark.usefixtures("float64_throughout")
    def test_draws(self, family, shares_prompts, build, ask, tokenizer, decoders, monkeypatch) -> None:
        """Oracle: padded rows in float64; prompts shorter and longer than windows, samples of many lengths, all at
        once and twelve at a time; and the table of families."""
        model, requests = build(family, torch.float64), ask(self.LENGTHS, 4)
        model.generation_config.eos_token_id = list(range(0, 256, 16))
        samples = LocalEngine(model, tokenizer).sample(requests, self.PARAMS)
        refilled = LocalEngine(model, tokenizer, max_rows=12).sample(requests, self.PARAMS)
        assert decoders == ["GroupDecoder" if shares_prompts else "PaddedDecoder"] * 2

        def refuse(_):
            raise AttentionRefusedError("the test says so")

        monkeypatch.setattr(local_engine, "check_group_decoder", refuse)
        expected = LocalEngine(model, tokenizer).sample(requests, self.PARAMS)
        assert decoders[2:] == ["PaddedDecoder"]
        for found in (samples, refilled):
            for members, others in zip(found, expected, strict=True):
                for member, other in zip(members, others, strict=True):
                    assert member.ids == other.ids
                    assert member.logprobs == pytest.approx(other.logprobs, abs=1e-11)
        assert len({len(member.ids) for members in samples for member in members}) > 4

    def test_under_autocast(self, family, shares_prompts, build, ask, tokenizer, decoders) -> None:
        """Oracle: the table of families; a trainer in mixed precision samples under autocast."""
        with torch.autocast("cpu", torch.bfloat16):
            LocalEngine(build(family), tokenizer).sample(ask([3], 1), SamplingParams(max_new_tokens=2))
        assert decoders == ["GroupDecoder" if shares_prompts else "PaddedDecoder"]

    def test_a_forward_that_brings_its_own_autocast(self, qwen, ask, tokenizer, decoders, teacher_forced) -> None:
        """Oracle: a plain full forward, to bfloat16's rounding; accelerate wraps a model so, and a trainer that
        samples is under autocast beside. Logits are float32 then, and rounded nevertheless."""
        qwen.forward = convert_outputs_to_fp32(torch.autocast("cpu", torch.bfloat16)(qwen.forward))
        requests = ask([3, 9], 2)
        with torch.autocast("cpu", torch.bfloat16):
            samples = LocalEngine(qwen, tokenizer).sample(requests, SamplingParams(max_new_tokens=8))
        assert decoders == ["GroupDecoder"]
        check_logprobs(qwen, requests, samples, 1.0, teacher_forced, tolerance=4 * 2.0**-6)

    def test_with_adapters_and_scoring(self, qwen, ask, tokenizer, decoders) -> None:
        """Oracle: the decoder's kind, for a model as a trainer has it: taught to score, LoRA around it, training."""
        install_scoring(qwen)
        with torch.random.fork_rng():
            model = peft.get_peft_model(qwen, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"])).train()
        LocalEngine(model, tokenizer).sample(ask([3], 1), SamplingParams(max_new_tokens=2))
        assert decoders == ["GroupDecoder"]


def test_frequencies(build, ask, tokenizer) -> None:
    """Oracle: χ² of 4,000 draws of two tokens against the model's own distribution, by plain forwards; its 0.999
    quantile at 8 degrees of freedom is 26.124 (NIST/SEMATECH e-Handbook, table 1.3.6.7.4). And against that of another
    temperature, which it must exceed."""
    model, known, n = build("qwen3"), len(tokenizer), 4_000
    [request] = ask([9], n)
    params = SamplingParams(max_new_tokens=2, temperature=2.0, top_k=3)
    [members] = LocalEngine(model, _without_eos(tokenizer)).sample([request], params)

    @torch.no_grad()
    def following(ids: tuple[int, ...], temperature: float) -> dict[int, float]:
        scores, tokens = model(torch.tensor([ids])).logits[0, -1, :known].topk(3)
        return dict(zip(tokens.tolist(), (scores / temperature).double().softmax(-1).tolist(), strict=True))

    observed = Counter(member.ids for member in members)
    for temperature, fits in ((2.0, True), (1.0, False)):
        expected = {
            (first, second): n * p * q
            for first, p in following(request.prompt_ids, temperature).items()
            for second, q in following((*request.prompt_ids, first), temperature).items()
        }
        assert len(expected) == 9
        assert min(expected.values()) > 5
        assert set(observed) <= set(expected)
        assert (sum((observed[pair] - e) ** 2 / e for pair, e in expected.items()) < 26.124) == fits


class TestIndependence:
    """The same request gives the same samples in any batch."""

    LENGTHS = (3, 17, 9, 5, 12)
    PARAMS = SamplingParams(max_new_tokens=24, temperature=0.8)

    @pytest.fixture
    def model(self, qwen):
        qwen.generation_config.eos_token_id = list(range(0, 256, 16))  # samples of many lengths
        return qwen

    @pytest.fixture
    def alone(self, model, ask, tokenizer) -> list[list[tuple[int, ...]]]:
        engine = LocalEngine(model, tokenizer)
        return [drawn(engine, [request], self.PARAMS)[0] for request in ask(self.LENGTHS, 4)]

    def test_in_a_batch(self, model, alone, ask, tokenizer) -> None:
        """Oracle: each request sampled alone; here all at once, padded, in both orders, in chunks, with twins."""
        requests = ask(self.LENGTHS, 4)
        assert len({len(ids) for members in alone for ids in members}) > 5
        assert drawn(LocalEngine(model, tokenizer), requests, self.PARAMS) == alone
        assert drawn(LocalEngine(model, tokenizer), requests[::-1], self.PARAMS) == alone[::-1]
        assert drawn(LocalEngine(model, tokenizer, max_rows=8), requests, self.PARAMS) == alone
        assert drawn(LocalEngine(model, tokenizer, max_rows=1), requests, self.PARAMS) == alone
        assert drawn(LocalEngine(model, tokenizer, max_batch_tokens=300), requests, self.PARAMS) == alone
        assert drawn(LocalEngine(model, tokenizer), [requests[1], requests[1]], self.PARAMS) == [alone[1]] * 2

    @pytest.mark.parametrize(("share", "compacts"), [(0.01, True), (1 / 8, True), (1.0, False), (2.0, False)])
    def test_with_and_without_compaction(self, model, alone, ask, tokenizer, monkeypatch, share, compacts) -> None:
        """Oracle: each request sampled alone; finished rows taken out one by one, in bunches, and never."""
        sizes: list[int] = []
        keep = GroupDecoder.keep
        monkeypatch.setattr(GroupDecoder, "keep", lambda self, rows: (sizes.append(len(rows)), keep(self, rows))[1])
        engine = LocalEngine(model, tokenizer, compact_share=share)
        assert drawn(engine, ask(self.LENGTHS, 4), self.PARAMS) == alone
        assert (len(sizes) > 1) == compacts  # the last lets all go
        assert all(after <= (1 - share) * before for before, after in pairwise([20, *sizes[:-1]]))

    @pytest.mark.parametrize("name", ["gemma3", "mistral_window", "deepseek_v3", "gpt2", "qwen3_next"])
    def test_other_caches(self, name, build, ask, tokenizer) -> None:
        """Oracle: each request sampled alone; windows, recurrent states and latent attention, compacted too."""
        model = build(name)
        model.generation_config.eos_token_id = list(range(0, 256, 16))
        requests = ask(self.LENGTHS, 4)
        engine = LocalEngine(model, tokenizer)
        assert drawn(engine, requests, self.PARAMS) == [drawn(engine, [r], self.PARAMS)[0] for r in requests]

    def test_members_are_independent(self, qwen, tokenizer) -> None:
        """Oracle: identity; a seed draws the same beside other seeds, fewer seeds, and none twice the same."""
        engine, prompt = LocalEngine(qwen, tokenizer), (1, 2, 3)
        [many] = drawn(engine, [SampleRequest(prompt, tuple(range(8)))], self.PARAMS)
        [two] = drawn(engine, [SampleRequest(prompt, (5, 2))], self.PARAMS)
        assert two == [many[5], many[2]]
        assert len(set(many)) == 8

    def test_a_longer_limit_goes_on(self, qwen, ask, tokenizer) -> None:
        """Oracle: identity; what is drawn under a limit is the beginning of what is drawn under a longer one."""
        engine = LocalEngine(qwen, tokenizer)
        [short] = drawn(engine, ask([5], 3), SamplingParams(max_new_tokens=7))
        [long] = drawn(engine, ask([5], 3), SamplingParams(max_new_tokens=30))
        assert short == [ids[:7] for ids in long]


@pytest.fixture(scope="module")
def counting_model(build):
    """A model that has learnt to count upwards in ones, twos or threes and to end after 60: it has no ties."""
    model = build("qwen3").train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    rows = [[*range(start, 62, by), 60 + by] for by in (1, 2, 3) for start in range(12)]
    length = max(map(len, rows))
    ids = torch.tensor([row + [-100] * (length - len(row)) for row in rows])
    for _ in range(60):
        optimiser.zero_grad()
        model(input_ids=ids.clamp(min=0), labels=ids).loss.backward()
        optimiser.step()
    return model.eval()


@pytest.mark.parametrize(("max_rows", "joins"), [(256, 1), (4, 4)])
def test_greedy_is_what_transformers_generates(counting_model, tokenizer, monkeypatch, max_rows, joins) -> None:
    """Oracle: transformers' generate without sampling, on uneven prompts; some rows end, some meet the limit.

    Here with several samples a prompt, packed weights, each prompt kept once, all at once and four rows at a time.
    """
    counting_model.generation_config.eos_token_id = [61, 62, 63]
    prompts = [(3, 4, 5), (1, 3, 5, 7, 9, 11), (40, 43, 46, 49), (50, 51, 52, 53, 54, 55, 56), (2, 5)]
    padded = torch.tensor([[0] * (7 - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (7 - len(p)) + [1] * len(p) for p in prompts])
    expected = counting_model.generate(
        input_ids=padded, attention_mask=mask, do_sample=False, max_new_tokens=20, pad_token_id=0
    )[:, 7:].tolist()

    packed: list[int] = []

    @contextmanager
    def counted(model):
        with packed_linears(model) as count:
            packed.append(count)
            yield count

    monkeypatch.setattr(local_engine, "packed_linears", counted)
    joined: list[list[int]] = []
    join = GroupDecoder.join
    monkeypatch.setattr(
        GroupDecoder, "join", lambda self, prompts, counts: (joined.append(counts), join(self, prompts, counts))[1]
    )
    requests = [
        SampleRequest(prompt, tuple(range(count))) for prompt, count in zip(prompts, (3, 1, 2, 4, 2), strict=True)
    ]
    samples = LocalEngine(counting_model, tokenizer, max_rows=max_rows).sample(
        requests, SamplingParams(max_new_tokens=20, temperature=0.0)
    )
    for row, members in zip(expected, samples, strict=True):
        for member in members:
            assert list(member.ids) == row[: len(member.ids)]
            assert not any(row[len(member.ids) :])
            assert member.finish == ("stop" if member.ids[-1] in (61, 62, 63) else "length")
    assert {member.finish for members in samples for member in members} == {"stop", "length"}
    with packed_linears(torch.nn.Linear(4, 4)) as packs:
        checks = 1 + packs  # of groups and, where there is oneDNN, of fused steps
    assert sum(sum(counts) for counts in joined[checks:]) == 12  # all through the cache of groups
    assert len(joined) == checks + joins
    assert packed == [] if packs else packed == [0]  # fused steps pack by themselves


class TestEnds:
    def test_several_end_ids(self, qwen, ask, tokenizer) -> None:
        """Oracle: the same draw without ends, cut by hand after its first end id; the model's, the tokenizer's and
        those that the caller adds (a chat template's end of turn)."""
        params = SamplingParams(max_new_tokens=30)
        eos = {7, 100, 200, tokenizer.eos_token_id}
        with torch.no_grad():
            qwen.lm_head.weight[tokenizer.eos_token_id] = qwen.lm_head.weight[100]  # as likely as that one
        free = LocalEngine(qwen, _without_eos(tokenizer)).sample(ask([4, 9], 40), params)
        qwen.generation_config.eos_token_id = [7, 100]
        ended = LocalEngine(qwen, tokenizer).sample(ask([4, 9], 40), replace(params, stop_token_ids=(200,)))
        for whole, member in zip(sum(free, ()), sum(ended, ()), strict=True):
            end = next((n + 1 for n, token in enumerate(whole.ids) if token in eos), None)
            assert member.ids == whole.ids[:end]
            assert member.logprobs == pytest.approx(whole.logprobs[:end], abs=2e-6)
            assert member.finish == ("length" if end is None else "stop")
            assert member.text == tokenizer.decode(member.ids, skip_special_tokens=True)
        assert eos == {member.ids[-1] for member in sum(ended, ()) if member.finish == "stop"}

    def test_an_end_at_the_limit_is_a_stop(self, qwen, ask, tokenizer) -> None:
        """Oracle: the definition; the last allowed token is an end id, so the completion is whole."""
        [[free]] = LocalEngine(qwen, tokenizer).sample(ask([4], 1), SamplingParams(max_new_tokens=6))
        assert free.finish == "length"
        qwen.generation_config.eos_token_id = free.ids[-1]
        assert free.ids[-1] not in free.ids[:-1]
        [[member]] = LocalEngine(qwen, tokenizer).sample(ask([4], 1), SamplingParams(max_new_tokens=6))
        assert (member.ids, member.finish) == (free.ids, "stop")

    def test_stop_strings(self, qwen, ask, tokenizer) -> None:
        """Oracle: the same draws without stop strings, cut by a plain loop that decodes after every token."""
        requests, params = ask([4, 9], 12), SamplingParams(max_new_tokens=30)
        engine = LocalEngine(qwen, _without_eos(tokenizer))
        free = sum(engine.sample(requests, params), ())
        # Two characters from the middle of some of the texts, as a stop string of each run.
        stops = {free[i].text[j : j + 2] for i in range(0, 24, 4) for j in (5, 11)}
        stops = sorted(s for s in stops if s.isascii() and len(s) == 2)
        assert len(stops) > 3
        for stop in stops:
            params = SamplingParams(max_new_tokens=30, stop=(stop, "never drawn"))
            stopped = sum(engine.sample(requests, params), ())
            assert any(member.finish == "stop" for member in stopped)
            for whole, member in zip(free, stopped, strict=True):
                texts = [tokenizer.decode(whole.ids[:n], skip_special_tokens=True) for n in range(1, 31)]
                end = next((n for n, text in enumerate(texts, 1) if stop in text), None)
                assert member.ids == whole.ids[:end]
                assert len(member.logprobs) == len(member.ids)
                cut = whole.text if end is None else texts[end - 1].partition(stop)[0] + stop
                assert (member.text, member.finish) == (cut, "length" if end is None else "stop")

    def test_a_special_token_as_stop_string(self, qwen, ask, tokenizer) -> None:
        """Oracle: the definition; a completion ends at <turn>, though decoding never shows it."""
        turn = tokenizer.convert_tokens_to_ids("<turn>")
        with torch.no_grad():
            qwen.lm_head.weight[turn] *= 4
        params = SamplingParams(max_new_tokens=30, stop=("<turn>",))
        [members] = LocalEngine(qwen, tokenizer).sample(ask([4], 16), params)
        stopped = [member for member in members if turn in member.ids]
        assert stopped
        assert all(member.ids.index(turn) == len(member.ids) - 1 for member in stopped)
        assert all(member.finish == "stop" and "<turn>" not in member.text for member in stopped)


def _without_eos(tokenizer):
    class WithoutEos:
        eos_token_id = None

        def __getattr__(self, name: str):
            return getattr(tokenizer, name)

    return WithoutEos()


class TestEconomy:
    def test_each_prompt_is_run_once(self, qwen, ask, tokenizer) -> None:
        """Oracle: counting what the model is given; all prompts' tokens once, then one token a row, T − 1 times."""
        engine = LocalEngine(qwen, _without_eos(tokenizer), packed=False)  # a fused step does not call the model
        engine.sample(ask([3], 1), SamplingParams(max_new_tokens=1))  # it looks at a model that it has not met
        shapes: list[tuple[int, ...]] = []
        hook = qwen.register_forward_pre_hook(
            lambda _, __, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
        )
        engine.sample(ask([3, 9], 5), SamplingParams(max_new_tokens=6))
        hook.remove()
        assert shapes == [(1, 12)] + [(10, 1)] * 5

    def test_freed_rows_are_refilled(self, qwen, ask, tokenizer) -> None:
        """Oracle: what the model is given; at most 8 rows a step, each prompt run once, some while others are drawn,
        and fewer steps than waiting for all to end takes."""
        qwen.generation_config.eos_token_id = list(range(0, 256, 16))
        requests, params = ask([3, 17, 9, 5, 12, 7], 3), SamplingParams(max_new_tokens=24)
        prompts = {len(r.prompt_ids) for r in requests}
        shapes: list[tuple[int, int]] = []
        hook = qwen.register_forward_pre_hook(
            lambda _, __, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
        )
        engine = LocalEngine(qwen, tokenizer, max_rows=8, packed=False)  # a fused step does not call the model
        engine.sample([], params)  # it looks at a model that it has not met
        shapes.clear()
        samples = engine.sample(requests, params)
        hook.remove()

        prefills = [n for n, shape in enumerate(shapes) if shape[1] > 1]
        assert sum(shapes[n][1] for n in prefills) == sum(prompts)
        assert max(rows for rows, columns in shapes if columns == 1) <= 8
        alone = [n for n in prefills if n and shapes[n][1] in prompts and shapes[n + 1][0] > 3]
        assert alone  # one prompt's three rows began, and more than three were under way then
        in_turn = [samples[i : i + 2] for i in (0, 2, 4)]  # two groups at a time, until all have ended
        waits = sum(max(len(m.ids) for members in groups for m in members) - 1 for groups in in_turn)
        assert len(shapes) - len(prefills) < waits

    def test_no_logits_but_the_last(self, qwen, ask, tokenizer) -> None:
        """Oracle: counting rows at the head; one a prompt in prefill, not one a prompt token."""
        engine = LocalEngine(qwen, _without_eos(tokenizer), packed=False)  # a fused step does not call the model
        engine.sample(ask([3], 1), SamplingParams(max_new_tokens=1))
        rows: list[tuple[int, ...]] = []
        hook = qwen.lm_head.register_forward_hook(lambda _, __, output: rows.append(output.shape[:2]))
        engine.sample(ask([3, 9], 5), SamplingParams(max_new_tokens=2))
        hook.remove()
        assert rows == [(1, 2), (10, 1)]

    def test_models_whose_prompts_are_copied_are_named_once(self, build, qwen, ask, tokenizer, caplog) -> None:
        """Oracle: counting log records; two for a model with recurrent layers in two calls, none for others."""
        caplog.set_level(logging.INFO, logger="grao")
        for model, records in ((qwen, 0), (build("mistral_window"), 0), (build("qwen3_next"), 2)):
            engine = LocalEngine(model, tokenizer)
            engine.sample(ask([3], 1), SamplingParams(max_new_tokens=2))
            engine.sample(ask([3], 1), SamplingParams(max_new_tokens=2))
            assert len([r for r in caplog.records if r.name.startswith("grao")]) == records
        assert "Qwen3NextForCausalLM samples with a copy of the prompt in every row" in caplog.text
        assert "its attention is outside" in caplog.text
        assert "LinearAttention" in caplog.text

    def test_progress(self, qwen, ask, tokenizer) -> None:
        """Oracle: the definition; counts rise to the total across chunks."""
        qwen.generation_config.eos_token_id = list(range(0, 256, 16))
        calls: list[tuple[int, int]] = []
        engine = LocalEngine(qwen, tokenizer, max_rows=8, progress=lambda done, total: calls.append((done, total)))
        engine.sample(ask([3, 9, 4], 4), SamplingParams(max_new_tokens=20))
        assert {total for _, total in calls} == {12}
        assert all(before < after for (before, _), (after, _) in pairwise(calls))
        assert calls[-1] == (12, 12)
        assert len(calls) > 3


class TestSideEffects:
    def test_modes_come_back(self, build, ask, tokenizer, teacher_forced) -> None:
        """Oracle: each module's mode before; log-probs of evaluation mode, though dropout and checkpointing are on."""
        model = build("gpt2")
        model.gradient_checkpointing_enable()
        model.train()
        model.transformer.h[0].eval()  # a part that its owner froze
        before = {name: module.training for name, module in model.named_modules()}
        assert any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
        requests = ask([3, 7], 2)
        samples = LocalEngine(model, tokenizer).sample(requests, SamplingParams(max_new_tokens=8))
        assert {name: module.training for name, module in model.named_modules()} == before
        check_logprobs(model.eval(), requests, samples, 1.0, teacher_forced, tolerance=2e-6)

    def test_modes_come_back_after_an_error(self, qwen, ask, tokenizer) -> None:
        """Oracle: the mode before; and the error says what is wrong with the weights."""
        qwen.train()
        with torch.no_grad():
            qwen.model.norm.weight[0] = math.nan
        with pytest.raises(FloatingPointError, match="NaN"):
            LocalEngine(qwen, tokenizer).sample(ask([3], 1), SamplingParams(max_new_tokens=2))
        assert all(module.training for module in qwen.modules())

    def test_no_global_generator(self, qwen, ask, tokenizer) -> None:
        """Oracle: the states of torch's, NumPy's and Python's generators before; and draws that ignore them."""
        engine, params = LocalEngine(qwen, tokenizer), SamplingParams(max_new_tokens=8, top_p=0.9)
        torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
        first = drawn(engine, ask([3], 4), params)
        assert torch.equal(torch.get_rng_state(), torch_state)
        assert np.array_equal(np.random.get_state()[1], numpy_state)
        assert random.getstate() == python_state
        with torch.random.fork_rng():
            torch.manual_seed(123)
            assert drawn(engine, ask([3], 4), params) == first

    def test_training_goes_on(self, qwen, ask, tokenizer) -> None:
        """Oracle: identity; the gradients of a step after sampling are those of a step without."""

        def gradient() -> torch.Tensor:
            qwen.zero_grad()
            ids = torch.tensor([[5, 6, 7, 8]])
            qwen(input_ids=ids, labels=ids).loss.backward()
            return qwen.model.layers[0].self_attn.q_proj.weight.grad.clone()

        before = gradient()
        LocalEngine(qwen, tokenizer).sample(ask([3], 2), SamplingParams(max_new_tokens=4))
        assert torch.equal(gradient(), before)

    def test_buffers_stay_trainable(self, ask, tokenizer) -> None:
        """Oracle: torch's own flag; frequencies that dynamic RoPE recomputes in sampling are no inference tensors."""
        rope = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
        sizes = {"vocab_size": 272, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
        config = LlamaConfig(**sizes, num_attention_heads=4, max_position_embeddings=64, rope_parameters=rope)
        with torch.random.fork_rng():
            model = LlamaForCausalLM(config)
        before = model.model.rotary_emb.inv_freq
        model.model.rotary_emb.max_seq_len_cached = 4  # so that a longer sequence recomputes them
        LocalEngine(model, tokenizer).sample(ask([3], 2), SamplingParams(max_new_tokens=8))
        assert model.model.rotary_emb.inv_freq is not before
        assert not any(buffer.is_inference() for buffer in model.buffers())

    def test_sync(self, qwen, build, ask, tokenizer) -> None:
        """Oracle: an engine made for the other model; and the live weights, which are read when they are needed."""
        other, params = build("llama"), SamplingParams(max_new_tokens=6)
        engine = LocalEngine(qwen, tokenizer)
        old = drawn(engine, ask([3], 2), params)
        engine.sync(other, "step-7")
        assert engine.version == "step-7"
        assert drawn(engine, ask([3], 2), params) == drawn(LocalEngine(other, tokenizer), ask([3], 2), params) != old
        with torch.no_grad():
            for weight, new in zip(other.parameters(), build("llama").parameters(), strict=True):
                weight.copy_(-new)
        assert drawn(engine, ask([3], 2), params) == drawn(LocalEngine(other, tokenizer), ask([3], 2), params)


class TestRefusals:
    def test_too_long(self, qwen, tokenizer) -> None:
        """Oracle: by hand; 64 positions hold 60 + 4 tokens, and not 61 + 4."""
        engine, params = LocalEngine(qwen, tokenizer), SamplingParams(max_new_tokens=4)
        fits, exceeds = SampleRequest((1,) * 60, (0,)), SampleRequest((1,) * 61, (0,))
        assert len(engine.sample([fits], params)) == 1
        with pytest.raises(ValueError, match=r"Request 1 .* 61 tokens.*max_new_tokens=4.* 65.* 64 positions"):
            engine.sample([fits, exceeds], params)

    def test_empty_prompt(self, qwen, tokenizer) -> None:
        """Oracle: the message names the request."""
        with pytest.raises(ValueError, match="Request 1 has an empty prompt"):
            LocalEngine(qwen, tokenizer).sample(
                [SampleRequest((1,), (0,)), SampleRequest((), (0,))], SamplingParams(max_new_tokens=2)
            )

    def test_prompt_tuning(self, qwen, tokenizer) -> None:
        """Oracle: the message names the kind of adapter and the remedy."""
        with torch.random.fork_rng():
            tuned = peft.get_peft_model(qwen, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
        with pytest.raises(ValueError, match=r"PROMPT_TUNING.*LoRA"):
            LocalEngine(tuned, tokenizer)

    def test_nothing_to_draw(self, qwen, tokenizer) -> None:
        """Oracle: by hand; no requests, no samples; a request without seeds, an empty tuple in its place."""
        engine, params = LocalEngine(qwen, tokenizer), SamplingParams(max_new_tokens=2)
        assert engine.sample([], params) == []
        samples = engine.sample([SampleRequest((1,), ()), SampleRequest((1, 2), (0,))], params)
        assert [len(members) for members in samples] == [0, 1]
