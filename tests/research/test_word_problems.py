"""Word problems: their text, their solutions, their score by the library's own rewards, their splits."""

import itertools
import json
import operator
import random
import re
from pathlib import Path

import pytest
import yaml

from grao.data import load_examples
from grao.groups import Group, Member
from grao.rewards import RewardSet, load_reward
from research.tasks import WordProblems
from research.tasks.text_tokenizer import text_tokenizer
from research.tasks.word_problems import (
    COMPARISONS,
    CONTAINERS,
    DAYS,
    ENDINGS,
    LARGEST,
    LARGEST_CHANGE,
    LARGEST_FACTOR,
    LARGEST_START,
    MOST_STEPS,
    NAMES,
    ONE_STEP,
    THINGS,
    VERBS,
    Problem,
    Step,
    held_out_by,
    parse_problem,
    score,
    solve,
    verifier,
    write_problem,
)

BOXES = "Ada has 3 boxes of 4 pens. On Monday Ada buys 5. How many pens does Ada have?"
BOXES_SOLVED = "Ada has 3*4=<<3*4=12>>12 pens.\nOn Monday Ada has 12+5=<<12+5=17>>17 pens.\n#### 17"
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
RECIPE = Path(__file__).parents[2] / "recipes" / "gsm8k.yaml"


# ---------------------------------------------------------------------------------------------------------- problems


@pytest.mark.parametrize(
    ("text", "problem", "answer"),
    [
        (BOXES, Problem("pens", 3, (Step("*", 4, "Ada"), Step("+", 5, "Ada", "On Monday "))), 17),
        (
            "Eva has 2 jars of 6 shells. How many shells does Eva have?",
            Problem("shells", 2, (Step("*", 6, "Eva"),)),
            12,
        ),
        (
            "Ben has 10 coins. Cleo has 2 times as many as Ben. On Friday Cleo drops 6. Dan has 3 fewer than Cleo. "
            "How many coins does Dan have in the end?",
            Problem("coins", 10, (Step("*", 2, "Cleo"), Step("-", 6, "Cleo", "On Friday "), Step("-", 3, "Dan"))),
            11,
        ),
        (
            "Hugo has 9 cards. Ada has 6 more than Hugo. How many cards does Ada have now?",
            Problem("cards", 9, (Step("+", 6, "Ada"),)),
            15,
        ),
    ],
)
def test_problems_read_by_hand(text, problem, answer):
    """Oracle: the steps and the answer on paper."""
    assert parse_problem(text) == problem
    assert problem.answer == answer


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "How many pens does Ada have?",
        "Ada has 7 pens. How many pens does Ada have?",
        "Ada has 7 pens. On Monday Ada buys 5.",
        "Ada has 7 pens. On Monday Ben buys 5. How many pens does Ada have?",
        "Ada has 7 pens. On Monday Ada buys 5. How many pens does Ben have?",
        "Ada has 7 pens. On Monday Ada buys 5. How many books does Ada have?",
        "Ada has 7 pens. Ben has 5 more than Cleo. How many pens does Ben have?",
        "Ada has 7 pens. Ada has 5 more than Ada. How many pens does Ada have?",
        "Ada has 7 pens. On Monday Ada burns 5. How many pens does Ada have?",
        "Ada has 7 pens. On Monday Ada buys 05. How many pens does Ada have?",
        BOXES + " ",
        BOXES.replace(". On", ".\nOn"),
    ],
)
def test_what_is_no_problem(wrong):
    """Oracle: the sentence; nobody's and nothing else's things are counted by accident."""
    with pytest.raises(ValueError, match="is no prompt of the word-problems task"):
        parse_problem(wrong)


def plain_reading(text: str) -> int:
    """The answer by a reading of its own: the numbers in turn, each with what its sentence's word says."""
    opening, *told, _ = text.split(". ")
    numbers = [int(number) for number in re.findall(r"\d+", opening)]
    count = numbers[0] * (numbers[1] if len(numbers) == 2 else 1)
    for sentence in told:
        (number,) = map(int, re.findall(r"\d+", sentence))
        if "times" in sentence:
            count *= number
        elif any(word in sentence for word in ("more", "buys", "finds", "wins")):
            count += number
        else:
            assert any(word in sentence for word in ("fewer", "drops", "loses", "sells"))
            count -= number
    return count


