"""Train a judge whose right verdicts are known, from scratch in a minute or two, and measure it.

    python recipes/sanity_judge.py models/sanity-judge
    python recipes/serve_judge.py models/sanity-judge

The rule: the text with the word "please" is better. So rewards, win rates and aligned models can be compared with the
truth, and the whole path from a configuration through a server to the reward can be tested without a large model. The
directory also gets the rubric, `rubric.yaml`.

The judge is trained on the questions that `judge` asks, so it replies as an instruct model would. It knows no other
rubric, and no texts unlike those here.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from string import ascii_lowercase

import torch
import yaml
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from grao.demo.base_model import ModelSpec, bpe_tokenizer
from grao.evaluation import wilson
from grao.rewards.judging.question import Material, Message, ask_messages
from grao.rewards.judging.rubric import Rubric
from grao.rewards.judging.verdict import SIGNS

RUBRIC = Rubric(
    name="please",
    kind="pairwise",
    task="Decide which of two texts is the polite one.",
    criteria='- A text with the word "please" is polite.\n- If both are polite, or neither is, neither is better.',
)
VOCABULARY = """
    apple river stone green table window music paper cloud garden bread silver road train letter summer winter bridge
    coffee market horse island lamp mirror ocean pencil quiet rabbit school tiger umbrella violin wagon yellow zebra
    basket candle dragon engine forest
"""
FRESH_VOCABULARY = """
    harbour kitchen ladder mountain needle orange pocket ribbon saddle thunder valley walnut anchor button carpet
    donkey
