"""Which code and libraries made a record: results of different versions are never put together."""

from __future__ import annotations

import hashlib
from pathlib import Path

import grao
from grao.records.environment import environment

SOURCES = (Path(grao.__file__).resolve().parent, Path(__file__).resolve().parent)
"""The library and the package of research."""
NOT_RUN = (
    "grao/cli.py",
    "grao/report/",
    "grao/demo/run_demo.py",
    "grao/demo/outcome_tables.py",
    "research/report/",
    "research/__main__.py",
    "research/claim.py",
    "research/claim_effects.py",
    "research/claims_page.py",
    "research/code_version.py",
    "research/committed_record.py",
    "research/experiment_plan.py",
    "research/experiment_runner.py",
    "research/plan_cells.py",
    "research/plans/",
    "research/seed_statistics.py",
    "research/summary.py",
    "research/tuning.py",
)
"""What no cell runs (a test follows the imports from `cell_runner.py`): it lists cells, starts them, or reads their
records. A record holds the whole configuration of its cell, so this code can change without running cells again."""

KINDS = ("*.py", "*.yaml")
"""Files that can change a cell's numbers: code, and the words of a task."""
LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "numpy")
"""Those whose version can change a cell's numbers."""


def relevant_files(sources: tuple[Path, ...] = SOURCES) -> dict[str, Path]:
    """Return every source file that a cell may run, by its name from the package on."""
    paths = [(source, path) for source in sources for kind in KINDS for path in source.rglob(kind)]
    names = {path.relative_to(source.parent).as_posix(): path for source, path in paths}
    return {name: path for name, path in sorted(names.items()) if not name.startswith(NOT_RUN)}


def code_version(sources: tuple[Path, ...] = SOURCES) -> str:
    """Return the SHA-256 over names and contents of `relevant_files`."""
    digest = hashlib.sha256()
    for name, path in relevant_files(sources).items():
        content = path.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that make numbers."""
    found = environment()
    return {"python": found["python"], **{name: found["libraries"][name] for name in LIBRARIES}}
