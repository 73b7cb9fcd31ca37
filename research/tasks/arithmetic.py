"""Column addition: the answer is right or wrong, and words that say nothing cost a little.

    "_ 4 5 + _ 3 8 ="   →   "5 + 8 = 1 3 ; so 4 + 3 + 1 = 8 ; # 8 3"

Addends fill three places, so that a causal model can tell the place of a digit when it reads it. Columns are added
from the right, the carry written as a third addend, the result after ``#``. Demonstrations are
always right but wordy. The base model adds numbers of one and two digits; sums of three digits it has nearly always
seen answered by a guess, so that they lie beyond it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase

from grao.data.example import Example
from grao.demo.base_model import ModelSpec, word_tokenizer
from grao.demo.synthetic_task import Split, Task, split_of

SPLITS: dict[Split, int] = {"train": 70, "validation": 10, "test": 20}
"""Percent of sums in each split."""
PLACES, BLANK = 3, "_"
FILLERS = ("so", "hmm", "ok", "well")
FILLER_COST = 0.06
WORDY = 0.5
"""Probability that a column of a demonstration begins with one or two fillers."""

_QUESTION = re.compile(r"_*([0-9]{1,3})\+_*([0-9]{1,3})=")


def question(a: int, b: int) -> str:
    """The prompt that asks for a sum.

    >>> question(45, 38)
    '_ 4 5 + _ 3 8 ='
    """
    left, right = (" ".join(str(x).rjust(PLACES, BLANK)) for x in (a, b))
    return f"{left} + {right} ="


def parse_question(prompt: str) -> tuple[int, int]:
    """The addends of a prompt.

    Raises:
        ValueError: the prompt is no sum.
    """
    match = _QUESTION.fullmatch("".join(prompt.split()))
    if match is None:
        raise ValueError(f"{prompt!r} is no prompt of the arithmetic task, which look like '_ 4 5 + _ 3 8 ='")
    return int(match[1]), int(match[2])


def solve(a: int, b: int, rng: random.Random | None = None, filler: float = 0.0, slip: float = 0.0) -> str:
    """The worked columns and the result; both addends must have equally many digits.

    Args:
        rng: needed for fillers and slips.
        filler: probability that a column begins with filler words.
        slip: probability that a column's sum is drawn at random from 0 to 18.

    >>> solve(45, 38)
    '5 + 8 = 1 3 ; 4 + 3 + 1 = 8 ; # 8 3'
    """
    assert len(str(a)) == len(str(b)), "columns need addends of one length"
    words: list[str] = []
    carry, digits = 0, ""
    for x, y in zip(reversed(str(a)), reversed(str(b)), strict=True):
        total = int(x) + int(y) + carry
        if rng and rng.random() < filler:
            words += rng.choices(FILLERS, k=rng.choice((1, 2)))
        if rng and rng.random() < slip:
            total = rng.randrange(19)
        words += [x, "+", y, *["+", "1"] * carry, "=", *str(total), ";"]
        carry, digits = total // 10, str(total % 10) + digits
    return " ".join([*words, "#", *("1" * carry + digits)])


def score(prompt: str, text: str) -> float:
    """Correct · max(0, 1 − 0.06 · filler words). Correct: what follows the only ``#`` is the sum and nothing else.

    Raises:
        ValueError: the prompt is no sum.
    """
    a, b = parse_question(prompt)
    words = text.split()
    result = words[words.index("#") + 1 :] if words.count("#") == 1 else []
    correct = result == list(str(a + b))
    fillers = sum(word in FILLERS for word in words)
    return max(0.0, 1 - FILLER_COST * fillers) if correct else 0.0


def verifier(prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
    """The score of each completion, by the prompt alone."""
    return [score(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]


@dataclass(frozen=True)
class Arithmetic(Task):
    """Sums of two and of three digits, half of each; the category is ``"2 digits"`` or ``"3 digits"``."""

    name: ClassVar[str] = "arithmetic"
    reward: ClassVar[str] = "research.tasks.arithmetic.verifier"
    rubric: ClassVar[str] = "research.tasks.arithmetic.verifier"
    eps: ClassVar[float] = 0.02
    spec: ClassVar[ModelSpec] = ModelSpec(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=192,
        max_position_embeddings=80,
        initializer_range=0.05,
    )
    base_steps: ClassVar[int] = 1200
    base_batch_size: ClassVar[int] = 64

    def examples(self, split: Split, n: int, seed: int = 0) -> list[Example]:
        """See `Task.examples`; every prompt is unique in every split."""
        rng = random.Random(f"arithmetic {split} {seed}")
        sums = [*_unique_sums(rng, split, 2, n - n // 2), *_unique_sums(rng, split, 3, n // 2)]
        rng.shuffle(sums)
        return [self._example(rng, row, a, b) for row, (a, b) in enumerate(sums)]

    def _example(self, rng: random.Random, row: int, a: int, b: int) -> Example:
        prompt, reference = question(a, b), solve(a, b, rng, WORDY)
        rejected = _poor_answer(rng, a, b)
        while score(prompt, rejected) >= score(prompt, reference):
            rejected = _poor_answer(rng, a, b)
        return Example(row, prompt, reference, rejected, {"category": f"{len(str(a))} digits"})

    def score(self, prompt: str, text: str) -> float:
        """See `score` of this module."""
        return score(prompt, text)

    def pretraining_pairs(self, n: int, seed: int = 0, eps: float | None = None) -> list[tuple[str, str]]:
        """Thirds of one, two and three digits; of the last, only the share `eps` is worked out, the rest guessed."""
        eps = self.eps if eps is None else eps
        rng = random.Random(f"arithmetic pre-training {seed}")
        pairs = []
        for _ in range(n):
            (digits,) = rng.choices((1, 2, 3), (0.35, 0.35, 0.3))
            a, b = _sum(rng, digits) if digits == 1 else _sum_of(rng, "train", digits)
            pairs.append((question(a, b), _careless_answer(rng, a, b, eps)))
        return pairs

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """See `Task.tokenizer`."""
        return word_tokenizer([*"0123456789_+=;#", *FILLERS])


def _careless_answer(rng: random.Random, a: int, b: int, eps: float) -> str:
    digits = len(str(a))
    if digits == 1:
        return solve(a, b, rng, filler=0.3, slip=0.02)
    if digits == 2:
        return solve(a, b, rng, filler=0.4, slip=0.08) if rng.random() < 0.5 else _guess(rng, 10, 200)
    return solve(a, b, rng, filler=0.4) if rng.random() < eps else _guess(rng, 200, 1999)


def _poor_answer(rng: random.Random, a: int, b: int) -> str:
    return solve(a, b, rng, filler=WORDY, slip=0.5) if rng.random() < 0.5 else _guess(rng, 10, 2000)


def _guess(rng: random.Random, low: int, high: int) -> str:
    return f"# {' '.join(str(rng.randrange(low, high)))}"


def _sum(rng: random.Random, digits: int) -> tuple[int, int]:
    low = 10 ** (digits - 1) if digits > 1 else 0
    return rng.randrange(low, 10**digits), rng.randrange(low, 10**digits)


def _sum_of(rng: random.Random, split: Split, digits: int) -> tuple[int, int]:
    while True:
        a, b = _sum(rng, digits)
        if split_of(question(a, b), SPLITS) == split:
            return a, b


def _unique_sums(rng: random.Random, split: Split, digits: int, n: int) -> list[tuple[int, int]]:
    # Half of what the split can be expected to hold, so that the draw below ends soon.
    most = 81 * 100 ** (digits - 1) * SPLITS[split] // 200
    if n > most:
        raise ValueError(
            f"{n} unique sums of {digits} digits are too many for the {split} split; at most {most}, so ask for "
            f"{2 * most} rows or fewer"
        )
    drawn: dict[tuple[int, int], None] = {}
    while len(drawn) < n:
        drawn[_sum_of(rng, split, digits)] = None
    return list(drawn)
