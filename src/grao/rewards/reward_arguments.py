"""The members of many groups as the flat lists that one call of a reward function receives."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from grao.groups import Group, Member, Prompt
from grao.rewards.completions import Completion, as_completion, completion_text

QUOTED = 200
"""Characters of a completion that an error message quotes."""
_OWN_NAMES = ("prompts", "completions", "completion_ids")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member of a flat list came from."""

    group: int
    """Index into the groups that are scored."""
    member: int
    """Index into `Group.members`."""
    row: int
    """The row of the data set."""
    role: str
    """``"sample 2"``, ``"reference"`` or ``"rejected answer"``."""


@dataclass(frozen=True)
class MemberTable:
    """One entry per member in every list: group by group, samples first, then the reference.

    Example: two groups of two samples with references give six entries; `columns["answer"]` is then
    ``["7", "7", "7", "12", "12", "12"]``.
    """

    places: list[Place]
    prompts: list[Prompt]
    completions: list[Completion]
    completion_ids: list[list[int]]
    columns: dict[str, list[Any]]
    """The reference answer as text (`reference`) and every other column, repeated for each member of a group."""

    @classmethod
    def of(cls, groups: Sequence[Group], *, reference: bool, rejected: bool) -> MemberTable:
        """The members of these groups; `reference` and `rejected` say whether those are among them."""
        chosen = [
            (Place(g, m, group.row, role), group, member)
            for g, group in enumerate(groups)
            for m, (role, member) in enumerate(_roles(group))
            if (reference or role != "reference") and (rejected or role != "rejected answer")
        ]
        names = dict.fromkeys(name for group in groups for name in group.columns)
        _refuse_clashes(names)
        columns = {name: [group.columns.get(name) for _, group, _ in chosen] for name in names}
        columns["reference"] = [g.reference.text if g.reference is not None else None for _, g, _ in chosen]
        return cls(
            places=[place for place, _, _ in chosen],
            prompts=[_own(group.prompt) for _, group, _ in chosen],
            completions=[as_completion(member.text, group.prompt) for _, group, member in chosen],
            completion_ids=[list(member.ids) for _, _, member in chosen],
            columns=columns,
        )

    def __len__(self) -> int:
        return len(self.places)

    def describe(self, index: int) -> str:
        """Row, role and the beginning of the completion, for messages."""
        place, text = self.places[index], completion_text(self.completions[index])
        cut = text if len(text) <= QUOTED else text[:QUOTED] + "…"
        return f"row {place.row}, {place.role}, completion {cut!r}"

    def arguments(self, call: Callable[..., Any], name: str, context: Mapping[str, Any]) -> Arguments:
        """What `call` receives by keyword: everything if it takes ``**kwargs``, else the names it accepts.

        Arguments that a `functools.partial` already holds stay as they were set. `context` holds values that
        belong to the call, not to a member (``trainer_state``, …); they are passed unrepeated.

        Raises:
            ValueError: a parameter without default, or a name in the callable's own `required_columns`, is no column.
        """
        lists: dict[str, list[Any]] = {
            **self.columns,
            "prompts": self.prompts,
            "completions": self.completions,
            "completion_ids": self.completion_ids,
        }
        accepted, required = _parameters(call, name)
        required += [n for n in getattr(call, "required_columns", ()) if n not in required]
        if missing := [n for n in required if n not in lists and n not in context]:
            raise ValueError(
                f"reward {name!r} needs {', '.join(map(repr, missing))}, which is no column of the data. "
                f"Columns: {', '.join(sorted(self.columns))}; always there: {', '.join(_OWN_NAMES)}. "
                "Add the column to the data, or give the parameter a default."
            )
        return Arguments(
            lists={n: v for n, v in lists.items() if accepted(n)},
            constants={n: v for n, v in context.items() if accepted(n) and n not in lists},
        )


@dataclass(frozen=True, slots=True)
class Arguments:
    """The keyword arguments of a call, for all members or for some."""

    lists: dict[str, list[Any]]
    constants: dict[str, Any]

    def all(self) -> dict[str, Any]:
        """For one call with every member; new lists, so that a function may edit them."""
        return {**{name: list(values) for name, values in self.lists.items()}, **self.constants}

    def one(self, index: int) -> dict[str, Any]:
        """For a call with one member alone."""
        return {**{name: [values[index]] for name, values in self.lists.items()}, **self.constants}


def _roles(group: Group) -> list[tuple[str, Member]]:
    """`group.members` with what each of them is."""
    roles = [(f"sample {i}", sample) for i, sample in enumerate(group.samples)]
    given = [("reference", group.reference), ("rejected answer", group.rejected)]
    return roles + [(role, member) for role, member in given if member is not None]


def _own(prompt: Prompt) -> Prompt:
    """A copy, so that a function that edits its arguments cannot edit the data set."""
    return prompt if isinstance(prompt, str) else [dict(turn) for turn in prompt]


def _refuse_clashes(names: Mapping[str, None]) -> None:
    clashes = [name for name in (*_OWN_NAMES, "reference") if name in names]
    if clashes:
        raise ValueError(
            f"the data has columns named {clashes}, which are names of arguments every reward function receives; "
            "rename these columns"
        )


def _parameters(call: Callable[..., Any], name: str) -> tuple[Callable[[str], bool], list[str]]:
    """Which keyword names `call` accepts, and which of them it cannot do without."""
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError) as error:
        raise ValueError(f"the arguments of reward {name!r} cannot be read; wrap it in a Python function") from error
    required = [
        p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if unnamed := [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]:
        raise ValueError(f"reward {name!r} takes {unnamed} by position only; reward functions are called by keyword")
    held = set(call.keywords) if isinstance(call, partial) else set()
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - held
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return (lambda n: n not in held if anything else n in named), required
