"""Which code made a record."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

from grao.experiments.code_version import AROUND, SOURCE, code_version, relevant_files, versions


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
            if parts[0] == "grao":
                for i in range(1, len(parts) + 1):
                    path = SOURCE.joinpath(*parts[1:i])
                    found |= {p for p in (path / "__init__.py", path.with_suffix(".py")) if p.is_file()}
    return found


def test_no_cell_runs_what_is_left_out_of_the_version() -> None:
    """Oracle: the imports from the module that cells run, followed to their end: none of them is left out, and each
    thing that is left out is there.
    """
    seen, waiting = set(), [SOURCE / "experiments" / "cell_run.py"]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += _imported(file)
    assert len(seen) > 80
    names = {file.relative_to(SOURCE).as_posix() for file in seen}
    assert {name for name in names if name.startswith(AROUND)} == set()
    # The room of reports comes later than these plans; the others are files.
    assert all((SOURCE / name).is_file() for name in AROUND if name.endswith(".py"))
    assert seen <= set(relevant_files())


def test_the_version_is_a_digest_of_names_and_contents(tmp_path: Path) -> None:
    """Oracle: SHA-256 by hand on two files; a changed, a renamed and a split file change it; a report does not."""
    (tmp_path / "a.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "b.py").write_text("", encoding="utf-8")
    first = code_version(tmp_path)
    assert first == hashlib.sha256(b"a.py 6\nx = 1\nb.py 0\n").hexdigest()
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "page.py").write_text("y = 2\n", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("y = 2\n", encoding="utf-8")
    assert code_version(tmp_path) == first
    (tmp_path / "a.py").write_text("x = 2\n", encoding="utf-8")
    assert code_version(tmp_path) != first
    (tmp_path / "a.py").rename(tmp_path / "c.py")
    (tmp_path / "c.py").write_text("x = 1\n", encoding="utf-8")
    assert code_version(tmp_path) != first


def test_versions_are_those_that_make_numbers() -> None:
    """Oracle: the libraries' own words."""
    import torch
    import transformers

    found = versions()
    assert found["torch"].startswith(torch.__version__.split("+")[0])
    assert found["transformers"] == transformers.__version__
