"""How a model answers a task's test prompts: score, wins over the references, gain over the base, distance from it."""

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
from grao.groups import Group
from grao.policy import FrozenPolicy, LoadedPolicy
from grao.rewards import RewardSet
from grao.rollout import LocalEngine, SamplingParams

TEMPERATURE = 0.7
"""Of the test answers, as in the paper."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One model on the test prompts.

    Scores are the rubric's. The *verdict* on an answer is 1, 0 or −1, as it scores above, like or below its reference:
    the paper's reward, which RAS and NAG are defined on (`grao.evaluation.ras_nag`).
    """

    name: str
    score: Estimate
    """Mean rubric score."""
    by_category: dict[str, Estimate]
    """The same over the prompts of each category."""
    ras: Estimate
    """How often the answer beats the reference."""
    ras_ties_half: Estimate
    """The same with ties as half a win."""
    nag: Estimate | None
    """How much more often the verdict is above the base's than below it; none for the base."""
    nag_win: Estimate | None
    """How often the verdict is above the base's; none for the base."""
    wins: int
    """Answers that score above their reference."""
    ties: int
    losses: int
    kl: Estimate | None
    """KL(π ‖ base) in nats an answer: mean over answers drawn from π at temperature 1 of Σ_t k3; none for the base."""
    mean_length: Estimate
    """Tokens of an answer, its end included."""
    seconds: float
    """Of training: processor time, over all threads."""
    answers: tuple[str, ...]
    """One a prompt, in the order of the rows; so are the scores and verdicts."""
    scores: tuple[float, ...]
    verdicts: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for a record."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Base:
    """What aligned models are held against: the model they started from, and how it did on the same prompts."""

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
    """Answer every test prompt once, with the same seeds for every model, and score the answers by the rubric.

    Args:
        name: of the model, in tables.
        policy: the model.
        rows: test prompts with references; `columns["category"]` names the kind of prompt.
        rubric: scores every answer and every reference.
        base: what NAG and the KL compare with; none when the base itself is measured.
        max_new_tokens: length limit of an answer.
        seconds: of training, for the record.
        seed: of the draws; the same one for models that are compared.

    Raises:
        ValueError: `base` was measured on another number of prompts.
    """
    engine = LocalEngine(policy.model, policy.tokenizer)
    params = SamplingParams(max_new_tokens=max_new_tokens, temperature=TEMPERATURE)
    groups = evaluate_heldout(engine, rubric, rows, params, seed=seed).groups
    scores, references = _scores(groups)
    verdicts = [float((x > y) - (x < y)) for x, y in zip(scores, references, strict=True)]
    counts = compare(scores, references)
    by_category: dict[str, list[float]] = {}
    for group, score in zip(groups, scores, strict=True):
        by_category.setdefault(str(group.columns["category"]), []).append(score)
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
        kl=None if base is None else _kl(base.policy, policy, engine, groups, params, seed),
        mean_length=bootstrap_mean([float(len(group.samples[0].ids)) for group in groups]),
        seconds=seconds,
        answers=tuple(group.samples[0].text for group in groups),
        scores=tuple(scores),
        verdicts=tuple(verdicts),
    )


def _kl(
    base: FrozenPolicy,
    policy: LoadedPolicy,
    engine: LocalEngine,
    groups: Sequence[Group],
    params: SamplingParams,
    seed: int,
) -> Estimate:
    """Mean over prompts of `kl_to`."""
    return bootstrap_mean(kl_to(base.logprobs, policy, engine, groups, params, seed))


def differences(outcome: Outcome, others: Sequence[Outcome]) -> dict[str, Estimate]:
    """How much more `outcome` scores than each other model on the same prompts, by the other's name.

    A paired bootstrap over prompts. The intervals are each 95 %, not adjusted for their number, and say nothing about
    another training seed.
    """
    return {other.name: paired_difference(outcome.scores, other.scores) for other in others if other is not outcome}


def _scores(groups: Sequence[Group]) -> tuple[list[float], list[float]]:
    """The rubric's scores of the answers and of the references: all of them, or there is nothing to compare with."""
    scores, references = [], []
    for group in groups:
        score, reference = group.samples[0].reward, group.reference.reward if group.reference else None
        assert score is not None, "a rubric scores every answer"
        assert reference is not None, "a test prompt has a reference"
        scores.append(score)
        references.append(reference)
    return scores, references
