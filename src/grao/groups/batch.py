"""A batch of groups as tensors, and the legend of every shape suffix in this library.

    P   groups (prompts) in the batch
    S   prompt tokens, right-padded
    G   samples per prompt
    M   members per group: the G samples, then the reference, then the rejected answer (where present)
    T   tokens of a member, right-padded

A name gives its shape: ``logprobs_PMT`` is [P, M, T]. The member axis has one layout for the whole batch; a group
without a reference has an empty member in that place (its mask is all False).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from grao.groups.group import Group, Member


@dataclass(frozen=True, slots=True)
class GroupBatch:
    """P groups as tensors. Immutable: `with_` returns a copy with some fields set."""

    rows_P: Tensor
    """int64, the row of each group in the data set."""
    prompt_ids_PS: Tensor
    prompt_mask_PS: Tensor
    """bool, True on real tokens."""
    ids_PMT: Tensor
    mask_PMT: Tensor
    """bool, True on tokens that count in the loss. Other tokens before the last of those are context. A member whose
    mask is all False costs no compute."""
    rewards_PM: Tensor
    """float64; NaN = unscored."""
    num_samples: int
    """G."""
    has_reference: bool
    has_rejected: bool
    truncated_PM: Tensor
    """bool, True on samples that reached the length limit."""
    advantages_PM: Tensor | None = None
    """The objective's `advantages`: [P, M], or [P, M, T] per token."""
    sampling_logprobs_PMT: Tensor | None = None
    """Log-probs that the engine reported, at the sampling temperature, in nats. They check the engine, and correct the
    loss if it is not exact (`objectives/ratio.py`)."""
    behaviour_logprobs_PMT: Tensor | None = None
    """log π_behaviour in nats, constant; None with one update per rollout, where the ratio is 1."""
    frozen_logprobs_PMT: Tensor | None = None
    """log π_frozen in nats, constant; None unless the objective needs the frozen policy."""
    values_PMT: Tensor | None = None
    """V_φ of the state before each token, at the rollout; constant. None without a critic."""
    part_advantages_PM: tuple[Tensor, ...] = ()
    """The advantages of each part of a `Sum`, in its order; empty for other objectives."""
    sampling_is_exact: bool = True
    """Whether the samples were drawn from the policy itself, up to rounding. False for an engine with numerics of its
    own, such as a vLLM server."""

    def __len__(self) -> int:
        return self.rows_P.shape[0]

    @property
    def reference_index(self) -> int:
        """Index of the reference on the member axis."""
        assert self.has_reference, "this batch has no reference"
        return self.num_samples

    @property
    def rejected_index(self) -> int:
        """Index of the rejected answer on the member axis."""
        assert self.has_rejected, "this batch has no rejected answer"
        return self.num_samples + self.has_reference

    def samples(self, x: Tensor) -> Tensor:
        """Return the samples' part of a [P, M, ...] tensor: [P, G, ...]."""
        return x[:, : self.num_samples]

    def reference(self, x: Tensor) -> Tensor:
        """Return the reference's part of a [P, M, ...] tensor: [P, ...]."""
        return x[:, self.reference_index]

    def rejected(self, x: Tensor) -> Tensor:
        """Return the rejected answer's part of a [P, M, ...] tensor: [P, ...]."""
        return x[:, self.rejected_index]

    @property
    def scored_PM(self) -> Tensor:
        """bool [P, M]: members with a reward."""
        return ~self.rewards_PM.isnan()

    @property
    def lengths_PM(self) -> Tensor:
        """int64 [P, M]: tokens of each member that count."""
        return self.mask_PMT.sum(-1)

    @property
    def num_tokens(self) -> int:
        """Tokens of the batch that count, with each prompt once."""
        return int(self.prompt_mask_PS.sum() + self.mask_PMT.sum())

    def with_(self, **changes: Any) -> GroupBatch:
        """Return a copy with these fields replaced."""
        return replace(self, **changes)

    def select(self, index: Sequence[int]) -> GroupBatch:
        """Return the groups at these indices, whole, with padding trimmed to what they need."""
        where = torch.as_tensor(index, dtype=torch.long, device=self.rows_P.device)
        S, T = _longest(self.prompt_mask_PS[where]), _longest(self.mask_PMT[where])

        def pick(name: str, value: Tensor) -> Tensor:
            if name.endswith("_PS"):
                return value[where][:, :S]
            return value[where][:, :, :T] if value.dim() == 3 else value[where]

        return self._mapped(pick)

    def to(self, device: torch.device | str) -> GroupBatch:
        """Return the batch on another device; float64 becomes float32 on devices without it."""

        def move(name: str, value: Tensor) -> Tensor:
            narrow = value.dtype == torch.float64 and torch.device(device).type == "mps"
            return value.to(device, torch.float32) if narrow else value.to(device)

        return self._mapped(move)

    def _mapped(self, change: Callable[[str, Tensor], Tensor]) -> GroupBatch:
        """Return a copy in which every tensor is `change(field, tensor)`."""

        def changed(name: str, value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(change(name, part) for part in value)
            return change(name, value) if isinstance(value, Tensor) else value

        return GroupBatch(**{f.name: changed(f.name, getattr(self, f.name)) for f in fields(self)})


def _longest(mask: Tensor) -> int:
    """Return the shortest last axis that holds every True; at least 1, so that no tensor is empty."""
    used = mask.reshape(-1, mask.shape[-1]).any(0).nonzero()
    return int(used.max()) + 1 if len(used) else 1


def collate(
    groups: Sequence[Group],
    *,
    pad_token_id: int,
    mask_truncated: bool = False,
    mask_reference: bool = False,
    sampling_is_exact: bool = True,
) -> GroupBatch:
    """Make one `GroupBatch` of groups with equally many samples.

    References (and rejected answers) get a place on the member axis if any group has one. Tokens that a member's own
    `mask` excludes are context: in the ids, but not in `mask_PMT`.

    Args:
        groups: Groups.
        pad_token_id: Fills up the ids.
        mask_truncated: Exclude samples that reached the length limit from the loss; their rewards still count.
        mask_reference: Exclude references from the loss, for objectives that do not learn from them.
        sampling_is_exact: The engine's `exact`.
    """
    assert groups, "cannot collate no groups"
    G = len(groups[0].samples)
    assert all(len(g.samples) == G for g in groups), "groups of one batch must have equally many samples"
    assert all(g.prompt_ids for g in groups), "without a prompt token nothing predicts a member's first one"
    has_reference = any(g.reference is not None for g in groups)
    has_rejected = any(g.rejected is not None for g in groups)
    members: list[list[Member | None]] = [
        [*g.samples, *[g.reference] * has_reference, *[g.rejected] * has_rejected] for g in groups
    ]
    S = max(len(g.prompt_ids) for g in groups)
    T = max((len(m.ids) for row in members for m in row if m is not None), default=1) or 1
    P, M = len(groups), len(members[0])
    sampling_is_reported = G > 0 and all(m.logprobs is not None for g in groups for m in g.samples)
    batch = GroupBatch(
        rows_P=torch.tensor([g.row for g in groups], dtype=torch.long),
        prompt_ids_PS=torch.full((P, S), pad_token_id, dtype=torch.long),
        prompt_mask_PS=torch.zeros((P, S), dtype=torch.bool),
        ids_PMT=torch.full((P, M, T), pad_token_id, dtype=torch.long),
        mask_PMT=torch.zeros((P, M, T), dtype=torch.bool),
        rewards_PM=torch.full((P, M), float("nan"), dtype=torch.float64),
        num_samples=G,
        has_reference=has_reference,
        has_rejected=has_rejected,
        truncated_PM=torch.zeros((P, M), dtype=torch.bool),
        sampling_logprobs_PMT=torch.zeros((P, M, T)) if sampling_is_reported else None,
        sampling_is_exact=sampling_is_exact,
    )
    for p, (group, row) in enumerate(zip(groups, members, strict=True)):
        batch.prompt_ids_PS[p, : len(group.prompt_ids)] = torch.tensor(group.prompt_ids, dtype=torch.long)
        batch.prompt_mask_PS[p, : len(group.prompt_ids)] = True
        for m, member in enumerate(row):
            if member is None:
                continue
            n = len(member.ids)
            truncated = member.finish == "length"
            batch.ids_PMT[p, m, :n] = torch.tensor(member.ids, dtype=torch.long)
            batch.truncated_PM[p, m] = truncated
            if not (mask_truncated and truncated) and not (mask_reference and member is group.reference):
                batch.mask_PMT[p, m, :n] = True if member.mask is None else torch.tensor(member.mask)
            if member.reward is not None:
                batch.rewards_PM[p, m] = member.reward
            if batch.sampling_logprobs_PMT is not None and member.logprobs is not None:
                batch.sampling_logprobs_PMT[p, m, :n] = torch.tensor(member.logprobs)
    return batch
