"""GRAO against Eq. 3 written as loops, its collapse to two coefficients, and the identities that follow."""

from __future__ import annotations

import math
import random
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from tests.objectives.policy_outputs import loss_of

from grao.groups import collate
from grao.objectives import GRAO

OVER = ("joint", "samples", "split")
NEGATIVE = ("keep", "clamp", "gate", "taper")
AGGREGATION = ("sequence_mean", "token_mean", "constant")


def with_length(**settings: object) -> GRAO:
    return GRAO(**settings, length=7 if settings.get("aggregation") == "constant" else None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("over", "negative", "aggregation"), [*product(OVER, NEGATIVE, AGGREGATION)])
def test_matches_equation_3(plain: SimpleNamespace, over: str, negative: str, aggregation: str) -> None:
    """Oracle: Eq. 3 in float64 loops, value and gradient, unscored members and masked truncated samples included."""
    objective = with_length(advantages_over=over, negative_reference=negative, aggregation=aggregation)
    for seed in range(5):
        scored = plain.random_scored(
            seed, frozen=True, rejected=seed == 3, truncated=seed > 2, mask_truncated=seed == 4
        )
        assert plain.largest_difference(objective, plain.grao_oracle(objective), scored) <= 1e-12


@pytest.mark.parametrize(("beta", "lam", "exploration"), [(0.0, 0.6, 1.0), (0.5, 0.0, 1.0), (0.5, 0.6, 0.0)])
@pytest.mark.parametrize("over", OVER)
def test_ablations_remove_a_term_literally(
    plain: SimpleNamespace, beta: float, lam: float, exploration: float, over: str
) -> None:
    """Oracle: Eq. 3 in loops with one weight at 0 (the paper's Table 3)."""
    objective = GRAO(beta=beta, lam=lam, exploration=exploration, advantages_over=over)  # type: ignore[arg-type]
    scored = plain.random_scored(1)
    assert plain.largest_difference(objective, plain.grao_oracle(objective), scored) <= 1e-12


@pytest.mark.parametrize("negative", ["keep", "clamp"])
@pytest.mark.parametrize("over", OVER)
def test_gradcheck(plain: SimpleNamespace, over: str, negative: str) -> None:
    """Oracle: finite differences (`gate` and `taper` hold a stop-gradient and are checked by the loops)."""
    objective = GRAO(advantages_over=over, negative_reference=negative)  # type: ignore[arg-type]
    scored = plain.random_scored(2, P=2, G=3)
    batch = scored.batch.with_(advantages_PM=objective.advantages(scored.batch))
    denominator = objective.denominator(batch)
    assert torch.autograd.gradcheck(lambda x: loss_of(objective, batch, x, denominator).loss, scored.logprobs_PMT)


def coefficients(plain: SimpleNamespace, objective: GRAO, rewards, reference) -> tuple[list[float], float]:
    """The weights on J(o_i) and J(y) that autograd sees, for one group of one-token members."""
    group = plain.random_group(random.Random(0), 0, rewards, reference, longest=1)
    scored = plain.score(collate([group], pad_token_id=0), 0)
    gradient = -plain.our_loss(objective, scored)[1][0, :, 0]
    return gradient[:-1].tolist(), gradient[-1].item()


@pytest.mark.parametrize("over", ["joint", "samples"])
def test_collapse_to_two_coefficients(plain: SimpleNamespace, over: str) -> None:
    """Oracle: c_i = (1+λ)A_i/G, c_y = (β + λ/G)A_y (joint) or βA_y (samples), from loop advantages (methods.md 1a)."""
    rng = random.Random(0)
    for _ in range(100):
        G, beta, lam = rng.choice([2, 3, 4, 8]), rng.random(), rng.random()
        rewards, reference = [rng.gauss(0, 1) for _ in range(G)], rng.gauss(0, 1)
        A = plain.standardise_loop([*rewards, reference], [*rewards, reference] if over == "joint" else rewards)
        c, c_y = coefficients(plain, GRAO(beta=beta, lam=lam, advantages_over=over), rewards, reference)  # type: ignore[arg-type]
        assert c == pytest.approx([(1 + lam) * a / G for a in A[:G]], abs=1e-12)
        assert c_y == pytest.approx((beta + (lam / G if over == "joint" else 0)) * A[G], abs=1e-12)


