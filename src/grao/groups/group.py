"""The group: one prompt with all completions that are compared with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Finish = Literal["stop", "length", "given"]
"""Why a member ended: a stop token or stop string, the length limit, or it was given, not sampled."""

Prompt = str | list[dict[str, str]]
"""A prompt as in the data set: text, or a conversation of ``{"role": ..., "content": ...}`` messages."""


@dataclass(frozen=True, slots=True)
class Member:
    """One completion of a group: a sample of the policy, the reference, or a rejected answer.

    Example::

        Member(ids=(11, 42, 2), text="It is 7.", finish="stop", logprobs=(-0.1, -1.2, -0.01),
               reward=1.0, rewards={"correct": 1.0})
    """

    ids: tuple[int, ...]
    """Token ids, with the end-of-sequence token if there was one."""
    text: str
    """The decoded ids without special tokens: what rewards and readers see."""
    finish: Finish = "given"
    logprobs: tuple[float, ...] | None = None
    """log π_behaviour of each token, in nats, at the sampling temperature; None if given."""
    reward: float | None = None
    """Weighted sum over reward functions; None = *unscored*, which is not 0."""
    rewards: Mapping[str, float | None] = field(default_factory=dict)
    """The value of each reward function, by name."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """What reward functions logged with it (`log_extra`), by column."""
    mask: tuple[bool, ...] | None = None
    """One flag per id; False for tokens that the policy did not write, such as a tool's output. They are context for
    later tokens, but never enter the loss, the lengths or the metrics. None = the policy wrote every token."""

    @property
    def length(self) -> int:
        """Tokens that the policy wrote."""
        return len(self.ids) if self.mask is None else sum(self.mask)

    def __post_init__(self) -> None:
        if self.mask is not None and len(self.mask) != len(self.ids):
            raise ValueError(f"mask has {len(self.mask)} flags for {len(self.ids)} ids. Give one flag per id.")


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt, kept once, with all its members. This library never splits a group.

    Example::

        Group(row=17, prompt="3 + 4 =", prompt_ids=(5, 9, 6, 8), samples=(Member(...), Member(...)),
              reference=Member(...), columns={"answer": "7"})
    """

    row: int
    """Row of the data set; keys every draw, with the run's seed and the step."""
    prompt: Prompt
    prompt_ids: tuple[int, ...]
    samples: tuple[Member, ...] = ()
    """G completions of the policy; empty for objectives that need only the reference."""
    reference: Member | None = None
    """The reference answer: a demonstration, a preferred response, a worked solution."""
    rejected: Member | None = None
    """A dispreferred answer, if the data has one."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """All other columns of the row; reward functions receive them by name."""

    @property
    def members(self) -> tuple[Member, ...]:
        """Samples, then the reference, then the rejected answer: the order of `GroupBatch`'s member axis."""
        given = (member for member in (self.reference, self.rejected) if member is not None)
        return (*self.samples, *given)


def scored_members(members: Sequence[Member | None]) -> int:
    """Count the members with a reward. A group with fewer than two has no statistics."""
    return sum(member is not None and member.reward is not None for member in members)
