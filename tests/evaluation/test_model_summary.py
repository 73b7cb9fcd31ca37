"""The summary: every figure by hand or by plain loops, categories, and inputs that hold nothing."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from grao.evaluation import Item, Metric, Summary, differences, paired_difference, summarise
from grao.evaluation.model_summary import ModelMetrics

NAN = float("nan")


def item(row: int, sample: int = 0, **fields: Any) -> Item:
    given = {"prompt": "?", "answer": "", "reference": None, "category": None, "tokens": 1, "finish": "stop"} | fields
    return Item(row=row, sample=sample, **given)


def drawn(prompts: int = 30, samples: int = 3, *, seed: int = 0) -> list[Item]:
    """Answers of a model that is scored now and then."""
    g = random.Random(seed)
    return [
        item(
            row,
            sample,
            answer=" ".join(g.choices(["red", "fox", "I can't help", "7"], k=g.randrange(1, 5))),
            reference="the red fox",
            category=f"kind {row % 3}",
            tokens=g.randrange(1, 9),
            finish=g.choice(["stop", "length"]),
            reward=g.choice([None, NAN, -1.0, 0.0, 1.0, 1.5]),
            reference_reward=g.choice([0.0, None]),
            scores={"right": float(g.random() < 0.5), "style": g.choice([None, g.random()])},
            kl=g.expovariate(1) if sample == 0 else None,
        )
        for row in range(prompts)
        for sample in range(samples)
    ]


ITEMS = [
    item(0, 0, answer="a b a", reference="a b", reward=1.0, reference_reward=0.0, tokens=4, kl=0.5),
    item(0, 1, answer="I can't help", reference="a b", reward=3.0, reference_reward=0.0, tokens=6, finish="length"),
    item(1, 0, answer="c", reference=None, reward=None, tokens=2, kl=1.5),
    item(2, 0, answer="", reference="c d e", reward=-1.0, reference_reward=0.0, tokens=8, finish="length"),
]


def test_by_hand() -> None:
    """Oracle: worked by hand from four answers to three prompts."""
    found = summarise(ITEMS).all
    assert (found.prompts, found.answers, found.unscored) == (3, 4, 1)
    assert found.reward.mean.value == 1.0  # (1 + 3 − 1) / 3
    assert found.reward.variance == pytest.approx(8 / 3)
    assert found.reward.quartiles == (0.0, 1.0, 2.0)
    assert (found.reward.mean.n, found.reward.mean.unscored) == (2, 1)
    assert found.ras.value == 0.5
    assert (found.counts.wins, found.counts.losses, found.counts.unscored) == (2, 1, 1)
    assert (found.kl.value, found.kl.n, found.kl.unscored) == (1.0, 2, 1)
    assert found.lengths.tokens.mean.value == 5.0
    assert found.lengths.limited.value == 0.5
    assert found.lengths.words.value == (3 + 3 + 0) / (2 + 2 + 3)
    assert found.lengths.characters.value == (5 + 12 + 0) / (3 + 3 + 5)
    assert found.lengths.words.unscored == 1
    assert found.refusals.value == 0.25
    assert found.distinct[1].value == 6 / 7  # a, b, i, can't, help, c of seven words
    assert found.nag.reason == "no base to compare with"


def plain_mean(items: list[Item], scorer: str) -> float:
    values = [i.scores[scorer] for i in items if i.scores[scorer] is not None]
    return sum(values) / len(values)


def test_figures_agree_with_plain_loops() -> None:
    """Oracle: loops over the items, from the definitions."""
    items = drawn()
    found = summarise(items, verifiable=["right"], k=(1, 3)).all
    for scorer in ("right", "style"):
        assert found.scores[scorer].mean.value == pytest.approx(plain_mean(items, scorer))
    rewards = [i.reward for i in items if i.reward is not None and not math.isnan(i.reward)]
    assert found.reward.mean.value == pytest.approx(np.mean(rewards))
    assert found.reward.variance == pytest.approx(np.var(rewards))
    assert found.reward.mean.unscored == found.unscored == len(items) - len(rewards)
    right = [[i.scores["right"] for i in items if i.row == row] for row in range(30)]
    assert found.accuracy["right"].pass_at[1].value == pytest.approx(np.mean(right))
    assert found.accuracy["right"].pass_at[3].value == pytest.approx(np.mean([max(own) for own in right]))
    assert found.lengths.limited.value == pytest.approx(np.mean([i.finish == "length" for i in items]))
    assert found.refusals.value == pytest.approx(np.mean(["can't help" in i.answer for i in items]))


def figures(of: ModelMetrics | Summary) -> Iterator[tuple[str, Metric]]:
    """All figures of a summary, by where they stand in its plain data."""

    def walk(data: Any, path: str) -> Iterator[tuple[str, Metric]]:
        if isinstance(data, dict) and "interval" in data:
            yield path, Metric(**data)
        elif isinstance(data, dict):
            for key, value in data.items():
                yield from walk(value, f"{path}/{key}")

    yield from walk(of.as_dict() if isinstance(of, Summary) else Summary(of, {}).as_dict(), "")


def test_every_figure_lies_in_its_interval_and_counts_what_it_leaves_out() -> None:
    """Oracle: the definition; the walk meets every kind of figure."""
    summary = summarise(drawn(), drawn(seed=1), verifiable=["right"], k=(1, 2))
    found = dict(figures(summary))
    # rewards 3, references 2, base 3, accuracy 4, KL, lengths 4, distinct-n 2, refusals; over all and 3 categories
    assert len(found) == 20 * 4
    for path, figure in found.items():
        assert figure.low <= figure.value <= figure.high, path
        assert figure.n <= 30
        assert figure.unscored >= 0
        assert figure.reason is None, path


def test_a_category_is_the_summary_of_its_prompts() -> None:
    """Oracle: `summarise` of the items of that category alone, against the base's."""
    items, base = drawn(), drawn(seed=1)
    found = summarise(items, base, verifiable=["right"])
    assert list(found.by_category) == ["kind 0", "kind 1", "kind 2"]
    some = [i for i in items if i.category == "kind 1"]
    assert found.by_category["kind 1"] == summarise(some, base, verifiable=["right"]).all


