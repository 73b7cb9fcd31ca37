"""What the wheel holds, by the build backend's own list of files."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_wheel_holds_the_library_and_nothing_else() -> None:
    """Oracle: the files below src/grao, data files included; no file of research, tests or benchmarks."""
    builders = pytest.importorskip("hatchling.builders.wheel", reason="needs hatchling, which the dev extra installs")
    listed = {file.distribution_path for file in builders.WheelBuilder(str(ROOT)).recurse_included_files()}
    source = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "grao").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert listed == source
    assert {"grao/py.typed", "grao/report/assets/page.html.j2", "grao/report/assets/colours.json"} <= listed
    assert "grao/rewards/judging/rubrics/helpfulness.yaml" in listed
    assert not [name for name in listed if "research" in name or "records/main" in name]


@pytest.mark.slow
def test_importing_the_library_is_fast() -> None:
    """Oracle: a clock, less the time that an empty program takes; the fastest of three."""

    def seconds(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - started

    assert min(seconds("import grao") - seconds("pass") for _ in range(3)) < 0.3
