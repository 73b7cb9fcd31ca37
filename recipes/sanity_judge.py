"""A judge whose right verdicts are known: trained from scratch in a minute to follow one rule, and measured.

    python recipes/sanity_judge.py models/sanity-judge
    python recipes/serve_judge.py models/sanity-judge

The rule is that the text with the word "please" is better. What comes out of a judge's verdicts (rewards, win rates,
an aligned model) can then be held against the truth, and the whole way from a configuration through the server to the
reward can be tried without a large model. The folder also gets the rubric, `rubric.yaml`.

The questions it learns from are those that `judge` asks, so it answers as an instruct model would; but it knows nothing
else: no other rubric, and no text much longer than those here.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from grao.evaluation import wilson
from grao.experiments.base_model import ModelSpec, bpe_tokenizer, train_base_model
from grao.rewards.question import Material, Message, ask_messages
from grao.rewards.rubric import Rubric
from grao.rewards.verdict import SIGNS

RUBRIC = Rubric(
    name="please",
    kind="pairwise",
    task="Decide which of two texts is the polite one.",
    criteria='- A text with the word "please" is polite.\n- If both are polite, or neither is, neither is better.',
)
WORDS = (
    "apple river stone green table window music paper cloud garden bread silver road train letter summer winter bridge "
    "coffee market horse island lamp mirror ocean pencil quiet rabbit school tiger umbrella violin wagon yellow zebra "
    "basket candle dragon engine forest"
).split()
FRESH_WORDS = (
    "harbour kitchen ladder mountain needle orange pocket ribbon saddle thunder valley walnut anchor button carpet donkey"
).split()
"""For measuring: none of them is in the texts it learns from."""

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPEC = ModelSpec(
    hidden_size=64,
    num_attention_heads=2,  # vLLM's attention on a CPU knows no heads narrower than 32
    num_key_value_heads=2,
    intermediate_size=192,
    max_position_embeddings=2048,
    initializer_range=0.05,
)
STEPS, BATCH, LEARNING_RATE = 800, 8, 3e-3
SHORT_SHARE = 0.75
"""So many of the questions are learnt from without instructions and context. From whole questions alone the model is
still guessing after 2,000 steps: what decides is two words in four hundred."""


@dataclass(frozen=True)
class Pair:
    """Two texts, and what was said before them."""

    context: str
    texts: tuple[str, str]

    @property
    def verdict(self) -> int:
        """By the rule: +1 where the first text is better, −1 where the second is, else 0."""
        first, second = map(is_polite, self.texts)
        return first - second

    def messages(self) -> list[Message]:
        """The question as `judge` asks it."""
        material = Material.of(self.context, self.texts, 20_000, "cut_middle")
        assert material is not None
        return ask_messages(RUBRIC, material, (0, 1))


def is_polite(text: str) -> bool:
    """Whether it has the word.

    >>> is_polite("the door, please"), is_polite("it is pleased")
    (True, False)
    """
    return re.search(r"\bplease\b", text) is not None


def pairs(n: int, seed: int, words: Sequence[str] = WORDS) -> list[Pair]:
    """Random texts of 3 to 12 words, the three verdicts equally often."""
    rng = random.Random(f"pairs {seed}")
    polite = {1: [(True, False)], -1: [(False, True)], 0: [(True, True), (False, False)]}

    def text(polite: bool) -> str:
        chosen = rng.choices(words, k=rng.randint(3, 12))
        if polite:
            chosen.insert(rng.randint(0, len(chosen)), "please")
        return " ".join(chosen) + "."

    def pair() -> Pair:
        first, second = rng.choice(polite[rng.choice([1, 0, -1])])
        return Pair(text(rng.random() < 0.5), (text(first), text(second)))

    return [pair() for _ in range(n)]


def train(directory: str | Path, *, steps: int = STEPS, seed: int = 0, quiet: bool = False) -> str:
    """Train the judge and save it with its rubric; what came of it, on one line.

    The same arguments give the same weights on the same machine and number of threads.
    """
    learnt = pairs(steps * BATCH, seed)
    tokenizer = _tokenizer(learnt[:300])
    shorten = random.Random(f"short {seed}")
    questions = [
        (_prompt(tokenizer, _short(pair) if shorten.random() < SHORT_SHARE else pair.messages()), SIGNS[pair.verdict])
        for pair in learnt
    ]
    trained = train_base_model(
        *(questions, tokenizer, SPEC, directory),
        **{"steps": steps, "batch_size": BATCH, "learning_rate": LEARNING_RATE, "seed": seed, "quiet": quiet},
    )
    (Path(directory) / "rubric.yaml").write_text(
        yaml.safe_dump({key: value for key, value in asdict(RUBRIC).items() if value is not None}, sort_keys=False),
        encoding="utf-8",
    )
    return trained.summary


def load(directory: str | Path) -> Callable[[Sequence[Sequence[Message]]], list[str]]:
    """The judge in this process: questions → replies, greedy."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory)

    @torch.inference_mode()
    def answer(questions: Sequence[Sequence[Message]]) -> list[str]:
        replies: list[str] = []
        for start in range(0, len(questions), 50):
            prompts = [_prompt(tokenizer, question) for question in questions[start : start + 50]]
            batch = tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt")
            drawn = model.generate(**batch, max_new_tokens=8, do_sample=False)
            replies += tokenizer.batch_decode(drawn[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return replies

    return answer


def agreement(directory: str | Path, n: int = 400, seed: int = 1) -> int:
    """In how many of n fresh pairs, of words that it never saw, it replies exactly what the rule says."""
    fresh = pairs(n, seed, FRESH_WORDS)
    replies = load(directory)([pair.messages() for pair in fresh])
    return sum(reply == SIGNS[pair.verdict] for reply, pair in zip(replies, fresh, strict=True))


def _tokenizer(learnt: Sequence[Pair]) -> PreTrainedTokenizerBase:
    """Byte-level BPE with ChatML's control tokens, the way instruct models have them."""
    texts = [message["content"] for pair in learnt for message in pair.messages()]
    tokenizer = bpe_tokenizer([*texts, *SIGNS.values(), "system\nuser\nassistant\n"], 800)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))


def _short(pair: Pair) -> list[Message]:
    """The two texts alone."""
    body = pair.messages()[-1]["content"]
    return [{"role": "user", "content": body[body.index("=== BEGIN TEXT 1") :]}]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure, say so."""
    parser = argparse.ArgumentParser(description="Train a judge that knows one rule, and measure whether it does.")
    parser.add_argument("directory", help="new, empty, or of a judge made here before")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    print(train(args.directory, steps=args.steps, seed=args.seed))
    n = 400
    right = agreement(args.directory, n)
    interval = wilson(right, n)
    print(f"agrees with the rule on {right} of {n} fresh pairs: {interval}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