@pytest.mark.parametrize(
    ("wins", "A_y", "c_y", "share"),
    [
        (0, 2.83, 1.63, 0.74),
        (1, 1.0, 0.575, 0.32),
        (2, 0.535, 0.307, 0.17),
        (3, 0.243, 0.14, 0.08),
        (4, 0.0, 0.0, 0.0),
        (5, -0.243, -0.14, 0.08),
        (6, -0.535, -0.307, 0.17),
        (7, -1.0, -0.575, 0.32),
        (8, -2.83, -1.63, 0.74),
    ],
)
def test_table_of_a_judged_group_of_eight(
    plain: SimpleNamespace, wins: int, A_y: float, c_y: float, share: float
) -> None:
    """Oracle: the G = 8 table of docs/methods.md, hand numbers to the printed digits; the loss's own metrics agree."""
    rewards = [1.0] * wins + [-1.0] * (8 - wins)
    group = plain.random_group(random.Random(0), 0, rewards, 0.0, longest=1)
    scored = plain.score(collate([group], pad_token_id=0), 0)
    batch = scored.batch.with_(advantages_PM=GRAO().advantages(scored.batch))
    out = loss_of(GRAO(), batch, scored.logprobs_PMT, GRAO().denominator(batch))
    c, weight = coefficients(plain, GRAO(), rewards, 0.0)
    assert batch.advantages_PM[0, 8].item() == pytest.approx(A_y, abs=5.1e-3)
    assert weight == pytest.approx(c_y, abs=5.1e-3)
    assert abs(weight) / (abs(weight) + sum(map(abs, c))) == pytest.approx(share, abs=5.1e-3)
    metrics = {k: (m.total / m.count).item() for k, m in out.metrics.items()}
    assert metrics["weight/reference"] == pytest.approx(c_y, abs=5.1e-3)
    assert metrics["weight/reference_share"] == pytest.approx(share, abs=5.1e-3)
    assert metrics["weight/reference_negative"] == float(wins > 4)


def test_share_of_the_reference_when_all_win(plain: SimpleNamespace) -> None:
    """Oracle: (βG+λ)/(βG+2λ+1) = 4.6/6.2 (methods.md 1c), for the defaults at G = 8."""
    c, c_y = coefficients(plain, GRAO(), [1.0] * 8, 0.0)
    assert abs(c_y) / (abs(c_y) + sum(map(abs, c))) == pytest.approx(4.6 / 6.2, abs=1e-12)


def test_on_the_line_beta_is_one_over_g_the_reference_weighs_as_one_more_sample(plain: SimpleNamespace) -> None:
    """Oracle: β = 1/G gives y the coefficient (1+λ)A_y/G of a sample, for every λ (methods.md 1b)."""
    rewards = [0.3, 1.0, -0.5, 0.9]
    A_y = plain.standardise_loop([0.7], [*rewards, 0.7])[0]
    for lam in (0.0, 0.6, 2.0):
        c_y = coefficients(plain, GRAO(beta=0.25, lam=lam), rewards, 0.7)[1]
        assert c_y == pytest.approx((1 + lam) * A_y / 4, abs=1e-12)


def test_terms_are_the_papers_whatever_is_chosen(plain: SimpleNamespace) -> None:
    """Oracle: `negative_reference` only adds `correction`; the three terms sum to the paper's loss."""
    scored = plain.random_scored(5, frozen=True)
    paper = plain.our_loss(GRAO(), scored)[0]
    for negative in NEGATIVE:
        objective = GRAO(negative_reference=negative)  # type: ignore[arg-type]
        batch = scored.batch.with_(advantages_PM=objective.advantages(scored.batch))
        terms = dict(loss_of(objective, batch, scored.logprobs_PMT, objective.denominator(batch)).terms)
        assert ("correction" in terms) == (negative != "keep")
        terms.pop("correction", None)
        assert set(terms) == {"exploration", "imitation", "regulariser"}
        assert sum(t.item() for t in terms.values()) == pytest.approx(paper, abs=1e-12)


