"""Groups made of words, for tests that need something to score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from grao.groups import Group, Member, Prompt


def _member(text: str) -> Member:
    return Member(ids=tuple(range(len(text))), text=text)


@pytest.fixture(scope="session")
def make_group() -> Callable[..., Group]:
    """`make_group(row, samples, reference)`; a member's ids are 0, 1, … one for each character of its text."""

    def make(
        row: int = 0,
        samples: Sequence[str] = ("a", "bb"),
        reference: str | None = "ccc",
        rejected: str | None = None,
        prompt: Prompt = "Q",
        **columns: Any,
    ) -> Group:
        return Group(
            row=row,
            prompt=prompt,
            prompt_ids=(1,),
            samples=tuple(map(_member, samples)),
            reference=None if reference is None else _member(reference),
            rejected=None if rejected is None else _member(rejected),
            columns=columns,
        )

    return make
