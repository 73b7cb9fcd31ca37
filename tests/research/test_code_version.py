"""Which code made a record."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

from research.code_version import NOT_RUN, SOURCES, code_version, relevant_files, versions

ROOTS = {source.name: source for source in SOURCES}


def _imported(file: Path) -> set[Path]:
    """The modules of this library that a file imports, wherever in it, with the packages on the way."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] in ROOTS:
                for i in range(1, len(parts) + 1):
                    path = ROOTS[parts[0]].joinpath(*parts[1:i])
                    found |= {p for p in (path / "__init__.py", path.with_suffix(".py")) if p.is_file()}
    return found


def test_no_cell_runs_what_is_left_out_of_the_version() -> None:
    """Oracle: the imports from the module that cells run, followed to their end: none of them is left out, and each
    thing that is left out is there.
    """
    seen, waiting = set(), [ROOTS["research"] / "cell_runner.py"]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += _imported(file)
    assert len(seen) > 80
    names = {
        f"{source.name}/{file.relative_to(source).as_posix()}"
        for source in SOURCES
        for file in seen
        if file.is_relative_to(source)
    }
    assert {name for name in names if name.startswith(NOT_RUN)} == set()
    assert all((ROOTS[Path(name).parts[0]].parent / name).exists() for name in NOT_RUN)
    assert names <= set(relevant_files())


def test_the_version_is_a_digest_of_names_and_contents(tmp_path: Path) -> None:
    """Oracle: SHA-256 by hand on two files; a changed, a renamed and a split file change it; a report does not."""
    grao, research = tmp_path / "grao", tmp_path / "research"
    for folder in (grao / "report", research):
        folder.mkdir(parents=True)
    (grao / "a.py").write_text("x = 1\n", encoding="utf-8")
    (research / "b.py").write_text("", encoding="utf-8")
    first = code_version((grao, research))
    assert first == hashlib.sha256(b"grao/a.py 6\nx = 1\nresearch/b.py 0\n").hexdigest()
    (grao / "report" / "page.py").write_text("y = 2\n", encoding="utf-8")
    (research / "notes.txt").write_text("y = 2\n", encoding="utf-8")
    assert code_version((grao, research)) == first
    (grao / "a.py").write_text("x = 2\n", encoding="utf-8")
    assert code_version((grao, research)) != first
    (grao / "a.py").rename(grao / "c.py")
    (grao / "c.py").write_text("x = 1\n", encoding="utf-8")
    assert code_version((grao, research)) != first


def test_versions_are_those_that_make_numbers() -> None:
    """Oracle: the libraries' own words."""
    import torch
    import transformers

    found = versions()
    assert found["torch"].startswith(torch.__version__.split("+")[0])
    assert found["transformers"] == transformers.__version__