def test_prompts_without_a_category() -> None:
    """Oracle: none have one: no categories; some have: the others are shown together, not dropped."""
    assert summarise(ITEMS).by_category == {}
    some = [*ITEMS, item(9, category="kind")]
    assert {name: of.prompts for name, of in summarise(some).by_category.items()} == {"(none)": 3, "kind": 1}


def test_the_order_of_the_items_does_not_matter_and_the_seed_does() -> None:
    """Oracle: shuffled items, the same seed; the same items, another seed."""
    items = drawn()
    mixed = random.Random(3).sample(items, len(items))
    assert summarise(mixed, drawn(seed=1)) == summarise(items, drawn(seed=1))
    assert summarise(items, seed=1) != summarise(items)


def test_it_is_plain_data() -> None:
    """Oracle: JSON without NaN, and back."""
    data = summarise(drawn(), drawn(seed=1), verifiable=["right"], k=(1, 2)).as_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == json.loads(json.dumps(data))
    assert set(data["all"]["accuracy"]["right"]["pass_at"]) == {"1", "2"}
    assert set(data["all"]["ras"]) == {"value", "low", "high", "n", "unscored", "interval", "reason"}


EMPTY = [
    replace(i, reward=score, scores={"right": score}, kl=score)
    for i, score in zip(ITEMS, [None, NAN, math.inf, 1e300], strict=True)
]


@pytest.mark.parametrize("items", [[], EMPTY, ITEMS[:1], ITEMS[3:]], ids=["none", "unscored", "one", "silent"])
@pytest.mark.parametrize("base", [None, [], EMPTY, ITEMS], ids=["no base", "none", "unscored", "base"])
def test_inputs_that_hold_nothing_are_no_zeros_and_no_errors(items: list[Item], base: list[Item] | None) -> None:
    """Oracle: a figure has a value and an interval, or says why not; JSON has no NaN."""
    summary = summarise(items, base, verifiable=["right", "unknown"], k=(1, 2))
    json.dumps(summary.as_dict(), allow_nan=False)
    for path, figure in figures(summary):
        assert (figure.reason is None) == (figure.low is not None), path
        assert figure.value is not None or (figure.n == 0 and figure.reason), path
    if items is EMPTY:
        assert summary.all.reward.mean == Metric.missing("no answer has a reward", 4)
        assert summary.all.unscored == 4
        assert summary.all.accuracy["right"].pass_at[1].unscored == 4


def test_an_answer_given_twice_is_refused() -> None:
    """Oracle: the message."""
    with pytest.raises(ValueError, match="sample 0 of row 0 appears twice"):
        summarise([*ITEMS, ITEMS[0]])


def test_differences_by_hand() -> None:
    """Oracle: means by prompt: a: 2, −1; b: 1, 1; only rows 0 and 2 are shared: 1 and −2. Unpaired: one, and row 5."""
    b = [item(0, reward=1.0), item(2, 0, reward=0.0), item(2, 1, reward=2.0), item(5, reward=9.0)]
    found = differences({"b": b, "a": ITEMS})
    assert list(found) == [("a", "b")]
    assert (found["a", "b"].value, found["a", "b"].n, found["a", "b"].unscored) == (-0.5, 2, 2)


def test_differences_of_three_models() -> None:
    """Oracle: pairs (later, earlier); with one sample a prompt the value of `paired_difference`."""
    models = {name: drawn(40, 1, seed=seed) for seed, name in enumerate("abc")}
    found = differences(models, scorer="style")
    assert list(found) == [("b", "a"), ("c", "a"), ("c", "b")]
    lists = {name: [i.scores["style"] for i in items] for name, items in models.items()}
    for (one, other), figure in found.items():
        plain = paired_difference(lists[one], lists[other])
        assert (figure.value, figure.n) == (pytest.approx(plain.value), plain.n)
        assert figure.low == pytest.approx(plain.low, abs=0.1 * (plain.high - plain.low))


def test_the_gain_over_the_base_is_the_difference() -> None:
    """Oracle: `differences` of the two."""
    items, base = drawn(), drawn(seed=1)
    assert summarise(items, base).all.gain == differences({"base": base, "model": items})["model", "base"]
