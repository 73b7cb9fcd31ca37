"""Completions as rows of a table, one per member."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grao.groups import Group, GroupBatch
from grao.training.group_metrics import member_advantages


def completion_rows(groups: Sequence[Group], batch: GroupBatch | None = None) -> list[dict[str, Any]]:
    """Return one record per member: its prompt, text and rewards, and its advantage where `batch` has them."""
    rows = []
    advantages_PM = None if batch is None or batch.advantages_PM is None else member_advantages(batch)
    for p, group in enumerate(groups):
        kinds = ["sample"] * len(group.samples) + ["reference"] * (group.reference is not None)
        for m, (kind, member) in enumerate(zip(kinds, group.members, strict=False)):
            rows.append(
                {
                    "row": group.row,
                    "kind": kind,
                    "prompt": group.prompt,
                    "completion": member.text,
                    "reward": member.reward,
                    "advantage": None if advantages_PM is None else float(advantages_PM[p, m]),
                    "length": member.length,
                    "finish": member.finish,
                    **{f"rewards/{name}": value for name, value in member.rewards.items()},
                    **{f"extra/{name}": value for name, value in member.extras.items()},
                }
            )
    return rows
