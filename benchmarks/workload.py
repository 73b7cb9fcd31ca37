"""What both sides of a comparison are given: a model with random weights, its tokenizer, and each step's prompts.

Random weights say nothing, so they would never end an answer, or end it anywhere. Here the end comes at a rate that is
chosen: every token's embedding holds the same constant in its first channel, so the last hidden states do too, and the
end-of-sequence row of the tied head reads a logit off it. The number of tokens of an answer is then geometric, cut off
at the limit, as uneven as those of a model that answers; with a rate near 0 no answer ends, for the even workload.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging as transformers_logging

from grao.data import Encoder, Examples, load_examples
from grao.demo.base_model import bpe_tokenizer, word_tokenizer

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
HH_DATA = DATA / "hh-rlhf" / "harmless-base" / "train.jsonl.gz"
GSM8K_DATA = DATA / "gsm8k" / "train.jsonl.gz"
WORKLOADS = ("uneven", "gsm8k", "even")
QUESTION = "Question: {question}\nAnswer: "
"""What recipes/gsm8k.yaml makes of a problem."""
CONSTANT = 1.0
"""The first channel of every embedding; the others have a standard deviation of 0.02. With 0.5 the rate of an end
differs fivefold from prompt to prompt, with 1 by a half."""
NEVER = 1e-12
"""An end-of-sequence rate at which thousands of tokens hold none."""


@dataclass(frozen=True)
class Shape:
    """Of a Qwen3 model with tied embeddings."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int

    def config(self) -> Qwen3Config:
        return Qwen3Config(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.hidden // self.heads,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )


SHAPES = {
    "29m": Shape(hidden=512, layers=8, heads=8, kv_heads=4, intermediate=1536, vocabulary=8192),
    "7m": Shape(hidden=256, layers=6, heads=4, kv_heads=2, intermediate=768, vocabulary=8192),
    "tiny": Shape(hidden=64, layers=2, heads=2, kv_heads=1, intermediate=64, vocabulary=320),
}


@dataclass(frozen=True)
class Workload:
    """One comparison's input, the same for both sides."""

    name: str
    model: Path
    """An ordinary transformers directory: model and tokenizer."""
    prompts: tuple[tuple[str, ...], ...]
    """The prompts of each step; the first step is the warm-up."""
    group: int
    """Completions a prompt."""
    max_new_tokens: int
    ends: bool
    """Answers end by themselves. What grao drew then decides where the other side's answers end."""
    dtype: str = "float32"
    """What the forward passes are computed in."""

    def title(self, steps: Sequence[Mapping[str, Any]]) -> str:
        """What it was made of, from the reports of its steps."""
        prompts = list(chain.from_iterable(step["prompt_tokens"] for step in steps))
        lengths = [n for step in steps for group in step["completion_tokens"] for n in group]
        return (
            f"{self.name}, {self.dtype}: {len(self.prompts[0])} prompts of {min(prompts)} to {max(prompts)} tokens, "
            f"{self.group} completions each of {min(lengths)} to {max(lengths)} (mean {fmean(lengths):.0f})"
        )


@dataclass(frozen=True)
class Size:
    """How much work one step is, and how many steps there are."""

    shape: str = "29m"
    vocabulary: int | None = None
    """Instead of the shape's own."""
    prompts: int = 4
    group: int = 8
    prompt_tokens: int = 130
    """Of every prompt of the even workload."""
    max_prompt_tokens: int = 256
    """Of the workloads with real prompts; a row whose prompt is longer is left out."""
    new_tokens: int = 128
    """The limit of a completion, and the length of all of them in the even workload."""
    steps: int = 6
    """The warm-up included."""
    seed: int = 0

    @property
    def model(self) -> Shape:
        shape = SHAPES[self.shape]
        return shape if self.vocabulary is None else replace(shape, vocabulary=self.vocabulary)


def add_size_arguments(parser: argparse.ArgumentParser) -> None:
    """What a benchmark's command line says about its workloads."""
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--hh", type=Path, default=HH_DATA, help="HH-RLHF rows, for the uneven workload")
    parser.add_argument("--gsm8k", type=Path, default=GSM8K_DATA, help="GSM8K rows, for the workload of that name")
    parser.add_argument("--repeats", type=int, default=5, help="steps that count, of each side and workload")
    parser.add_argument("--shape", choices=tuple(SHAPES), default=Size.shape, help="of the model")
    parser.add_argument("--prompts", type=int, default=Size.prompts, help="a step")
    parser.add_argument("--group", type=int, default=Size.group, help="completions a prompt")
    parser.add_argument("--prompt-tokens", type=int, default=Size.prompt_tokens, help="of the even workload")
    parser.add_argument("--max-prompt-tokens", type=int, default=Size.max_prompt_tokens, help="of the real ones")
    parser.add_argument("--new-tokens", type=int, default=Size.new_tokens, help="the limit of a completion")


def size_of(args: argparse.Namespace) -> Size:
    """The size that the command line asks for, with a step more for the warm-up."""
    return Size(
        shape=args.shape,
        prompts=args.prompts,
        group=args.group,
        prompt_tokens=args.prompt_tokens,
        max_prompt_tokens=args.max_prompt_tokens,
        new_tokens=args.new_tokens,
        steps=args.repeats + 1,
    )


def workloads(names: Sequence[str], folder: Path, size: Size, *, hh: Path, gsm8k: Path) -> Iterator[Workload]:
    """Those that can be made here; says which cannot."""
    transformers_logging.disable_progress_bar()
    real = {"uneven": (write_uneven, hh, "HH-RLHF", "--hh"), "gsm8k": (write_gsm8k, gsm8k, "GSM8K", "--gsm8k")}
    for name in names:
        if name == "even":
            yield write_even(folder, size)
            continue
        write, data, rows, option = real[name]
        if data.is_file():
            yield write(folder, size, data)
        else:
            print(f"\n{name}: NOT MEASURED, as there are no {rows} rows at {data}; name a file of them by {option}")


def write_even(folder: Path, size: Size) -> Workload:
    """Prompts and completions of full length: random words, of which the tokenizer makes one token each."""
    words = [f"w{i}" for i in range(size.model.vocabulary - 3)]  # <pad>, <eos>, <unk>
    draw = random.Random(size.seed)
    prompts = [" ".join(draw.choices(words, k=size.prompt_tokens)) for _ in range(size.prompts * size.steps)]
    return _write("even", folder, word_tokenizer(words), prompts, size, end_rate=NEVER)


def write_uneven(folder: Path, size: Size, data: Path) -> Workload:
    """Real prompts of HH-RLHF, and answers that end."""
    return _write_real("uneven", load_examples(data, "hh"), folder, size)


def write_gsm8k(folder: Path, size: Size, data: Path) -> Workload:
    """Real problems of GSM8K, and answers that end."""
    return _write_real("gsm8k", load_examples(data, "gsm8k", prompt_template=QUESTION), folder, size)


def _write_real(name: str, examples: Examples, folder: Path, size: Size) -> Workload:
    """Prompts as the library's own loader reads them; answers that end, on average at half the limit.

    Raises:
        ValueError: too few rows fit.
    """
    tokenizer = bpe_tokenizer((f"{e.prompt}{e.reference}" for e in examples), vocab_size=size.model.vocabulary)
    encoder = Encoder(tokenizer, max_prompt_tokens=size.max_prompt_tokens, overlong="drop")
    rows, _ = encoder.encode_all(load_examples([{"prompt": e.prompt} for e in examples]))
    needed = size.prompts * size.steps
    if len(rows) < needed:
        raise ValueError(
            f"{examples.source} has {len(rows)} prompts of at most {size.max_prompt_tokens} tokens, and {needed} are "
            "needed: raise --max-prompt-tokens, or ask for fewer steps by --repeats"
        )
    chosen = [str(row.example.prompt) for row in random.Random(size.seed).sample(rows, needed)]
    return _write(name, folder, tokenizer, chosen, size, end_rate=half_length_rate(size.new_tokens))


def half_length_rate(limit: int) -> float:
    """The rate p at which a geometric length that is cut off at `limit` has the mean `limit` / 2.

    E[min(N, T)] = (1 − (1 − p)^T) / p
    """
    low, high = 1e-9, 1.0
    for _ in range(100):
        rate = math.sqrt(low * high)
        mean = (1 - (1 - rate) ** limit) / rate
        low, high = (rate, high) if mean > limit / 2 else (low, rate)
    return rate


def _write(
    name: str, folder: Path, tokenizer: PreTrainedTokenizerFast, prompts: list[str], size: Size, end_rate: float
) -> Workload:
    model = random_model(size.model, size.seed)
    set_end_rate(model, tokenizer, prompts, end_rate)
    target = folder / name
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    steps = tuple(tuple(prompts[i : i + size.prompts]) for i in range(0, len(prompts), size.prompts))
    return Workload(name, target, steps, size.group, size.new_tokens, ends=end_rate > NEVER)


def random_model(shape: Shape, seed: int) -> Qwen3ForCausalLM:
    """Weights as transformers initialises them, the constant channel aside."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(shape.config())
        model.get_input_embeddings().weight[:, 0] = CONSTANT
    return model.eval()


@torch.no_grad()
def set_end_rate(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str], rate: float) -> None:
    """Choose the end-of-sequence row such that its probability is about `rate` after any token.

    p = σ(ℓ_end − log Σ_others exp ℓ), and ℓ_end grows by h₀ a unit of the row's first channel: one linear step.
    """
    end = model.config.eos_token_id
    row = model.get_output_embeddings().weight[end]
    missing, constants = [], []
    for prompt in prompts[:8]:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        hidden = model.model(ids).last_hidden_state[0]
        logits = model.lm_head(hidden)
        ends = logits[:, end].clone()
        logits[:, end] = -math.inf
        missing.append(math.log(rate) - math.log1p(-rate) + logits.logsumexp(-1) - ends)
        constants.append(hidden[:, 0])
    row[0] += torch.cat(missing).mean() / torch.cat(constants).mean()
