"""Which code and libraries made a record: results of different versions are never put together."""

from __future__ import annotations

import hashlib
from pathlib import Path

from grao.records.environment import environment

SOURCE = Path(__file__).resolve().parents[1]
AROUND = (
    "cli.py",
    "report/",
    "experiments/aggregate.py",
    "experiments/cells.py",
    "experiments/claim.py",
    "experiments/claims.py",
    "experiments/code_version.py",
    "experiments/comparison_tables.py",
    "experiments/demo.py",
    "experiments/experiment.py",
    "experiments/kept.py",
    "experiments/plan.py",
    "experiments/summary.py",
    "experiments/tuning.py",
)
"""What no cell runs (a test walks the imports from `cell_run.py`): it says which cells there are, starts them, or
reads what they left. A record holds its cell's whole configuration, so all this can be mended without running them."""

LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "numpy")
"""Those whose version can change a cell's numbers."""


def relevant_files(source: Path = SOURCE) -> list[Path]:
    """Every source file that a cell may run."""
    return [
        path for path in sorted(source.rglob("*.py")) if not path.relative_to(source).as_posix().startswith(AROUND)
    ]


def code_version(source: Path = SOURCE) -> str:
    """SHA-256 over names and contents of `relevant_files`."""
    digest = hashlib.sha256()
    for path in relevant_files(source):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(source).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of Python and the libraries that make numbers."""
    found = environment()
    return {"python": found["python"], **{name: found["libraries"][name] for name in LIBRARIES}}
