"""The lower bounds of the dependencies are those that `make lowest` installs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]


def test_every_lower_bound_is_pinned() -> None:
    """Oracle: pyproject.toml, line by line: the lower end of each range, and no other pins."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lowest = {}
    for line in map(Requirement, dependencies):
        [bound] = [spec.version for spec in line.specifier if spec.operator == ">="]
        lowest[line.name] = Version(bound)
    text = (ROOT / "constraints-lowest.txt").read_text()
    pinned = {name: Version(version) for name, version in re.findall(r"(?m)^([\w-]+)==(\S+)$", text)}
    assert pinned == lowest
