"""docs/methods.md: what its table names exists, and every caller mentions what it calls."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")


def rows(page: str) -> list[tuple[str, list[str], list[str], list[str]]]:
    """(what, functions, tests, callers) of the table whose head is what, function, test, caller."""
    table = page.split("| what | function | test | caller |\n", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table]
    return [(what.strip(), *(re.findall(r"`([^`]+)`", cell) for cell in others)) for what, *others in cells]  # type: ignore[misc]


@cache
def sources(path: Path) -> dict[str, str]:
    """Source text by qualified name: functions, classes, methods and assignments of a file."""

    def within(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, str]]:
        for node in body:
            names = [node.name] if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else []
            if isinstance(node, ast.AnnAssign | ast.Assign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            yield from ((prefix + name, ast.get_source_segment(text, node) or "") for name in names)
            if isinstance(node, ast.ClassDef):
                yield from within(node.body, f"{prefix}{node.name}.")

    text = path.read_text(encoding="utf-8")
    return dict(within(ast.parse(text).body, ""))


def problems(page: str) -> list[str]:
    """Every name of the table that is not there, and every caller that does not mention its function."""
    found = []

    def source(root: Path, named: str) -> str | None:
        file, _, name = named.partition("::")
        if (root / file).is_file() and name in sources(root / file):
            return sources(root / file)[name]
        found.append(f"{named} does not exist")
        return None

    for what, functions, tests, callers in rows(page):
        if not (functions and tests and callers):
            found.append(f"{what}: a function, a test and a caller are needed")
        for test in tests:
            source(ROOT, test)
        called = [function.rpartition("::")[2].rpartition(".")[2] for function in functions]
        for function in functions:
            source(ROOT / "src" / "grao", function)
        for caller in callers:
            text = source(ROOT / "src" / "grao", caller)
            body = "" if text is None else re.sub(r"\A(?:async )?(?:def|class) \w+", "", text)
            found += [
                f"{caller} does not mention {name}" for name in called if text and not re.search(rf"\b{name}\b", body)
            ]
    return found


def test_every_name_on_the_page_exists_and_is_called() -> None:
    """Oracle: the syntax trees of src/grao and tests."""
    assert len(rows(PAGE)) > 30
    assert problems(PAGE) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("objectives/gae.py::gae`", "objectives/gae.py::gea`", "objectives/gae.py::gea does not exist"),
        (
            "::test_matches_the_sum`",
            "::test_matches_a_sum`",
            "test_gae.py::test_matches_a_sum does not exist",
        ),
        ("objectives/ppo.py::PPO._estimate`", "objectives/ppo.py::PPO.needs`", "PPO.needs does not mention gae"),
    ],
)
def test_a_planted_mistake_is_found(old: str, new: str, message: str) -> None:
    """Oracle: the sentence, for one name changed on the page."""
    assert old in PAGE
    assert message in "\n".join(problems(PAGE.replace(old, new)))
