"""Column addition: its columns, its verifier, its splits."""

import random

import pytest

from grao.rewards import load_reward
from research.tasks import Arithmetic
from research.tasks.arithmetic import (
    FILLERS,
    parse_question,
    question,
    score,
    solve,
    verifier,
)


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_worked_columns_against_integer_addition(digits):
    """Oracle: Python's int: the result, and the left and right side of every column."""
    rng = random.Random(0)
    for _ in range(300):
        a, b = (rng.randrange(10 ** (digits - 1), 10**digits) for _ in range(2))
        *columns, result = solve(a, b).split(" ; ")
        assert result == f"# {' '.join(str(a + b))}"
        assert len(columns) == digits
        for place, column in enumerate(columns):
            left, right = column.split(" = ")
            below = 10**place
            carry = (a % below + b % below) // below
            addends = [a // below % 10, b // below % 10, *[1] * carry]
            assert list(map(int, left.split(" + "))) == addends
            assert int(right.replace(" ", "")) == sum(addends)


def test_columns_written_out_by_hand():
    """Oracle: two sums on paper, one with a carry out of the last column."""
    assert solve(45, 38) == "5 + 8 = 1 3 ; 4 + 3 + 1 = 8 ; # 8 3"
    assert solve(907, 95 + 100) == "7 + 5 = 1 2 ; 0 + 9 + 1 = 1 0 ; 9 + 1 + 1 = 1 1 ; # 1 1 0 2"


def test_questions_round_trip():
    """Oracle: the identity parse(question(a, b)) = (a, b); what is no sum is refused by name."""
    assert question(45, 138) == "_ 4 5 + 1 3 8 ="
    assert all(parse_question(question(a, b)) == (a, b) for a in (0, 7, 45, 999) for b in (0, 10, 138))
    for wrong in ("4 5 + 3 8", "4 5 - 3 8 =", "+ 3 =", "4 5 + 3 8 = 8 3"):
        with pytest.raises(ValueError, match="no prompt of the arithmetic task"):
            parse_question(wrong)


SUM = "_ 4 5 + _ 3 8 ="


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 + 8 = 1 3 ; 4 + 3 + 1 = 8 ; # 8 3", 1.0),
        ("# 8 3", 1.0),
        ("so 5 + 8 = 1 3 ; hmm ok 4 + 3 + 1 = 8 ; # 8 3", 1 - 3 * 0.06),
        ("so " * 17 + "# 8 3", 0.0),
        ("# 8 4", 0.0),
        ("# 0 8 3", 0.0),
        ("# 8 3 0", 0.0),
        ("# 8 3 # 8 3", 0.0),
        ("# 8 3 ;", 0.0),
        ("# 8 3 so", 0.0),
        ("# 8 4 # 8 3", 0.0),
        ("8 3", 0.0),
        ("", 0.0),
    ],
)
def test_verifier_by_hand(text, expected):
    """Oracle: correct · max(0, 1 − 0.06·fillers), by hand; answers given twice or with a tail are not answers."""
    assert score(SUM, text) == pytest.approx(expected)
    assert verifier(prompts=[SUM], completions=[text], reference=["# 8 3"]) == [pytest.approx(expected)]


def test_the_reward_is_absolute():
    """Oracle: the library's own loader."""
    assert not load_reward(Arithmetic.reward).comparison


def test_splits_share_no_prompt():
    """Oracle: set arithmetic over prompt strings, pre-training included; half of the rows have three digits."""
    task = Arithmetic()
    rows = {split: task.examples(split, n) for split, n in (("train", 2000), ("validation", 300), ("test", 500))}
    asked = {split: {row.prompt for row in found} for split, found in rows.items()}
    assert {split: len(found) for split, found in asked.items()} == {"train": 2000, "validation": 300, "test": 500}
    seen = {prompt for prompt, _ in task.pretraining_pairs(20_000)}
    assert asked["test"].isdisjoint(asked["train"] | asked["validation"] | seen)
    assert asked["validation"].isdisjoint(asked["train"] | seen)
    categories = [row.columns["category"] for row in rows["test"]]
    assert (categories.count("2 digits"), categories.count("3 digits")) == (250, 250)


def test_more_rows_than_sums_are_refused():
    """Oracle: 90·90 sums of two digits, a fifth of them held out: 1620; half of that is the limit."""
    with pytest.raises(ValueError, match="at most 810"):
        Arithmetic().examples("test", 1622)


def test_demonstrations_are_right_and_cost_their_fillers():
    """Oracle: 0.75 fillers a column, so 1 − 0.06·0.75·2 = 0.91 and 0.865; tolerance 4.5 standard errors of 1500."""
    task = Arithmetic()
    rows = task.examples("train", 3000)
    for category, expected in (("2 digits", 0.91), ("3 digits", 0.865)):
        scores = [task.score(r.prompt, r.reference) for r in rows if r.columns["category"] == category]
        # Fillers of a column: 0, 1, 2 with ½, ¼, ¼: variance 0.6875; of the score 0.06²·0.6875 a column.
        columns = int(category[0])
        assert sum(scores) / 1500 == pytest.approx(expected, abs=4.5 * 0.06 * (columns * 0.6875 / 1500) ** 0.5)
        assert max(scores) == 1
        assert min(scores) >= 1 - 0.06 * 2 * columns - 1e-9
    assert all(task.score(r.prompt, r.rejected) < task.score(r.prompt, r.reference) for r in rows)


def test_pretraining_works_out_a_share_eps_of_the_long_sums():
    """Oracle: none at 0, all at 1, and a binomial interval of 4.5 standard deviations at 0.3."""

    def worked(eps: float) -> tuple[int, int]:
        pairs = [(p, c) for p, c in Arithmetic().pretraining_pairs(3000, eps=eps) if "_" not in p]
        return sum(";" in c for _, c in pairs), len(pairs)

    assert worked(0.0)[0] == 0
    assert worked(1.0)[0] == worked(1.0)[1] > 800
    hits, n = worked(0.3)
    assert abs(hits - 0.3 * n) < 4.5 * (n * 0.3 * 0.7) ** 0.5


def test_tokenizer_round_trips_every_text():
    """Oracle: the identity decode(encode(text)) = text, no unknown word, and the room that the base model has."""
    task = Arithmetic()
    tokenizer = task.tokenizer()
    pairs = [*task.pretraining_pairs(3000), *((r.prompt, r.reference) for r in task.examples("train", 2000))]
    for pair in pairs:
        ids = tokenizer(list(pair))["input_ids"]
        assert tokenizer.batch_decode(ids) == list(pair)
        assert all(tokenizer.unk_token_id not in part for part in ids)
        assert sum(map(len, ids)) + 1 <= task.spec.max_position_embeddings
    assert len(tokenizer) == 3 + 10 + 5 + len(FILLERS)
