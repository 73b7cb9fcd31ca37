"""An evaluation that is killed and resumed ends with the same bytes as an uninterrupted one."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of items, and the figures; without what names the folder."""
    files = [*sorted((folder / "items").rglob("*.parquet")), folder / "evaluation.json"]
    name = folder.name.encode()
    return {str(file.relative_to(folder)): file.read_bytes().replace(name, b"") for file in files}


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_twice_at_random(
    seed: int, bench: Path, described: dict[str, Any], start_grao: Callable[..., Any]
) -> None:
    """Oracle: every byte of the uninterrupted evaluation; the scorer's own list of what it was
    asked: 6 times a prompt (two models, two answers and a reference each), but for one part in flight at each kill.
    """
    described["batch"] = 1
    (bench / "run.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")
    draw, asked, kills = random.Random(seed), bench / "asked.txt", 2
    for _ in range(kills):
        at = len(list(bench.glob("evaluation/items/*/*.parquet"))) + draw.randint(1, 6)
        start_grao(bench, "evaluate", "run.yaml").kill_when(moment(bench, at, draw.uniform(0.0, 0.02)))
    start_grao(bench, "evaluate", "run.yaml").finish()
    counted = Counter(asked.read_text(encoding="utf-8").splitlines())
    extra = {prompt: n - 6 for prompt, n in counted.items() if n != 6}
    assert len(counted) == 10
    assert sum(extra.values()) <= 3 * kills
    assert set(extra.values()) <= {3, 6}
    described["output_dir"] = "untouched"
    (bench / "whole.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")
    start_grao(bench, "evaluate", "whole.yaml").finish()
    killed, whole = contents(bench / "evaluation"), contents(bench / "untouched")
    assert killed.keys() == whole.keys()
    assert [name for name in whole if killed[name] != whole[name]] == []


def moment(bench: Path, parts: int, wait: float) -> Callable[[], bool]:
    """A moment after so many parts are stored."""
    since: list[float] = []

    def due() -> bool:
        if not since and len(list(bench.glob("evaluation/items/*/*.parquet"))) >= parts:
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] >= wait

    return due