@pytest.mark.parametrize("over", OVER)
def test_clamp_removes_a_negative_weight_and_nothing_else(plain: SimpleNamespace, over: str) -> None:
    """Oracle: with the reference beaten, its gradient is 0 and the samples' is `keep`'s; else all equal."""
    for rewards, reference, beaten in ([[1.0, 1.0, -1.0, 1.0], 0.0, True], [[-1.0, 1.0, -1.0, -1.0], 0.0, False]):
        keep, keep_y = coefficients(plain, GRAO(advantages_over=over), rewards, reference)  # type: ignore[arg-type]
        c, c_y = coefficients(plain, GRAO(advantages_over=over, negative_reference="clamp"), rewards, reference)  # type: ignore[arg-type]
        assert c == pytest.approx(keep, abs=1e-15)
        assert (keep_y < 0) == beaten
        assert c_y == pytest.approx(0.0 if beaten else keep_y, abs=1e-15)


def test_gate_and_taper_by_hand(plain: SimpleNamespace) -> None:
    """Oracle: two wins, one token each: joint A_y = −√2, c_y = −(0.5 + 0.3)√2; times p, times min(1, π/π_frozen)."""
    group = plain.random_group(random.Random(0), 0, [1.0, 1.0], 0.0, longest=1)
    scored = plain.score(collate([group], pad_token_id=0), 0)
    p, frozen = math.exp(scored.logprobs_PMT[0, 2, 0].item()), 0.9
    batch = scored.batch.with_(frozen_logprobs_PMT=torch.full((1, 3, 1), math.log(frozen), dtype=torch.float64))
    scored = plain.Scored(batch, scored.logprobs_PMT)
    c_y = -0.8 * math.sqrt(2)
    assert p < frozen
    gate = -plain.our_loss(GRAO(negative_reference="gate"), scored)[1][0, 2, 0].item()
    taper = -plain.our_loss(GRAO(negative_reference="taper"), scored)[1][0, 2, 0].item()
    assert gate == pytest.approx(c_y * p, abs=1e-12)
    assert taper == pytest.approx(c_y * p / frozen, abs=1e-12)


def test_an_unscored_reference_is_left_alone(plain: SimpleNamespace) -> None:
    """Oracle: R_y unscored means A_y = 0, and Σ_i A_i = 0 over the samples: no weight, none counted as negative."""
    for over, seed in product(OVER, range(20)):
        rng = random.Random(seed)
        rewards = [rng.gauss(0, 1) for _ in range(5)]
        group = plain.random_group(rng, 0, rewards, None)
        scored = plain.score(collate([group], pad_token_id=0), seed)
        objective = GRAO(advantages_over=over)  # type: ignore[arg-type]
        batch = scored.batch.with_(advantages_PM=objective.advantages(scored.batch))
        logprobs = scored.logprobs_PMT.detach().float().requires_grad_()
        out = loss_of(objective, batch, logprobs, objective.denominator(batch))
        out.loss.backward()
        assert logprobs.grad[0, 5].abs().max().item() <= 1e-7
        assert logprobs.grad[0, :5].abs().max().item() > 1e-2
        assert out.metrics["weight/reference_negative"].total.item() == 0


# --- equivalence classes, on a tiny autoregressive model ----------------------------------------------------------

V, D = 7, 6


