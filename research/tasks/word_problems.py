r"""Grade-school problems in GSM8K's format: a worked solution, a sentence a step, and the answer on a line of its own.

    "Ada has 3 boxes of 4 pens. On Monday Ada buys 5. How many pens does Ada have?"
    →
    "Ada has 3*4=<<3*4=12>>12 pens.\nOn Monday Ada has 12+5=<<12+5=17>>17 pens.\n#### 17"

A problem counts one kind of thing through one, two or three steps of +, − and ×, told in turn. It is scored by the
library's own rewards as `recipes/gsm8k.yaml` weighs them: 1 where `math` finds the right final answer, and 0.2 for the
`format`. Demonstrations are right and complete, so that nothing scores above them. The base model does one step well;
two steps it has as often seen answered by a guess, three nearly always; and it leaves out the annotations or the last
line more often than not, so there is a format to learn.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase

from grao.data.example import Example
from grao.demo.base_model import ModelSpec
from grao.demo.synthetic_task import Split, Task, split_of
from grao.rewards.math_answer import MathAnswer
from grao.rewards.text import Format
from research.tasks.text_tokenizer import text_tokenizer

SPLITS: dict[Split, int] = {"train": 70, "validation": 10, "test": 20}
"""Percent of problems in each split."""
MOST_STEPS = 3
ONE_STEP = 527_424
"""Different problems of one step; of more steps there are many more."""
FORMAT_WEIGHT = 0.2
"""Of the format beside the right answer, as in `recipes/gsm8k.yaml`."""

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo")
THINGS = ("apples", "books", "cards", "coins", "marbles", "pens", "shells", "stamps")
CONTAINERS = ("bags", "boxes", "jars")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
VERBS = {"buys": "+", "finds": "+", "wins": "+", "drops": "-", "loses": "-", "sells": "-"}
COMPARISONS = {"more than": "+", "fewer than": "-", "times as many as": "*"}
ENDINGS = ("", " now", " in the end")
"""Of the question."""

LARGEST = 30
"""No count exceeds it; none falls below 2, so that things are always many."""
LARGEST_START = 12
LARGEST_CHANGE = 6
LARGEST_FACTOR = 4

# ---------------------------------------------------------------------------------------------------------- problems


@dataclass(frozen=True, slots=True)
class Step:
    """What one sentence does to the count, such as ``Step("+", 5, "Ada", "On Monday ")``."""

    operation: str
    """One of + - *."""
    number: int
    who: str
    """Whose things are counted from here on."""
    when: str = ""
    """How the sentence of the solution begins."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem as it is read from its text.

    Example::

        Problem("pens", 3, (Step("*", 4, "Ada"), Step("+", 5, "Ada", "On Monday ")))
    """

    thing: str
    start: int
    steps: tuple[Step, ...]

    @property
    def answer(self) -> int:
        """The count after the last step."""
        count = self.start
        for step in self.steps:
            count = apply(step.operation, count, step.number)
        return count


def apply(operation: str, a: int, b: int) -> int:
    """The result of a + b, a - b or a * b."""
    return a + b if operation == "+" else a - b if operation == "-" else a * b


def _one_of(words: Sequence[str] | dict[str, str]) -> str:
    return "|".join(map(re.escape, words))


_NAME, _THING, _NUMBER = f"(?:{_one_of(NAMES)})", f"(?:{_one_of(THINGS)})", "(?:[1-9][0-9]?)"
_OPENING = re.compile(
    rf"(?P<who>{_NAME}) has (?P<start>{_NUMBER}) (?:(?:{_one_of(CONTAINERS)}) of (?P<each>{_NUMBER}) )?"
    rf"(?P<thing>{_THING})\."
)
_EVENT = re.compile(
    rf"(?P<when>On (?:{_one_of(DAYS)}) )(?P<who>{_NAME}) (?P<verb>{_one_of(VERBS)}) (?P<n>{_NUMBER})\."
)
_COMPARISON = re.compile(
    rf"(?P<who>{_NAME}) has (?P<n>{_NUMBER}) (?P<how>{_one_of(COMPARISONS)}) (?P<other>{_NAME})\."
)
_QUESTION = re.compile(rf"How many (?P<thing>{_THING}) does (?P<who>{_NAME}) have(?:{_one_of(ENDINGS)})\?")


def parse_problem(prompt: str) -> Problem:
    """Read a problem.

    Raises:
        ValueError: the prompt is no problem of this task.

    >>> parse_problem("Ada has 7 pens. Ben has 2 fewer than Ada. How many pens does Ben have?")
    Problem(thing='pens', start=7, steps=(Step(operation='-', number=2, who='Ben', when=''),))
    """
    sentences = re.split(r"(?<=\.) ", prompt)
    begins, asks = _OPENING.fullmatch(sentences[0]), _QUESTION.fullmatch(sentences[-1])
    steps = None if begins is None else _steps(begins, sentences[1:-1])
    if begins is None or asks is None or not steps or (begins["thing"], steps[-1].who) != (asks["thing"], asks["who"]):
        raise ValueError(
            f"{prompt!r} is no prompt of the word-problems task, which look like 'Ada has 7 pens. Ben has 2 fewer "
            "than Ada. How many pens does Ben have?'"
        )
    return Problem(begins["thing"], int(begins["start"]), steps)


def _steps(begins: re.Match[str], told: Sequence[str]) -> tuple[Step, ...] | None:
    """What the sentences do in turn; None where one is none of the task's, or is not about whoever is counted."""
    counted = begins["who"]
    steps = [Step("*", int(begins["each"]), counted)] if begins["each"] else []
    for sentence in told:
        if (event := _EVENT.fullmatch(sentence)) and event["who"] == counted:
            steps.append(Step(VERBS[event["verb"]], int(event["n"]), counted, event["when"]))
        elif (match := _COMPARISON.fullmatch(sentence)) and match["other"] == counted != match["who"]:
            counted = match["who"]
            steps.append(Step(COMPARISONS[match["how"]], int(match["n"]), counted))
        else:
            return None
    return tuple(steps)


