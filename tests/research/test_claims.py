"""Verdicts: the rule on intervals by hand, and effects on synthetic records whose answers are known."""

from __future__ import annotations

import math
from typing import Any

import pytest

from grao.configuration import build, with_values
from grao.evaluation import Estimate, student_mean
from research.claim import Claim
from research.claim_effects import claims_lines, claims_table, effects_of
from research.experiment_plan import ExperimentPlan

PLAN: dict[str, Any] = {
    "name": "small",
    "title": "",
    "description": "",
    "base": {},
    "axes": {
        "method": [{"label": "GRAO"}, {"label": "GRPO"}],
        "model": [{"label": "dense"}, {"label": "sparse"}],
    },
    "seeds": [0, 1, 2],
}
OF, LESS = {"method": "GRAO"}, {"method": "GRPO"}


def claim(**changes: Any) -> Claim:
    given = {"id": "c", "claim": "GRAO is better", "source": "a test", "metric": "score", "of": OF, **changes}
    return build(Claim, given)


def record(method: str, model: str, seed: int, score: float | None, **more: Any) -> dict[str, Any]:
    metrics = {} if score is None else {"score": score}
    return {
        "identity": {"axes": {"method": method, "model": model}, "seed": seed},
        "diverged": None,
        "metrics": {**metrics, **more.pop("metrics", {})},
        **more,
    }


def records(by_cell: dict[tuple[str, str], list[float | None]]) -> list[dict[str, Any]]:
    return [record(*cell, seed, score) for cell, scores in by_cell.items() for seed, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("side", "margin", "low", "high", "verdict"),
    [
        ({"above": 0.0}, 0.1, 0.01, 0.5, "holds"),
        ({"above": 0.0}, 0.1, 0.01, 0.05, "holds"),  # small, but above
        ({"above": 0.0}, 0.1, -0.5, -0.01, "does not hold"),
        ({"above": 0.0}, 0.1, -0.05, 0.05, "does not hold"),  # within the margin: none
        ({"above": 0.0}, 0.1, -0.05, 0.2, "undecided here"),
        ({"above": 0.0}, 0.0, -0.01, 0.01, "undecided here"),
        ({"above": 0.5}, 0.0, 0.51, 0.6, "holds"),
        ({"above": 0.5}, 0.0, 0.3, 0.49, "does not hold"),
        ({"below": 0.75}, 0.0, 0.2, 0.7, "holds"),
        ({"below": 0.75}, 0.0, 0.8, 1.2, "does not hold"),
        ({"below": 0.75}, 0.0, 0.5, 1.2, "undecided here"),
        ({"equal": 0.0}, 0.25, -0.2, 0.2, "holds"),
        ({"equal": 0.0}, 0.25, 0.3, 0.6, "does not hold"),
        ({"equal": 0.0}, 0.25, 0.1, 0.6, "undecided here"),
    ],
)
def test_the_rule(side: dict[str, float], margin: float, low: float, high: float, verdict: str) -> None:
    """Oracle: by hand, from the rule in words."""
    one = claim(kind="value", margin=margin, **side)
    assert one.verdict(Estimate((low + high) / 2, low, high, 8)) == verdict
    assert one.verdict(Estimate((low + high) / 2, low, high, 3)) == verdict
    assert one.verdict(Estimate((low + high) / 2, low, high, 2)) == "undecided here"
    assert one.verdict(None) == "undecided here"


def test_the_rule_in_words() -> None:
    """Oracle: the sentences."""
    assert claim(less=LESS, above=0, margin=0.02).rule == (
        "score of GRAO less that of GRPO, paired by seed. Holds: its 95 % interval over seeds lies wholly above 0. "
        "Does not hold: wholly below it, or wholly within ±0.02 of 0. Else, or with fewer than 3 seeds: undecided "
        "here."
    )
    assert (
        "lies wholly within ±0.25 of 0. Does not hold: wholly outside that."
        in claim(kind="value", equal=0, margin=0.25).rule
    )
    assert claim(kind="speed", less=LESS, below=0.75).rule.startswith(
        "steps until GRAO reaches the score that GRPO ends at, over the steps of GRPO. Holds:"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "give exactly one of above, below and equal"),
        ({"above": 0, "below": 1, "less": LESS}, "give exactly one of above, below and equal"),
        ({"above": 0}, "a difference needs `less`"),
        ({"above": 0, "less": LESS, "kind": "interaction"}, "an interaction needs `at` and `than`"),
        ({"equal": 0, "kind": "value"}, "equal needs a margin"),
        ({"below": 0, "kind": "slope"}, "`over` names the axis of a slope, and a slope needs it"),
        ({"above": 0, "kind": "value", "margin": -1}, "margin is -1.0; give 0 or more"),
    ],
)
def test_claims_that_claim_nothing(changes: dict[str, Any], message: str) -> None:
    """Oracle: the sentence."""
    with pytest.raises(ValueError, match=message):
        claim(**changes)


