"""How a model answers the test prompts: score, wins over the references, gain over the base, distance from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from grao.data import EncodedExample
from grao.evaluation import (
    Estimate,
    bootstrap_mean,
    compare,
    evaluate_heldout,
    kl_to,
    nag,
    nag_win,
    paired_difference,
    ras,
    ras_ties_half,
)
from grao.policy import FrozenPolicy, LoadedPolicy
from grao.rewards import RewardSet
from grao.rollout import LocalEngine, SamplingParams

TEMPERATURE = 0.7
"""Of the test answers, as in the paper."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One model on the test prompts.

    Scores are the rubric's. The *verdict* on an answer is 1, 0 or −1 if it scores above, equal to or below its
    reference: the paper's reward, on which RAS and NAG are defined (`grao.evaluation.ras_nag`).
    """

    name: str
    score: Estimate
    """Mean rubric score."""
    by_category: dict[str, Estimate]
    """The same over the prompts of each category."""
    ras: Estimate
    """Share of answers that score above the reference."""
    ras_ties_half: Estimate
    """The same with ties as half a win."""
    nag: Estimate | None
    """Share of verdicts above the base's minus the share below; None for the base."""
    nag_win: Estimate | None
    """Share of verdicts above the base's; None for the base."""
    wins: int
    """Number of answers that score above their reference."""
    ties: int
    losses: int
    kl: Estimate | None
    """KL(π ‖ base) in nats per answer: mean over answers from π at temperature 1 of Σ_t k3; None for the base."""
    mean_length: Estimate
    """Tokens per answer, end included."""
    seconds: float
    """Processor seconds of training, over all threads."""
    answers: tuple[str, ...]
    """One per prompt, in the order of the rows, as scores and verdicts are."""
    scores: tuple[float, ...]
    verdicts: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for a record."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Base:
    """The model that alignment started from, and its outcome on the same prompts."""

    policy: FrozenPolicy
    outcome: Outcome


def measure(
    name: str,
    policy: LoadedPolicy,
    rows: Sequence[EncodedExample],
    rubric: RewardSet,
    *,
    base: Base | None = None,
    max_new_tokens: int,
    seconds: float = 0.0,
    seed: int = 0,
) -> Outcome:
    """Answer every test prompt once and score the answers. The draws are the same for every model with one `seed`.

    Args:
        name: The model's name in tables.
        policy: The model.
        rows: Test prompts with references; `columns["category"]` is the kind of prompt.
        rubric: Scores answers and references.
        base: Model to compare with for NAG and KL; None when the base itself is measured.
        max_new_tokens: Length limit of an answer.
        seconds: Processor seconds of training, for the record.
        seed: Seed of the draws.

    Raises:
        ValueError: If `base` was measured on another number of prompts.
    """
    engine = LocalEngine(policy.model, policy.tokenizer)
    params = SamplingParams(max_new_tokens=max_new_tokens, temperature=TEMPERATURE)
    groups = evaluate_heldout(engine, rubric, rows, params, seed=seed).groups
    scores: list[float] = []
    references: list[float] = []
    by_category: dict[str, list[float]] = {}
    for group in groups:
        score, reference = group.samples[0].reward, group.reference.reward if group.reference else None
        assert score is not None, "a rubric scores every answer"
        assert reference is not None, "a test prompt has a reference"
        scores.append(score)
        references.append(reference)
        by_category.setdefault(str(group.columns["category"]), []).append(score)
    verdicts = [float((x > y) - (x < y)) for x, y in zip(scores, references, strict=True)]
    counts = compare(scores, references)
    divergence = None if base is None else kl_to(base.policy.logprobs, policy, engine, groups, params, seed)
    return Outcome(
        name=name,
        score=bootstrap_mean(scores),
        by_category={category: bootstrap_mean(own) for category, own in sorted(by_category.items())},
        ras=ras(scores, references),
        ras_ties_half=ras_ties_half(scores, references),
        nag=None if base is None else nag(verdicts, base.outcome.verdicts),
        nag_win=None if base is None else nag_win(verdicts, base.outcome.verdicts),
        wins=counts.wins,
        ties=counts.ties,
        losses=counts.losses,
        kl=None if divergence is None else bootstrap_mean(divergence),
        mean_length=bootstrap_mean([float(len(group.samples[0].ids)) for group in groups]),
        seconds=seconds,
        answers=tuple(group.samples[0].text for group in groups),
        scores=tuple(scores),
        verdicts=tuple(verdicts),
    )


def differences(outcome: Outcome, others: Sequence[Outcome]) -> dict[str, Estimate]:
    """Return how much higher `outcome` scores than each other model on the same prompts, by the other's name.

    A paired bootstrap over prompts. Each interval is 95 %, not adjusted for their number, and says nothing about
    another training seed.
    """
    return {other.name: paired_difference(outcome.scores, other.scores) for other in others if other is not outcome}
