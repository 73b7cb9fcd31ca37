"""The arguments of one call of a reward function: flat lists over the members of many groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from grao.groups import Group, Member
from grao.rewards.reward_function import completion_text, keyword_parameters

QUOTED_CHARACTERS = 200
"""How much of a completion an error message quotes."""
_PER_MEMBER = ("prompts", "completions", "completion_ids")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry of the flat lists comes from: index of the group, index into `Group.members`, row of the data."""

    group: int
    member: int
    row: int
    role: str
    """``"sample 2"``, ``"reference"`` or ``"rejected answer"``."""


@dataclass(frozen=True)
class MemberTable:
    """One entry per member in every list: group by group, samples first, then the reference.

    Example: two groups of two samples with references give six entries; `lists["answer"]` is then
    ``["7", "7", "7", "12", "12", "12"]``.
    """

    places: list[Place]
    lists: dict[str, list[Any]]
    """`prompts`, `completions`, `completion_ids`, the text of the `reference`, and every column, repeated for each
    member of a group."""

    @classmethod
    def of(cls, groups: Sequence[Group], *, reference: bool, rejected: bool) -> MemberTable:
        """List the members of these groups, with or without references and rejected answers."""
        chosen = [
            (Place(g, m, group.row, role), group, member)
            for g, group in enumerate(groups)
            for m, (role, member) in enumerate(_roles(group))
            if (reference or role != "reference") and (rejected or role != "rejected answer")
        ]
        names = dict.fromkeys(name for group in groups for name in group.columns)
        if clashes := [name for name in (*_PER_MEMBER, "reference") if name in names]:
            raise ValueError(
                f"the data has columns named {clashes}, which every reward function receives as arguments. "
                "Rename these columns."
            )
        lists: dict[str, list[Any]] = {name: [g.columns.get(name) for _, g, _ in chosen] for name in names}
        lists["reference"] = [g.reference.text if g.reference is not None else None for _, g, _ in chosen]
        # Copies, so that a function that edits its arguments cannot edit the data set.
        lists["prompts"] = [g.prompt if isinstance(g.prompt, str) else list(map(dict, g.prompt)) for _, g, _ in chosen]
        lists["completions"] = [
            member.text if isinstance(g.prompt, str) else [{"role": "assistant", "content": member.text}]
            for _, g, member in chosen
        ]
        lists["completion_ids"] = [list(member.ids) for _, _, member in chosen]
        return cls([place for place, _, _ in chosen], lists)

    def __len__(self) -> int:
        return len(self.places)

    def describe(self, index: int) -> str:
        """Return row, role and the beginning of the completion, for messages."""
        place, text = self.places[index], completion_text(self.lists["completions"][index])
        quoted = text if len(text) <= QUOTED_CHARACTERS else text[:QUOTED_CHARACTERS] + "…"
        return f"row {place.row}, {place.role}, completion {quoted!r}"

    def accepted_names(self, call: Callable[..., Any], name: str, context: Iterable[str]) -> set[str]:
        """Return the names that `call` receives: all if it takes ``**kwargs``, else those it accepts.

        Arguments already bound by a `functools.partial` stay as they are. `context` names values that belong to the
        call, not to a member (``trainer_state``, …).

        Raises:
            ValueError: A parameter without a default, or a name in the callable's own `required_columns`, is not a
                column; or a parameter is positional-only.
        """
        known = {*self.lists, *context}
        accepted, required, any_name = keyword_parameters(call, f"reward {name!r}")
        required += [n for n in getattr(call, "required_columns", ()) if n not in required]
        if missing := [n for n in required if n not in known]:
            raise ValueError(
                f"reward {name!r} needs {', '.join(map(repr, missing))}, which is not a column of the data (columns: "
                f"{', '.join(sorted(self.lists.keys() - _PER_MEMBER))}; always available: {', '.join(_PER_MEMBER)}). "
                "Add the column, or give the parameter a default."
            )
        bound = set(call.keywords) if isinstance(call, partial) else set()
        return {n for n in known if n not in bound and (any_name or n in accepted)}


def _roles(group: Group) -> list[tuple[str, Member]]:
    """Return `group.members`, each with its role."""
    roles = [(f"sample {i}", sample) for i, sample in enumerate(group.samples)]
    given = [("reference", group.reference), ("rejected answer", group.rejected)]
    return roles + [(role, member) for role, member in given if member is not None]