def test_differences_are_paired_by_seed() -> None:
    """Oracle: by hand. Seed 1 has no score of GRPO and is left out; a diverged record counts as none."""
    found = records({("GRAO", "dense"): [3.0, 5.0, 4.0], ("GRPO", "dense"): [1.0, None, 3.5]})
    found.append({**record("GRAO", "dense", 3, 9.0), "diverged": "the loss is nan"})
    found.append(record("GRPO", "dense", 3, 1.0))
    assert effects_of(claim(less=LESS, above=0), {"model": "dense"}, found) == {0: 2.0, 2: 0.5}


def test_an_interaction_is_a_difference_of_differences() -> None:
    """Oracle: by hand: (5 − 2) − (3 − 1) = 1 for seed 0, (6 − 2) − (3 − 3) = 4 for seed 1."""
    found = records(
        {
            ("GRAO", "dense"): [3.0, 3.0],
            ("GRPO", "dense"): [1.0, 3.0],
            ("GRAO", "sparse"): [5.0, 6.0],
            ("GRPO", "sparse"): [2.0, 2.0],
        }
    )
    one = claim(less=LESS, kind="interaction", at={"model": "sparse"}, than={"model": "dense"}, above=0)
    assert effects_of(one, {}, found) == {0: 1.0, 1: 4.0}


@pytest.mark.parametrize(
    ("grao", "grpo", "ratio"),
    [
        ([0.0, 3.0, 4.0], [0.0, 1.0, 3.0], 0.5),  # GRPO ends at 3: GRAO is there at 10, GRPO at 20
        ([0.0, 1.0, 2.0], [0.0, 1.0, 3.0], 1.5),  # never there: one point after its last, 30 of 20
        ([0.0, 1.0, 3.0], [0.0, 3.0, 3.0], 2.0),  # GRPO was there at 10
        ([0.0, 1.0, 3.0], [3.0, 2.0, 1.0], None),  # GRPO ends below where it began: nothing to reach
    ],
)
def test_speed_is_a_ratio_of_steps(grao: list[float], grpo: list[float], ratio: float | None) -> None:
    """Oracle: by hand, on curves measured at 0, 10 and 20 steps."""
    step = [0, 10, 20]
    found = [
        record("GRAO", "dense", 0, None, curve={"step": step, "score": grao}),
        record("GRPO", "dense", 0, None, curve={"step": step, "score": grpo}),
    ]
    one = claim(kind="speed", less=LESS, below=0.75)
    assert effects_of(one, {"model": "dense"}, found) == ({} if ratio is None else {0: ratio})


def test_a_slope_is_a_power() -> None:
    """Oracle: metric = c · T^p has slope p, whatever c; a seed with one length only has none."""
    found = [
        record("GRAO", model, seed, None, metrics={"steps": steps, "least": c * steps**p})
        for model, steps in (("dense", 15), ("sparse", 240))
        for seed, (c, p) in enumerate([(2.0, -0.5), (7.0, -1.0)])
    ]
    found.append(record("GRAO", "dense", 2, None, metrics={"steps": 15, "least": 1.0}))
    one = claim(kind="slope", metric="least", over="model", below=-0.5)
    assert effects_of(one, {}, found) == pytest.approx({0: -0.5, 1: -1.0}, abs=1e-12)
    assert math.isclose(effects_of(one, {}, found)[0], -0.5)


def test_the_table() -> None:
    """Oracle: Student's interval of the differences by hand, a row for each level of `each`, verdicts by the rule:
    differences 1.9, 2.0, 2.1 hold; −1 ± tiny does not; 2 seeds decide nothing.
    """
    described = {
        "id": "gain", "claim": "GRAO beats GRPO", "source": "Table 1", "metric": "score", "of": OF, "less": LESS,
        "above": 0, "each": ["model"], "unit": "points",
    }  # fmt: skip
    plan = build(ExperimentPlan, with_values(PLAN, [("claims", [described])]))
    found = records(
        {
            ("GRAO", "dense"): [2.9, 4.0, 5.1],
            ("GRPO", "dense"): [1.0, 2.0, 3.0],
            ("GRAO", "sparse"): [0.0, 1.0, 2.01],
            ("GRPO", "sparse"): [1.0, 2.0, 3.0],
        }
    )
    dense, sparse = claims_table(plan, found)
    expected = student_mean([1.9, 2.0, 2.1])
    assert dense == {
        "id": "gain/dense",
        "claim": "GRAO beats GRPO (model dense)",
        "source": "Table 1",
        "verdict": "holds",
        "effect": pytest.approx({"value": 2.0, "low": expected.low, "high": expected.high, "n": 3}),
        "unit": "points",
        "plan": "small",
        "rule": plan.claims[0].rule,
    }
    assert (sparse["id"], sparse["verdict"]) == ("gain/sparse", "does not hold")
    assert [row["verdict"] for row in claims_table(plan, [r for r in found if r["identity"]["seed"] < 2])] == [
        "undecided here",
        "undecided here",
    ]
    line = (
        f"holds           gain/dense: GRAO beats GRPO (model dense); 2 [{expected.low:.3g}, {expected.high:.3g}] (n=3)"
    )
    assert claims_lines([dense]) == [line]
    assert claims_lines(claims_table(plan, []))[0].endswith("; no seed has it")
    nothing = {"value": None, "low": None, "high": None, "n": 0}
    assert [row["effect"] for row in claims_table(plan, [])] == [nothing, nothing]