@pytest.mark.parametrize("steps", range(1, MOST_STEPS + 1))
def test_written_problems_against_a_plain_reading(steps):
    """Oracle: the reading above; every line of the solution by Python's integers, each going on from the last."""
    rng = random.Random(steps)
    for _ in range(300):
        text = write_problem(rng, steps)
        problem = parse_problem(text)
        assert problem.answer == plain_reading(text)
        *lines, final = solve(problem).split("\n")
        assert len(lines) == len(problem.steps) == steps
        count = problem.start
        for line, step in zip(lines, problem.steps, strict=True):
            found = re.fullmatch(r"(\D*) has (\d+)([-+*])(\d+)=<<(\2\3\4)=(\d+)>>\6 (\w+)\.", line)
            assert found is not None
            assert (found[1], int(found[2]), found[7]) == (step.when + step.who, count, problem.thing)
            count = OPERATORS[found[3]](count, int(found[4]))
            assert int(found[6]) == count
            assert 2 <= count <= LARGEST
        assert final == f"#### {count}"
        names, days = [step.who for step in problem.steps], [step.when for step in problem.steps if step.when]
        assert len(set(days)) == len(days)
        assert len(set(names)) == 1 + sum(a != b for a, b in itertools.pairwise(names))


def test_problems_of_one_step_are_counted():
    """Oracle: plain loops over the numbers, times the words that may stand in each place."""
    counts = range(2, LARGEST_START + 1)
    changes = range(2, LARGEST_CHANGE + 1)

    def pairs(sign: str) -> int:
        largest = LARGEST_FACTOR if sign == "*" else LARGEST_CHANGE
        return sum(2 <= OPERATORS[sign](a, b) <= LARGEST for a in counts for b in changes if b <= largest)

    boxes = len(NAMES) * len(CONTAINERS) * (LARGEST_FACTOR - 1) * len(changes)
    events = len(NAMES) * len(DAYS) * sum(map(pairs, VERBS.values()))
    comparisons = len(NAMES) * (len(NAMES) - 1) * sum(map(pairs, COMPARISONS.values()))
    assert (boxes + events + comparisons) * len(THINGS) * len(ENDINGS) == ONE_STEP


def test_solutions_written_out_by_hand():
    """Oracle: on paper: whole, without annotations, without the last line; a slip is carried on to the end."""
    problem = parse_problem(BOXES)
    assert solve(problem) == BOXES_SOLVED
    assert solve(problem, annotated=False) == "Ada has 3*4=12 pens.\nOn Monday Ada has 12+5=17 pens.\n#### 17"
    assert solve(problem, final=False) == BOXES_SOLVED.removesuffix("\n#### 17")
    first, second, final = solve(problem, slip=1.0, rng=random.Random(0)).split("\n")
    slipped = int(first.split(">>")[1].split()[0])
    assert slipped != 12
    assert second.startswith(f"On Monday Ada has {slipped}+5=<<{slipped}+5=")
    assert second.endswith(f">>{final.removeprefix('#### ')} pens.")


# ------------------------------------------------------------------------------------------------------------- score


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOXES_SOLVED, 1.2),
        ("Ada has 17 pens.\n#### 17", 1.2),
        ("Ada has 3*4=12 pens.\nOn Monday Ada has 12+5=17 pens.", 1.0),
        ("#### 17", 1.0),
        ("Ada has 17 pens. #### 17", 1.0),
        ("Ada has 17 pens.\n#### 17\n#### 17", 1.0),
        ("17", 1.0),
        ("Ada has 3*4=12 pens.\nOn Monday Ada has 12+5=18 pens.\n#### 18", 0.2),
        ("Ada has 17 pens.\n#### 16", 0.2),
        ("Ada has 17 pens.\n#### 1 7", 0.0),
        ("Ada has 17 pens.\n####", 0.0),
        ("Ada has 3*4=12 pens.", 0.0),
        ("Ada has pens.", 0.0),
        ("", 0.0),
    ],
)
def test_score_by_hand(text, expected):
    """Oracle: 1 for the right final answer, 0.2 for a solution and one last line `#### number`, by hand."""
    assert score(BOXES, text) == pytest.approx(expected)
    assert verifier(prompts=[BOXES], completions=[text], answer=["99"]) == [pytest.approx(expected)]


