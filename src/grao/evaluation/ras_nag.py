"""RAS and NAG: how often answers beat the reference, and how often alignment made them better (arXiv 2508.07750).

For prompt i of n let o be the model's answer, y the reference answer, o_pre and o_post the answers of the base model
and of the aligned one, and R the reward. The paper's is a verdict against the reference: R(o) ∈ {−1, 0, 1}, R(y) = 0.

    RAS        (1/n) Σ_i 1[R(o) > R(y)]                                            ties count nothing
    RAS, ½     (1/n) Σ_i 1[R(o) > R(y)] + ½ · 1[R(o) = R(y)]                        ties count half
    NAG        (1/n) Σ_i 1[R(o_post) > R(o_pre)] − 1[R(o_post) < R(o_pre)]          net, in [−1, 1]
    NAG, wins  (1/n) Σ_i 1[R(o_post) > R(o_pre)]                                   in [0, 1]

The paper defines RAS by R > 0, but its appendix speaks of wins and ties combined; it prints NAG as the mean of an
indicator, yet its tables hold negative values. So each has two readings here, the first of which is meant by the bare
name. Rewards may be graded too: only their order within a prompt counts.

With several answers a prompt, the value of a prompt is the mean over its pairs: of each answer and the reference for
RAS, of each answer of the one model and each of the other for NAG (`win_shares`, `half_tie_shares`, `net_shares`).

Everywhere a prompt with an unscored answer on either side is left out, and the estimate's n says how many are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from grao.evaluation.intervals import Estimate, bootstrap_mean, wilson
from grao.evaluation.paired import Rewards, WinTieLoss, compare, some_pairs

ItemsByPrompt = Iterable[WinTieLoss]
"""The pairs of each prompt, at least one a prompt."""


def win_shares(prompts: ItemsByPrompt) -> list[float]:
    """Of each prompt's pairs, how many are won: the values whose mean RAS and `nag_win` are."""
    return [pairs.wins / pairs.n for pairs in prompts]


def half_tie_shares(prompts: ItemsByPrompt) -> list[float]:
    """The same with ties as half a win."""
    return [(pairs.wins + pairs.ties / 2) / pairs.n for pairs in prompts]


def net_shares(prompts: ItemsByPrompt) -> list[float]:
    """Of each prompt's pairs, how many are won less how many are lost."""
    return [(pairs.wins - pairs.losses) / pairs.n for pairs in prompts]


def ras(answers: Rewards, references: Rewards, *, confidence: float = 0.95) -> Estimate:
    """Relative adversarial score: P(R(o) > R(y)), with Wilson's interval.

    Args:
        answers: R(o), one a prompt.
        references: R(y) of the same prompts; zeros where the reward is a comparison with the reference.
        confidence: of the interval.

    Raises:
        ValueError: the lists differ in length, or no pair is scored on both sides.
    """
    return _win_rate(answers, references, confidence)


def ras_ties_half(answers: Rewards, references: Rewards, *, confidence: float = 0.95) -> Estimate:
    """RAS with ties as half a win: P(R(o) > R(y)) + ½ P(R(o) = R(y)); ½ is a model that answers like the reference.

    A prompt earns 0, ½ or 1, which is no proportion, so the interval is a bootstrap over prompts. Arguments and errors
    as `ras`.
    """
    return bootstrap_mean(half_tie_shares(_single(answers, references)), confidence=confidence)


def nag(post: Rewards, pre: Rewards, *, confidence: float = 0.95) -> Estimate:
    """Normalised alignment gain, net: P(R(o_post) > R(o_pre)) − P(R(o_post) < R(o_pre)), in [−1, 1].

    The interval is a bootstrap over prompts. Where all prompts agree it has no width: that is the bootstrap's silence
    about what it did not see, not certainty; `nag_win` keeps its width there.

    Args:
        post: rewards of the aligned model's answers, one a prompt.
        pre: rewards of the base model's answers to the same prompts.
        confidence: of the interval.

    Raises:
        ValueError: the lists differ in length, or no pair is scored on both sides.
    """
    return bootstrap_mean(net_shares(_single(post, pre)), confidence=confidence)


def nag_win(post: Rewards, pre: Rewards, *, confidence: float = 0.95) -> Estimate:
    """Normalised alignment gain as printed: P(R(o_post) > R(o_pre)), with Wilson's interval. Arguments as `nag`.

    It cannot tell a tie from a loss: a model that did not move at all has 0, and so has one that got worse throughout.
    """
    return _win_rate(post, pre, confidence)


def _win_rate(a: Rewards, b: Rewards, confidence: float) -> Estimate:
    pairs = _single(a, b)
    return wilson(sum(pair.wins for pair in pairs), len(pairs), confidence)


def _single(a: Rewards, b: Rewards) -> Sequence[WinTieLoss]:
    """Prompts of one pair each."""
    return [compare([x], [y]) for x, y in some_pairs(a, b)]