def held_out_by(prompt: str) -> str:
    """What decides a problem's split: its numbers and operations in turn, so that no other names make it new.

    Of one step it is the whole text: there are few such sums, and they are facts that every further step needs.

    >>> held_out_by("Ada has 3 boxes of 4 pens. On Monday Ada buys 5. How many pens does Ada have?")
    '3*4+5'
    """
    problem = parse_problem(prompt)
    if len(problem.steps) == 1:
        return prompt
    return f"{problem.start}{''.join(f'{step.operation}{step.number}' for step in problem.steps)}"


def write_problem(rng: random.Random, steps: int) -> str:
    """The text of a problem of so many steps, drawn at random; nobody and no day is named for two of them."""
    names, thing = rng.sample(NAMES, steps + 1), rng.choice(THINGS)
    day = rng.randrange(len(DAYS))
    who = names.pop()
    count = rng.randint(2, LARGEST_START)
    sentences = [f"{who} has {count} {thing}."]
    if rng.random() < 1 / (steps + 1):
        containers, each = rng.randint(2, LARGEST_FACTOR), rng.randint(2, LARGEST_CHANGE)
        count = containers * each
        sentences = [f"{who} has {containers} {rng.choice(CONTAINERS)} of {each} {thing}."]
        steps -= 1
    for place in range(steps):
        words = VERBS if rng.random() < 0.5 else COMPARISONS
        phrase, number, count = _change(rng, words, count)
        if words is VERBS:
            sentences.append(f"On {DAYS[(day + place) % len(DAYS)]} {who} {phrase} {number}.")
        else:
            who, other = names.pop(), who
            sentences.append(f"{who} has {number} {phrase} {other}.")
    return " ".join([*sentences, f"How many {thing} does {who} have{rng.choice(ENDINGS)}?"])


def _change(rng: random.Random, words: dict[str, str], count: int) -> tuple[str, int, int]:
    """A phrase, its number, and the count that it leads to."""
    while True:
        phrase, number = rng.choice(list(words)), rng.randint(2, LARGEST_CHANGE)
        changed = apply(words[phrase], count, number)
        if 2 <= changed <= LARGEST and not (words[phrase] == "*" and number > LARGEST_FACTOR):
            return phrase, number, changed


# ----------------------------------------------------------------------------------------------------------- answers


def solve(
    problem: Problem,
    *,
    annotated: bool = True,
    final: bool = True,
    slip: float = 0.0,
    rng: random.Random | None = None,
) -> str:
    r"""The worked solution, a line a step, and the final line.

    Args:
        annotated: with the calculator's annotations.
        final: with the line ``#### 17``.
        slip: probability that the result of a step is a few too many or too few; the next step goes on from there.
        rng: needed for slips.

    >>> solve(Problem("pens", 3, (Step("*", 4, "Ada"), Step("+", 5, "Ada", "On Monday "))))
    'Ada has 3*4=<<3*4=12>>12 pens.\nOn Monday Ada has 12+5=<<12+5=17>>17 pens.\n#### 17'
    """
    count, lines = problem.start, []
    for step in problem.steps:
        sum_ = f"{count}{step.operation}{step.number}"
        count = apply(step.operation, count, step.number)
        if rng is not None and rng.random() < slip:
            count = abs(count + rng.choice((-10, -2, -1, 1, 2, 10)))
        note = f"<<{sum_}={count}>>" if annotated else ""
        lines.append(f"{step.when}{step.who} has {sum_}={note}{count} {problem.thing}.")
    return "\n".join([*lines, f"#### {count}"] if final else lines)


_MATH, _FORMAT = MathAnswer(), Format(preset="gsm8k")


