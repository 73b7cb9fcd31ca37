"""Sums and means of token log-probs: shared by the losses."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

Aggregation = Literal["sequence_mean", "token_mean", "constant"]
"""Reduction of token values to a loss.

`sequence_mean`: mean over a sequence's tokens, then over sequences (GRPO, GRAO as printed).
`token_mean`: mean over all tokens of the step (DAPO).
`constant`: sum over tokens divided by a constant length, then mean over sequences (Dr.GRPO).
"""


def check_aggregation(aggregation: str, length: int | None) -> None:
    """Raise a `ValueError` unless the choice exists and `constant` comes with its length."""
    if aggregation not in get_args(Aggregation):
        raise ValueError(f"aggregation is {aggregation!r}; it must be one of {', '.join(get_args(Aggregation))}")
    if aggregation == "constant" and (length is None or length < 1):
        raise ValueError(
            f"aggregation='constant' divides by a fixed length, but length is {length!r}; "
            "give a positive number of tokens, usually the rollout's max_new_tokens"
        )


def zero_masked(values: Tensor, mask: Tensor) -> Tensor:
    """Return the values where the mask is True and 0 elsewhere, gradients included, even of NaN (NaN · 0 is NaN)."""
    return values.masked_fill(~mask, 0)


def mean_logprob(logprobs: Tensor, mask: Tensor, length: Tensor | float | None = None) -> Tensor:
    """Return J(x) = (1/L) Σ_t log π(x_t | x_<t), in nats, over the last axis.

    L is the member's own number of tokens |x| unless `length` gives another normaliser. A member without tokens has
    J = 0 and no gradient.
    """
    total = zero_masked(logprobs, mask).sum(-1)
    return total / (mask.sum(-1).clamp(min=1) if length is None else length)


def aggregate(
    values_PNT: Tensor, mask_PNT: Tensor, denominator: Tensor, aggregation: Aggregation, length: int | None
) -> Tensor:
    """Reduce token values to one number, this batch's share of the step's mean.

    Args:
        values_PNT: Per-token values; masked ones do not count.
        mask_PNT: bool, tokens that count.
        denominator: [sequences, tokens] of the *whole* step, so that micro-batches add up.
        aggregation: See `Aggregation`.
        length: The constant of `constant`, in tokens.
    """
    sequences, tokens = denominator.to(values_PNT.dtype).clamp(min=1)
    values_PNT = zero_masked(values_PNT, mask_PNT)
    if aggregation == "token_mean":
        return values_PNT.sum() / tokens
    if aggregation == "constant":
        assert length is not None, "check_aggregation asks for it"
        return values_PNT.sum() / (sequences * length)
    return (values_PNT.sum(-1) / mask_PNT.sum(-1).clamp(min=1)).sum() / sequences
