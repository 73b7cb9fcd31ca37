"""What the pages name exists: files, tests, commands; and the README's own objective trains.

Oracle: the tree, the command line's own list of commands, and planted pages with one wrong name each.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.nn.functional import one_hot

from grao.objectives import LossOutput, Needs, Objective
from grao.objectives.likelihood import mean_logprob
from grao.objectives.objective import pad_members

ROOT = Path(__file__).resolve().parents[1]
NAMED = ("README.md", "CONTRIBUTING.md", "research/README.md", "benchmarks/README.md")
PAGES = sorted([*(ROOT / name for name in NAMED), *ROOT.glob("docs/*.md")])
ROOMS = sorted(path.name for path in (ROOT / "src/grao").iterdir() if path.is_dir() and path.name[0] != "_")


def missing_links(text: str, folder: Path) -> list[str]:
    """Relative links that lead nowhere."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    return [link for link in links if not link.startswith("http") and not (folder / link).exists()]


def missing_paths(text: str) -> list[str]:
    """Paths in backticks, from the root or from src/grao, that do not exist."""
    starts = "|".join(["src", "docs", "tests", "research", "recipes", "benchmarks", *ROOMS])
    named = re.findall(rf"`((?:{starts})/[\w./-]+\w)`", text)
    named = [name for name in named if "." in Path(name).name]
    return [name for name in named if not (ROOT / name).exists() and not (ROOT / "src/grao" / name).exists()]


def missing_tests(text: str) -> list[str]:
    """Test files that do not exist."""
    names = re.findall(r"\b(test_\w+\.py)", text)
    return [name for name in names if not any(ROOT.glob(f"tests/**/{name}"))]


def unknown_commands(text: str, known: set[str]) -> list[str]:
    """Commands of `grao` that it does not have."""
    named = re.findall(r"(?:`|^|\$ )grao ([a-z]+)\b", text, re.MULTILINE)
    return [name for name in named if name not in known]


@pytest.fixture(scope="module")
def commands() -> set[str]:
    shown = subprocess.run([sys.executable, "-m", "grao.cli", "--help"], capture_output=True, text=True, check=True)
    return set(re.findall(r"^    ([a-z]+) ", shown.stdout, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path, commands: set[str]) -> None:
    """Oracle: the tree and `grao --help`."""
    text = page.read_text(encoding="utf-8")
    assert missing_links(text, page.parent) == []
    assert missing_paths(text) == []
    assert missing_tests(text) == []
    assert unknown_commands(text, commands) == []


def test_what_does_not_exist_is_found(commands: set[str]) -> None:
    """Oracle: one wrong name of each kind; the right ones beside it are not flagged."""
    assert missing_links("[a](README.md) [b](nowhere.md)", ROOT) == ["nowhere.md"]
    assert missing_paths("`training/step.py` `training/stop.py` `docs/log.md`") == ["training/stop.py"]
    assert missing_tests("`test_docs.py::test_a` `test_dogs.py`") == ["test_dogs.py"]
    assert unknown_commands("`grao train x` `grao trian x`", commands) == ["trian"]
    assert {"train", "evaluate", "report", "show", "schema", "demo"} <= commands


def readme_objective() -> str:
    """The source of the README's objective."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(@dataclass\(frozen=True\)\nclass BestOfN.*?)```", readme, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_objective_of_the_readme_is_what_it_says(batch_of_three: Callable[[], object]) -> None:
    """Oracle: by hand: of rewards 0, 2, 1 the second sample is the best; its mean log-prob is −0.5, over 1 group."""
    names: dict[str, object] = {"__name__": "readme", "dataclass": dataclass, "one_hot": one_hot, "torch": torch}
    for used in (LossOutput, Needs, Objective, mean_logprob, pad_members):
        names[used.__name__] = used
    exec(compile(readme_objective(), "README.md", "exec"), names)
    batch, output, progress = batch_of_three()  # type: ignore[misc]
    objective = names["BestOfN"]()  # type: ignore[operator]
    batch = objective.with_advantages(batch)
    assert batch.advantages_PM.tolist() == [[0, 1, 0]]
    loss = objective.loss(batch, output, objective.denominator(batch), progress).loss
    assert float(loss) == pytest.approx(0.5)


@pytest.fixture
def batch_of_three() -> Callable[[], object]:
    from grao.groups import Group, Member, PolicyOutput, collate
    from grao.objectives import Progress

    def make() -> object:
        samples = tuple(Member((3, 4), "x", "stop", reward=reward) for reward in (0.0, 2.0, 1.0))
        batch = collate([Group(0, "p", (5,), samples)], pad_token_id=0)
        logprobs_PMT = torch.tensor([[[-1.0, -1.0], [-0.25, -0.75], [-2.0, -2.0]]])
        return batch, PolicyOutput(logprobs_PMT, torch.zeros_like(logprobs_PMT)), Progress(0, 1)

    return make
