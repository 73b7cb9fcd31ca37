from __future__ import annotations

import gzip
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from grao.rewards import RewardError, RewardSet, load_reward
from grao.rewards.math_answer import MathAnswer

CASES = [
    # completion, gold, reward
    ("3 + 4 = 7\n#### 7", "7", 1.0),
    ("#### 8", "7", 0.0),
    (r"so \boxed{0.5}", r"\frac{1}{2}", 1.0),
    (r"so \boxed{\frac{2}{4}}", "0.5", 1.0),
    ("The answer is 1,200 dollars.", 1200, 1.0),
    ("The answer is 1200.5", 1200.5, 1.0),
    ("#### 50%", "0.5", 1.0),
    ("I do not know.", "7", 0.0),
    ("", "7", 0.0),
    ("#### seven", "7", 0.0),
    ("#### 72", "Natalia sold 48+24 = 72 clips.\n#### 72", 1.0),
    (r"\boxed{x^2+2x+1}", "(x+1)^2", 1.0),
    (r"\boxed{x^2+2x+2}", "(x+1)^2", 0.0),
    (r"\boxed{2\sqrt{2}}", r"$\sqrt{8}$", 1.0),
    (r"the area is $2\pi$", r"\boxed{2\pi}", 1.0),
    (r"the area is $2\pi$", r"\boxed{2}", 0.0),
    (r"\boxed{\{2, 1\}}", r"\{1,2\}", 1.0),
    (r"\boxed{\left(\frac{1}{2}\right)^{10}}", "1/1024", 1.0),
    (r"\boxed{(x+1)^{3}}", "x^3+3x^2+3x+1", 1.0),
    (r"\boxed{x^2y^3 + 2^{10}}", "1024 + y^3x^2", 1.0),
    ("anything", None, None),
]


def score(cases):
    return MathAnswer()(completions=[c for c, _, _ in cases], answer=[gold for _, gold, _ in cases])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cases_by_hand(case):
    """Oracle: whether the two are the same number or expression, decided by hand."""
    assert score([case]) == [case[2]]


def test_threads_give_what_the_main_thread_gives():
    """Oracle: identity, over 8 calls in 4 threads, where SIGALRM cannot be used."""
    with ThreadPoolExecutor(4) as threads:
        rounds = list(threads.map(lambda _: score(CASES), range(8)))
    assert rounds == [[reward for _, _, reward in CASES]] * 8


def test_with_a_timeout_it_runs_in_a_thread(make_group):
    """Oracle: by hand: sample right, sample wrong, reference right."""
    reward = load_reward("math", timeout=60.0)
    group = make_group(0, [r"\boxed{\sqrt{8}}", "#### 9"], "#### 2.0e0", answer=r"2\sqrt{2}")
    (group,) = RewardSet([reward]).score([group]).groups
    assert [m.reward for m in group.members] == [1.0, 0.0, 0.0]
    assert threading.active_count() < 50


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{9^{9^{9^{9}}}}",
        r"\boxed{2^{99999999}}",
        r"\boxed{999999999!}",
        r"\boxed{(x+1)^{999}}",
        r"\boxed{(x+y+z+w)^{99}}",
        r"\boxed{(((x+1)^9+1)^9+1)^9}",
        r"\boxed{((9^{999})^{999})^{999}}",
        r"\boxed{9^9^9^9}",
        "#### 1e999",
        "#### " + "9" * 100_000,
        r"\boxed{" + "{" * 50_000,
        r"\boxed{" + "(" * 200 + "1" + ")" * 200 + "}",
        "1 " * 50_000,
        "answer is " * 20_000,
        "$" * 50_000,
        "1," * 50_000,
    ],
    ids=lambda text: text[:20],
)
def test_hostile_completions_are_wrong_and_cheap(text):
    """Oracle: none of them is 7; a bound of 2 seconds of processor time, in a thread where no alarm helps."""
    with ThreadPoolExecutor(1) as thread:
        begin = time.process_time()
        assert thread.submit(score, [(text, "7", 0.0)]).result(timeout=30) == [0.0]
    assert time.process_time() - begin < 2


def test_an_unreadable_gold_names_its_row(make_group):
    """Oracle: the message, read."""
    groups = [make_group(3, answer="7"), make_group(11, answer="ten apples")]
    with pytest.raises(RewardError, match=r"'math' raised ValueError: column 'answer' holds 'ten apples'.* on row 11"):
        RewardSet([load_reward("math")]).score(groups)


def test_an_unreadable_gold_leaves_only_its_group_unscored_on_request(make_group):
    """Oracle: by hand; the readable group is scored, the other is None, not 0."""
    groups = [make_group(3, ["7", "8"], "7", answer="7"), make_group(11, ["7", "8"], "7", answer="ten apples")]
    scored = RewardSet([load_reward("math", on_error="unscored")]).score(groups)
    assert [[m.reward for m in g.members] for g in scored.groups] == [[1.0, 0.0, 1.0], [None, None, None]]


def test_another_column():
    """Oracle: by hand."""
    assert MathAnswer(column="solution")(completions=["#### 7"], solution=["7"]) == [1.0]


def test_all_of_gsm8k(shared_data, record_property):
    """Oracle: the data. Each solution is right for its own answer, and wrong for the next row's different answer.

    Without its "####" line, replaced by a sentence that states the answer, it is right as well.
    """
    rows = []
    for split in ("train", "test"):
        with gzip.open(shared_data / "gsm8k" / f"{split}.jsonl.gz", "rt") as lines:
            rows += [json.loads(line)["answer"] for line in lines]
    assert len(rows) > 7000
    answers = [row.rpartition("####")[2].strip() for row in rows]
    value = [float(answer.replace(",", "")) for answer in answers]
    begin = time.perf_counter()
    assert set(MathAnswer()(completions=rows, answer=answers)) == {1.0}
    record_property("seconds_per_item", (time.perf_counter() - begin) / len(rows))
    print(f"{1e6 * (time.perf_counter() - begin) / len(rows):.1f} µs an item, {len(rows)} items")
    assert set(MathAnswer()(completions=rows, answer=rows)) == {1.0}
    following = answers[1:] + answers[:1]
    expected = [float(a == b) for a, b in zip(value, value[1:] + value[:1], strict=True)]
    assert MathAnswer()(completions=rows, answer=following) == expected
    stated = [f"{r.rpartition('####')[0]}So the answer is ${a}." for r, a in zip(rows, answers, strict=True)]
    assert set(MathAnswer()(completions=stated, answer=answers)) == {1.0}