def test_rows_read_as_gsm8k_and_scored_as_its_recipe_does(tmp_path):
    """Oracle: the library's reader of GSM8K and the rewards of recipes/gsm8k.yaml: the same prompt, reference and
    final answer; the same scores of right, poor and careless answers. Without annotations: what `solve` says.
    """
    task = WordProblems()
    rows = task.examples("train", 120, seed=5)
    path = tmp_path / "gsm8k.jsonl"
    lines = [json.dumps({"question": row.prompt, "answer": row.reference}) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    read = load_examples(path, "gsm8k", keep_annotations=True)
    assert [(x.prompt, x.reference, x.columns["answer"]) for x in read] == [
        (row.prompt, row.reference, row.columns["answer"]) for row in rows
    ]
    bare = load_examples(path, "gsm8k")
    assert [x.reference for x in bare] == [solve(parse_problem(row.prompt), annotated=False) for row in rows]

    answers = [answer for _, answer in task.pretraining_pairs(120, seed=5)]
    groups = [
        Group(
            row=x.row,
            prompt=x.prompt,
            prompt_ids=(1,),
            samples=tuple(Member((2,), text) for text in (row.rejected, answer, answer.split("\n")[0] + "\n#### 12")),
            reference=Member((2,), x.reference),
            columns=x.columns,
        )
        for x, row, answer in zip(read, rows, answers, strict=True)
    ]
    rewards = RewardSet(yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["rewards"])
    scored = [(g.prompt, m.text, m.reward) for g in rewards.score(groups).groups for m in g.members]
    assert [task.score(prompt, text) for prompt, text, _ in scored] == [reward for *_, reward in scored]
    assert {reward for *_, reward in scored} == {0.0, 0.2, 1.0, 1.2}


def test_the_reward_is_absolute():
    """Oracle: the library's own loader."""
    assert not load_reward(WordProblems.reward).comparison


# -------------------------------------------------------------------------------------------------------------- rows


def test_splits_share_no_prompt():
    """Oracle: set arithmetic over prompt strings, pre-training included; as many rows of each number of steps."""
    task = WordProblems()
    rows = {split: task.examples(split, n) for split, n in (("train", 1000), ("validation", 200), ("test", 300))}
    asked = {split: {row.prompt for row in found} for split, found in rows.items()}
    assert {split: len(found) for split, found in asked.items()} == {"train": 1000, "validation": 200, "test": 300}
    seen = {prompt for prompt, _ in task.pretraining_pairs(10_000)}
    assert asked["test"].isdisjoint(asked["train"] | asked["validation"] | seen)
    assert asked["validation"].isdisjoint(asked["train"] | seen)
    for found, each in ((rows["test"], [100, 100, 100]), (rows["validation"], [66, 67, 67])):
        categories = [row.columns["category"] for row in found]
        assert [categories.count(kind) for kind in ("1 step", "2 steps", "3 steps")] == each


def test_no_names_make_a_held_out_problem_new():
    """Oracle: keys by hand; set arithmetic over the numbers and operations of two and three steps."""
    one = "Eva has 2 jars of 6 shells. How many shells does Eva have?"
    assert held_out_by(one) == one
    assert held_out_by(BOXES) == held_out_by(BOXES.replace("Ada", "Ben").replace("buys", "wins")) == "3*4+5"
    task = WordProblems()
    seen = sums_of([prompt for prompt, _ in task.pretraining_pairs(5000)]) | sums_of(prompts_of(task, "train", 900))
    validation, test = (sums_of(prompts_of(task, split, 300)) for split in ("validation", "test"))
    assert min(len(seen), len(validation), len(test)) > 100
    assert test.isdisjoint(validation | seen)
    assert validation.isdisjoint(seen)


def prompts_of(task: WordProblems, split: str, n: int) -> list[str]:
    return [row.prompt for row in task.examples(split, n)]


def sums_of(prompts: list[str]) -> set[tuple]:
    """Start, operations and numbers of each problem of more steps than one."""
    problems = [problem for problem in map(parse_problem, prompts) if len(problem.steps) > 1]
    return {(p.start, *((step.operation, step.number) for step in p.steps)) for p in problems}


def test_more_rows_than_problems_are_refused():
    """Oracle: 527,424 problems of one step, a tenth of them for validation; half of that is the limit of each kind."""
    with pytest.raises(ValueError, match=r"at most 26371, so ask for 79113 rows or fewer"):
        WordProblems().examples("validation", 79_116)


def test_the_same_seed_gives_the_same_rows():
    """Oracle: equality; another seed gives others."""
    task = WordProblems()
    assert task.examples("test", 30, seed=3) == task.examples("test", 30, seed=3) != task.examples("test", 30, seed=4)
    assert task.pretraining_pairs(30, seed=3) == task.pretraining_pairs(30, seed=3)
    assert task.pretraining_pairs(30, seed=3) != task.pretraining_pairs(30, seed=4)


def test_references_have_the_whole_reward_and_rejected_answers_less():
    """Oracle: 1 + 0.2, the most there is; rejected answers are now wrong, now right without their last line."""
    rows = WordProblems().examples("train", 300)
    assert {score(row.prompt, row.reference) for row in rows} == {1.2}
    assert {score(row.prompt, row.rejected) for row in rows} == {0.0, 0.2, 1.0}
    assert all(row.columns["answer"] == str(plain_reading(row.prompt)) for row in rows)


def test_what_the_base_model_sees():
    """Oracle: of three steps none is worked out at 0, all at 1, at 0.3 a binomial share; of two half, of one
    all; 2 in 5 answers have the last line; half of those worked out have annotations. Within 4.5 standard deviations.
    """

    def about(hits: int, n: int, share: float) -> bool:
        return abs(hits - share * n) < 4.5 * (n * share * (1 - share)) ** 0.5

    for eps in (0.0, 0.3, 1.0):
        pairs = WordProblems().pretraining_pairs(3000, eps=eps)
        by_steps = {steps: [a for p, a in pairs if len(parse_problem(p).steps) == steps] for steps in (1, 2, 3)}
        worked = {steps: sum("=" in answer for answer in answers) for steps, answers in by_steps.items()}
        assert all(about(len(answers), 3000, 1 / 3) for answers in by_steps.values())
        assert worked[1] == len(by_steps[1])
        assert about(worked[2], len(by_steps[2]), 0.5)
        share = worked[3] / len(by_steps[3])
        assert share == eps if eps in (0.0, 1.0) else about(worked[3], len(by_steps[3]), eps)
        assert about(sum("####" in a for _, a in pairs), 3000, 0.4)
        assert about(sum("<<" in a for _, a in pairs), sum(worked.values()), 0.5)


def test_tokenizer_round_trips_every_text():
    """Oracle: the identity decode(encode(text)) = text, no unknown word, the room of base model and plan."""
    task = WordProblems()
    tokenizer = task.tokenizer()
    pairs = [*task.pretraining_pairs(2000), *((r.prompt, r.reference) for r in task.examples("train", 1500))]
    pairs += [(row.prompt, row.rejected) for row in task.examples("train", 300, seed=1)]
    for pair in pairs:
        ids = tokenizer(list(pair))["input_ids"]
        assert tokenizer.batch_decode(ids) == list(pair)
        assert all(tokenizer.unk_token_id not in part for part in ids)
        assert sum(map(len, ids)) + 1 <= task.spec.max_position_embeddings
        assert len(ids[1]) + 1 <= 80
    assert tokenizer.tokenize("has 17 pens.\n") == ["<unk>", " ", "1", "7", " pens", ".", "\n"]


def test_text_tokenizer_cuts_text_into_pieces():
    """Oracle: the pieces by hand: words with their space, single digits, signs, line breaks; ids by alphabet."""
    text = "Ada has 12 pens.\n#### 12 <<3*4=12>>"
    tokenizer = text_tokenizer([text])
    pieces = ["Ada", " has", " ", "1", "2", " pens", ".", "\n", "####", " ", "1", "2", " ", "<<", "3", "*", "4", "="]
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == [*pieces, "1", "2", ">>"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.convert_ids_to_tokens([3, 4, 5]) == ["\n", " ", " has"]
    assert tokenizer("Eva has 21 pens")["input_ids"][0] == tokenizer.unk_token_id