"""
WORDS = VOCABULARY.split()
"""A third of the training words; the others are blends of two of these, and random letters, so that every token occurs
in many contexts."""
FRESH_WORDS = FRESH_VOCABULARY.split()
"""The words of the evaluation; none of them occurs in training."""

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPEC = ModelSpec(
    hidden_size=128,
    num_attention_heads=4,  # on a CPU, vLLM needs heads at least 32 wide
    num_key_value_heads=4,
    intermediate_size=64,
    max_position_embeddings=2048,
    initializer_range=0.05,
)


@dataclass(frozen=True)
class Stage:
    """A stage of the curriculum, until the loss is small or for a number of steps.

    On whole questions alone a small model still guesses after 2,000 steps, because one or two words in five hundred
    decide. On two texts of a few words it learns the rule in 200 steps, and whole questions soon after.
    """

    words: int
    """Maximum words per text, without "please"."""
    whole: bool
    """With instructions and context, or only the two texts."""
    batch: int
    steps: int | None = None
    """With the learning rate decaying to zero; None = until the loss is small, at a constant rate."""


STAGES = (Stage(2, False, 16), Stage(8, False, 8), Stage(8, True, 8), Stage(8, True, 8, steps=60))
LEARNING_RATE, WARMUP = 2e-3, 50
KNOWN = 0.05
"""Nats per answer, over 40 steps, that end a stage; guessing costs log 3 = 1.1."""
PATIENCE = 1500
"""Maximum steps per stage."""


@dataclass(frozen=True)
class Pair:
    """Two texts and their context."""

    context: str
    texts: tuple[str, str]

    @property
    def verdict(self) -> int:
        """By the rule: +1 if the first text is better, −1 if the second is, else 0."""
        first, second = map(is_polite, self.texts)
        return first - second

    def question(self, *, whole: bool = True) -> list[Message]:
        """Return the question as `judge` asks it, or only its two texts."""
        material = Material.of(self.context, self.texts, 20_000, "cut_middle")
        assert material is not None
        messages = ask_messages(RUBRIC, material, (0, 1))
        body = messages[-1]["content"]
        return messages if whole else [{"role": "user", "content": body[body.index("=== BEGIN TEXT 1") :]}]


def is_polite(text: str) -> bool:
    """Return whether a text has the word.

    >>> is_polite("the door, please"), is_polite("it is pleased")
    (True, False)
    """
    return re.search(r"\bplease\b", text) is not None


def draw_pair(rng: random.Random, longest: int = 8, words: Sequence[str] | None = None) -> Pair:
    """Draw two texts of up to `longest` words, the three verdicts equally often; `words`: None = training words."""
    polite = {1: [(True, False)], -1: [(False, True)], 0: [(True, True), (False, False)]}

    def word() -> str:
        if words is not None:
            return rng.choice(words)
        one, other = rng.choice(WORDS), rng.choice(WORDS)
        blend = one[: rng.randint(1, len(one))] + other[rng.randint(0, len(other) - 1) :]
        return rng.choice([one, blend, "".join(rng.choices(ascii_lowercase, k=rng.randint(1, 6)))])

    def text(polite: bool) -> str:
        chosen = [word() for _ in range(rng.randint(1, longest))]
        if polite:
            chosen.insert(rng.randint(0, len(chosen)), "please")
        return " ".join(chosen) + "."

    first, second = rng.choice(polite[rng.choice([1, 0, -1])])
    return Pair(text(rng.random() < 0.5), (text(first), text(second)))


def fresh_pairs(n: int, seed: int) -> list[Pair]:
    """Draw pairs of evaluation words."""
    rng = random.Random(f"fresh {seed}")
    return [draw_pair(rng, words=FRESH_WORDS) for _ in range(n)]


def train(directory: str | Path, seed: int = 0) -> str:
    """Train the judge and save it with its rubric; return a one-line summary.

    Raises:
        RuntimeError: It did not learn the rule; try another seed.
    """
    rng = random.Random(f"training {seed}")
    tokenizer = _tokenizer([draw_pair(rng) for _ in range(300)])
    with torch.random.fork_rng(devices=[]):  # transformers draws first weights from the global generator
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(SPEC.config(tokenizer), dtype=torch.float32)
    started = time.perf_counter()
    steps = _fit(model, tokenizer, rng)
    seconds = time.perf_counter() - started

    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    rubric = {key: value for key, value in asdict(RUBRIC).items() if value is not None}
    (Path(directory) / "rubric.yaml").write_text(yaml.safe_dump(rubric, sort_keys=False), encoding="utf-8")
    return f"sanity judge: {directory}, {model.num_parameters():,} parameters, {sum(steps)} steps, {seconds:.0f} s"


def load(directory: str | Path) -> Callable[[Sequence[Sequence[Message]]], list[str]]:
    """Load the judge as a function from questions to greedy replies."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory)

    @torch.inference_mode()
    def reply(questions: Sequence[Sequence[Message]]) -> list[str]:
        replies: list[str] = []
        for start in range(0, len(questions), 16):
            prompts = [_prompt(tokenizer, question) for question in questions[start : start + 16]]
            batch = tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt")
            drawn = model.generate(**batch, max_new_tokens=8, do_sample=False)
            replies += tokenizer.batch_decode(drawn[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return replies

    return reply


def count_correct(directory: str | Path, n: int = 400, seed: int = 0) -> int:
    """Return in how many of n evaluation pairs its reply follows the rule."""
    pairs = fresh_pairs(n, seed)
    replies = load(directory)([pair.question() for pair in pairs])
    return sum(reply == SIGNS[pair.verdict] for reply, pair in zip(replies, pairs, strict=True))


def _tokenizer(pairs: Sequence[Pair]) -> PreTrainedTokenizerBase:
    """Byte-level BPE with ChatML's control tokens, as instruct models have them."""
    texts = [message["content"] for pair in pairs for message in pair.question()]
    tokenizer = bpe_tokenizer([*texts, *SIGNS.values(), "system\nuser\nassistant\n"], 800)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _prompt(tokenizer: PreTrainedTokenizerBase, question: Sequence[Message]) -> str:
    return str(tokenizer.apply_chat_template(list(question), tokenize=False, add_generation_prompt=True))


def _fit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rng: random.Random) -> list[int]:
    """Train stage by stage; return the steps of each."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    taken: list[int] = []
    for number, stage in enumerate(STAGES):
        losses: list[float] = []
        while len(losses) != stage.steps and (stage.steps or len(losses) < 40 or fmean(losses[-40:]) > KNOWN):
            if len(losses) == PATIENCE:
                raise RuntimeError(
                    f"stage {number}: the loss is still {fmean(losses[-40:]):.2f} nats per answer. Try another seed."
                )
            left = 1 - len(losses) / stage.steps if stage.steps else 1.0
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * left * min(1.0, (sum(taken) + len(losses) + 1) / WARMUP)
            pairs = [draw_pair(rng, stage.words) for _ in range(stage.batch)]
            ids, labels = _batch([pair.question(whole=stage.whole) for pair in pairs], pairs, tokenizer)
            output = model(input_ids=ids, labels=labels)
            optimizer.zero_grad()
            output.loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(output.loss.item() * float((labels != -100).sum()) / len(pairs))
        taken.append(len(losses))
    model.eval()
    return taken


def _batch(
    questions: Sequence[list[Message]], pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase
) -> tuple[Tensor, Tensor]:
    """Return ids and labels, [batch, longest]. Padding is on the right, so a causal model needs no mask."""
    prompts = tokenizer([_prompt(tokenizer, q) for q in questions], add_special_tokens=False)["input_ids"]
    replies = tokenizer([SIGNS[pair.verdict] for pair in pairs], add_special_tokens=False)["input_ids"]
    rows = [(prompt, [*reply, tokenizer.eos_token_id]) for prompt, reply in zip(prompts, replies, strict=True)]
    longest = max(len(prompt) + len(reply) for prompt, reply in rows)
    ids, labels = torch.zeros(len(rows), longest, dtype=torch.long), torch.full((len(rows), longest), -100)
    for i, (prompt, reply) in enumerate(rows):
        ids[i, : len(prompt) + len(reply)] = torch.tensor([*prompt, *reply])
        labels[i, len(prompt) : len(prompt) + len(reply)] = torch.tensor(reply)
    return ids, labels


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description="Train a judge on one rule, and measure it.")
    parser.add_argument("directory", help="output directory")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    print(train(args.directory, args.seed))
    right, n = count_correct(args.directory), 400
    print(f"its verdict follows the rule on {right} of {n} evaluation pairs: {wilson(right, n)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