def log_pi(weights: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """log π of token sequences under logits_t = W · tanh(E[x_{t−1}] + U · h_{t−1}): a small recurrent model."""
    h, previous, out = torch.zeros(D, dtype=torch.float64), 0, []
    for token in ids.tolist():
        h = torch.tanh(weights["E"][previous] + weights["U"] @ h)
        out.append((weights["W"] @ h).log_softmax(-1)[token])
        previous = token
    return torch.stack(out)


def trajectory(plain: SimpleNamespace, objective: GRAO, eps: float = 1e-8, steps: int = 100) -> torch.Tensor:
    """Parameters after AdamW steps on random groups of eight, each drawn from its own seed."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: (torch.randn(shape, generator=generator, dtype=torch.float64) * 0.3).requires_grad_()
        for name, shape in {"E": (V, D), "U": (D, D), "W": (V, D)}.items()
    }
    optimiser = torch.optim.AdamW(weights.values(), lr=1e-3, eps=eps)
    for step in range(steps):
        rng = random.Random(step)
        group = plain.random_group(rng, 0, [rng.choice([-1.0, 0.0, 1.0]) for _ in range(8)], 0.0, longest=3)
        batch = collate([group], pad_token_id=0)
        ids = batch.ids_PMT % V
        T = ids.shape[2]
        rows = [log_pi(weights, ids[0, m][batch.mask_PMT[0, m]]) for m in range(9)]
        logprobs = torch.stack([torch.nn.functional.pad(r, (0, T - len(r))) for r in rows])[None]
        batch = batch.with_(advantages_PM=objective.advantages(batch))
        optimiser.zero_grad()
        loss_of(objective, batch, logprobs, objective.denominator(batch)).loss.backward()
        optimiser.step()
    return torch.cat([w.detach().flatten() for w in weights.values()])


def test_the_grid_of_beta_and_lambda_is_one_dimensional_under_adam(plain: SimpleNamespace) -> None:
    """Oracle: GRAO(0.5, 0.6) = 1.6 · GRAO(0.359375, 0) at G = 8 (joint), and AdamW forgets a common factor.

    Exactly (1e-16 measured), if adam-eps is divided by it too; up to eps (3e-7 measured) at the same eps. The control,
    GRAO(0.5, 0), is four orders of magnitude further away (3e-3 measured).
    """
    ours = trajectory(plain, GRAO(beta=0.5, lam=0.6))

    def distance(objective: GRAO, eps: float = 1e-8) -> float:
        return (ours - trajectory(plain, objective, eps)).abs().max().item()

    assert distance(GRAO(beta=0.359375, lam=0.0), eps=1e-8 / 1.6) <= 1e-13
    assert distance(GRAO(beta=0.359375, lam=0.0)) <= 5e-7
    assert distance(GRAO(beta=0.5, lam=0.0)) >= 1e-3


# --- settings ------------------------------------------------------------------------------------------------------


def test_the_default_is_the_paper() -> None:
    """Oracle: arXiv 2508.07750: β = 0.5, λ = 0.6, joint statistics, no repair, |x| as the normaliser."""
    assert GRAO() == GRAO(0.5, 0.6, 1.0, "joint", "keep", "sequence_mean", None)
    needs = GRAO().needs
    assert (needs.samples, needs.reference, needs.rejected, needs.frozen_policy) == (True, True, False, False)
    assert GRAO(negative_reference="taper").needs.frozen_policy


def test_the_recommended_preset_departs_in_two_choices() -> None:
    """Oracle: the docstring of `recommended`; a change on top of it is kept."""
    assert GRAO.recommended() == GRAO(advantages_over="split", negative_reference="clamp")
    assert GRAO.recommended(beta=0.3) == GRAO(beta=0.3, advantages_over="split", negative_reference="clamp")
    assert GRAO.recommended(negative_reference="gate").negative_reference == "gate"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"advantages_over": "group"}, "advantages_over is 'group'; it must be one of joint, samples, split"),
        (
            {"negative_reference": "drop"},
            "negative_reference is 'drop'; it must be one of keep, clamp, gate, taper",
        ),
        ({"beta": -0.1}, "beta is -0.1; a weight must be a finite number, 0 or more"),
        ({"lam": -1.0}, "lam is -1.0; a weight must be a finite number, 0 or more"),
        ({"exploration": -1.0}, "exploration is -1.0; a weight must be a finite number, 0 or more"),
        (
            {"aggregation": "mean"},
            "aggregation is 'mean'; it must be one of sequence_mean, token_mean, constant",
        ),
        (
            {"aggregation": "constant"},
            "aggregation='constant' divides by a fixed length, but length is None; give a positive number of tokens, "
            "usually the rollout's max_new_tokens",
        ),
    ],
)
def test_bad_settings_say_what_to_do(settings: dict, message: str) -> None:
    """Oracle: the whole message, read by a person."""
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole message is compared below
        GRAO(**settings)
    assert str(raised.value) == message


@pytest.mark.parametrize("name", ["beta", "lam", "exploration"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_must_be_finite(name: str, value: float) -> None:
    """Oracle: NaN passes `< 0`, and would poison every parameter on the first step."""
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        GRAO(**{name: value})