def verifier(prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
    """1 · math + 0.2 · format of each completion, by the library's rewards of those names.

    The right answer is worked out from the prompt; the rows' column ``answer`` holds the same.

    Raises:
        ValueError: a prompt is no problem of this task.
    """
    right = _MATH(completions, answer=[parse_problem(prompt).answer for prompt in prompts])
    shaped = _FORMAT(completions)
    return [float(r or 0.0) + FORMAT_WEIGHT * f for r, f in zip(right, shaped, strict=True)]


def score(prompt: str, text: str) -> float:
    """See `verifier`."""
    return verifier([prompt], [text])[0]


# -------------------------------------------------------------------------------------------------------------- task


@dataclass(frozen=True)
class WordProblems(Task):
    """A third each of one, two and three steps; the category is ``"1 step"``, ``"2 steps"`` or ``"3 steps"``.

    The column ``answer`` holds the right answer, for the rewards of a configuration of one's own.
    """

    name: ClassVar[str] = "word-problems"
    reward: ClassVar[str] = "research.tasks.word_problems.verifier"
    rubric: ClassVar[str] = "research.tasks.word_problems.verifier"
    eps: ClassVar[float] = 0.02
    spec: ClassVar[ModelSpec] = ModelSpec(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=192,
        max_position_embeddings=128,
        initializer_range=0.05,
    )
    base_steps: ClassVar[int] = 500
    base_batch_size: ClassVar[int] = 64

    def examples(self, split: Split, n: int, seed: int = 0) -> list[Example]:
        """See `Task.examples`; every prompt is unique in every split. What thirds leave over has three steps."""
        rng = random.Random(f"word-problems {split} {seed}")
        prompts: list[str] = []
        for steps in range(1, MOST_STEPS + 1):
            prompts += _unique_problems(rng, split, steps, (n - len(prompts)) // (MOST_STEPS + 1 - steps))
        rng.shuffle(prompts)
        return [self._example(rng, row, prompt) for row, prompt in enumerate(prompts)]

    def _example(self, rng: random.Random, row: int, prompt: str) -> Example:
        problem = parse_problem(prompt)
        reference, rejected = solve(problem), _poor_answer(rng, problem)
        while score(prompt, rejected) >= score(prompt, reference):
            rejected = _poor_answer(rng, problem)
        steps = len(problem.steps)
        columns = {"answer": str(problem.answer), "category": f"{steps} step{'s' * (steps > 1)}"}
        return Example(row, prompt, reference, rejected, columns)

    def score(self, prompt: str, text: str) -> float:
        """See `score` of this module."""
        return score(prompt, text)

    def pretraining_pairs(self, n: int, seed: int = 0, eps: float | None = None) -> list[tuple[str, str]]:
        """Thirds of one, two and three steps; of the last, only the share `eps` is worked out, the rest guessed."""
        eps = self.eps if eps is None else eps
        rng = random.Random(f"word-problems pre-training {seed}")
        pairs = []
        for _ in range(n):
            prompt = _problem_of(rng, "train", rng.randint(1, MOST_STEPS))
            pairs.append((prompt, _careless_answer(rng, parse_problem(prompt), eps)))
        return pairs

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """See `Task.tokenizer`; a digit is a token."""
        return text_tokenizer(vocabulary())


def vocabulary() -> list[str]:
    """Texts that hold every word of every problem and solution, also as it begins a line where it does."""
    words = [*NAMES, *THINGS, *CONTAINERS, *DAYS, *VERBS, *COMPARISONS]
    frame = ["On", " On has of. How many does have?\n", *ENDINGS, " 0123456789+-*=<<>>####"]
    return [*NAMES, *(f" {word}" for word in words), *frame]


def _careless_answer(rng: random.Random, problem: Problem, eps: float) -> str:
    worked, slip = {1: (1.0, 0.02), 2: (0.5, 0.08), 3: (eps, 0.0)}[len(problem.steps)]
    final = rng.random() < 0.4
    if rng.random() < worked:
        return solve(problem, annotated=rng.random() < 0.5, final=final, slip=slip, rng=rng)
    return _guess(rng, problem, final)


def _poor_answer(rng: random.Random, problem: Problem) -> str:
    """A wrong answer as often as a right one without its last line."""
    return solve(problem, final=rng.random() < 0.5, slip=0.5, rng=rng)


def _guess(rng: random.Random, problem: Problem, final: bool) -> str:
    count = rng.randint(2, LARGEST)
    said = f"{problem.steps[-1].who} has {count} {problem.thing}."
    return f"{said}\n#### {count}" if final else said


def _problem_of(rng: random.Random, split: Split, steps: int) -> str:
    while True:
        prompt = write_problem(rng, steps)
        if split_of(held_out_by(prompt), SPLITS) == split:
            return prompt


def _unique_problems(rng: random.Random, split: Split, steps: int, n: int) -> list[str]:
    # Half of what the split can be expected to hold of the rarest kind, so that the draw below ends soon.
    most = ONE_STEP * SPLITS[split] // 200
    if n > most:
        raise ValueError(
            f"{n} unique problems of {steps} steps are too many for the {split} split; at most {most}, so ask for "
            f"{MOST_STEPS * most} rows or fewer"
        )
    drawn: dict[str, None] = {}
    while len(drawn) < n:
        drawn[_problem_of(rng, split, steps)] = None
    return list(drawn)
