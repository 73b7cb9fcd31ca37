"""The house rules that a machine can see, read from the syntax tree of every file under src/grao and research.

Oracle: each rule is first shown a small source tree with one planted violation, and must name it; then the real tree.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "grao"
RESEARCH = Path(__file__).resolve().parents[1] / "research"

FLOORS = {
    "groups": 0,
    "records": 0,
    "spelling": 0,
    "dotted_path": 0,
    "terminal": 0,
    "compat": 0,
    "configuration": 1,
    "objectives": 2,
    "data": 2,
    "rewards": 2,
    "rollout": 2,
    "policy": 2,
    "evaluation": 3,
    "training": 4,
    "demo": 5,
    "report": 5,
    "editor_schema": 5,
    "cli": 6,
    "__main__": 7,
}

FORBIDDEN = {
    "records": ("torch", "transformers"),  # a run can be read where no model can be
    "report": ("torch", "transformers"),
    "objectives": ("transformers",),  # objectives see tensors, never a model
    "rewards": ("torch",),  # rewards see text
}
EXCUSED = {"rewards/model.py"}  # a reward model is a model

HOMES = {
    "math_verify": "rewards/math_answer.py",
    "openai": "rewards/endpoint/client.py",
    "peft": "policy/lora.py",
    "vllm": "rollout/vllm.py",
    "trl": "nowhere in src (tests use it as an oracle)",
    "pytest": "nowhere in src",
    "research": "nowhere in src (research imports the library, never the other way round)",
}

PICKLES = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
PICKLING_CALLS = {"torch.load", "torch.save", "pandas.read_pickle", "pd.read_pickle"}
INSIDES = tuple(f"transformers.{name}" for name in ("models", "masking_utils", "modeling_utils", "cache_utils"))
"""Modules of other libraries that have no underscore, and are no public interface either."""
ATTRIBUTE_CALLS = {"getattr", "hasattr", "setattr", "delattr"}
NOT_PRIVATE = {
    "_replace": "of every NamedTuple",
    "_asdict": "of every NamedTuple",
    "_exit": "os._exit, which Python documents for children of a fork",
}
PLACEHOLDERS = {"TODO", "TBD", "FIXME", "XXX"}
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc"}


def files(source: Path) -> Iterator[tuple[str, ast.Module]]:
    """Every Python file: its path below `source`, and its syntax tree."""
    for path in sorted(source.rglob("*.py")):
        yield path.relative_to(source).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def imports(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a file imports, wherever in the file, relative imports resolved."""
    package = ["grao", *Path(name).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            literals = (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
            yield from ((node.lineno, literal) for literal in literals)


def room_of(name: str) -> str:
    """The room a file stands in: its first folder, or its own name at the top."""
    return Path(name).parts[0].removesuffix(".py")


def upward_imports(source: Path) -> list[str]:
    """Imports between rooms that do not run down by at least one floor."""
    found = []
    for name, tree in files(source):
        room = room_of(name)
        if name in {"__init__.py", "version.py"}:
            continue
        if room not in FLOORS:
            found.append(f"{name}: the room {room!r} has no floor")
            continue
        for line, module in imports(name, tree):
            parts = module.split(".")
            if parts[0] != "grao" or parts[1:2] == ["version"]:
                continue
            other = parts[1] if len(parts) > 1 else ""
            if other not in FLOORS:
                found.append(f"{name}:{line}: imports {module}, which is no room; import from the room itself")
            elif other != room and FLOORS[other] >= FLOORS[room]:
                floors = f"{room} (floor {FLOORS[room]}) imports {other} (floor {FLOORS[other]})"
                found.append(f"{name}:{line}: {floors}")
    return found


def forbidden_imports(source: Path) -> list[str]:
    """Libraries that a room must not know, and optional ones away from the file named after them."""
    found = []
    for name, tree in files(source):
        for line, module in imports(name, tree):
            library = module.split(".")[0]
            if library in FORBIDDEN.get(room_of(name), ()) and name not in EXCUSED:
                found.append(f"{name}:{line}: {room_of(name)} must not import {library}")
            if library in HOMES and name != HOMES[library]:
                found.append(f"{name}:{line}: {library} belongs in {HOMES[library]}")
    return found


def pickling(source: Path) -> list[str]:
    """Uses of pickle, by import, through torch, or through a keyword that allows it."""
    found = []
    for name, tree in files(source):
        found += [
            f"{name}:{line}: imports {module}"
            for line, module in imports(name, tree)
            if module.split(".")[0] in PICKLES or module in PICKLING_CALLS
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in PICKLING_CALLS:
                found.append(f"{name}:{node.lineno}: {ast.unparse(node)}")
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
                found.append(f"{name}:{node.value.lineno}: allow_pickle")
    return found


def is_private(name: str) -> bool:
    """One leading underscore; names with two at both ends are Python's own."""
    return name.startswith("_") and not name.endswith("__") and name not in NOT_PRIVATE


def own_names(tree: ast.Module) -> set[str]:
    """Names that a file defines: functions, classes, fields, and attributes of `self`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and of_self(node):
            names.add(node.attr)
    return names


def of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}


def private_names(source: Path) -> list[str]:
    """What is taken from inside other libraries, outside of compat.

    Imports with a private part, `torch.ops`, private attributes of anything but `self` and what the file itself
    defines (as does a method that calls the one it overrides), and private names in `getattr` and its kin.
    """
    found = []
    for name, tree in files(source):
        if room_of(name) == "compat":
            continue
        for line, module in imports(name, tree):
            parts = module.split(".")
            if parts[0] != "grao" and (any(map(is_private, parts)) or module.startswith(INSIDES)):
                found.append(f"{name}:{line}: imports {module}, from inside {parts[0]}; put it into compat")
        own = own_names(tree)
        for node in ast.walk(tree):
            taken = ""
            if isinstance(node, ast.Attribute):
                private = is_private(node.attr) and node.attr not in own and not of_self(node)
                taken = ast.unparse(node) if private or ast.unparse(node) == "torch.ops" else ""
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ATTRIBUTE_CALLS and len(node.args) > 1:
                key = node.args[1]
                private = isinstance(key, ast.Constant) and is_private(str(key.value)) and str(key.value) not in own
                taken = ast.unparse(node) if private else ""
            if taken:
                found.append(f"{name}:{node.lineno}: {taken} is private to another library; put it into compat")
    return found


def nameless_files(source: Path) -> list[str]:
    """Files and folders whose name says nothing: a thing that has a meaning has a room."""
    paths = (path.relative_to(source) for path in sorted(source.rglob("*")))
    return [path.as_posix() for path in paths if path.stem.strip("_") in NAMELESS]


def repeated_names(source: Path) -> list[str]:
    """File names that stand twice in the package: a name must be enough to find its file."""
    places: dict[str, list[str]] = {}
    for name, _ in files(source):
        if Path(name).name not in ("__init__.py", "__main__.py"):
            places.setdefault(Path(name).name, []).append(name)
    return [" and ".join(names) for names in places.values() if len(names) > 1]


def undocumented_modules(source: Path) -> list[str]:
    """Public modules and packages without a docstring."""

    def public(name: str) -> bool:
        return not Path(name).name.startswith("_") or Path(name).name == "__init__.py"

    return [name for name, tree in files(source) if public(name) and not ast.get_docstring(tree)]


def placeholder_docstrings(source: Path) -> list[str]:
    """Docstrings that say nothing: empty, of one word, or a mark that something is still to be written."""
    found = []
    for name, tree in files(source):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            words = (ast.get_docstring(node) or "").split()
            written = ast.get_docstring(node) is not None
            if written and (len(words) < 2 or words[0].strip(".:!").upper() in PLACEHOLDERS):
                found.append(f"{name}: the docstring of {getattr(node, 'name', 'the module')} is {' '.join(words)!r}")
    return found


def imports_past_rooms(source: Path) -> list[str]:
    """Imports of research that bypass the rooms: from `grao` itself, or of names that a module keeps private."""
    found = []
    for name, tree in files(source):
        for line, module in imports(name, tree):
            parts = module.split(".")
            if parts[0] == "grao" and len(parts) > 1 and parts[1] not in FLOORS:
                found.append(f"{name}:{line}: imports {module}, which is no room; import from the room itself")
            if parts[0] == "grao" and any(part.startswith("_") for part in parts):
                found.append(f"{name}:{line}: imports {module}, which is private")
            if parts[0] in ("tests", "benchmarks"):
                found.append(f"{name}:{line}: imports {module}, which research must not know")
    return found


Rule = Callable[[Path], list[str]]
RULES: tuple[Rule, ...] = (
    upward_imports,
    forbidden_imports,
    pickling,
    private_names,
    nameless_files,
    repeated_names,
    undocumented_modules,
    placeholder_docstrings,
)
RESEARCH_RULES: tuple[Rule, ...] = (
    imports_past_rooms,
    private_names,
    pickling,
    nameless_files,
    undocumented_modules,
    placeholder_docstrings,
)

PLANTED: list[tuple[Rule, str, str, str]] = [
    # rule, file, its text, what the rule must say
    (upward_imports, "groups/group.py", "from grao.data import Example", "floor 0) imports data (floor 2"),
    (upward_imports, "groups/group.py", "import grao.records.run", "groups (floor 0) imports records (floor 0)"),
    (upward_imports, "data/hh.py", "from grao.rewards import function", "data (floor 2) imports rewards"),
    (upward_imports, "report/page.py", "from grao import demo", "report (floor 5) imports demo"),
    (upward_imports, "policy/load.py", "from ..training.trainer import Trainer", "policy (floor 2) imports training"),
    (upward_imports, "policy/load.py", "def f():\n    import grao.cli", "load.py:2: policy (floor 2) imports cli"),
    (upward_imports, "data/a.py", "import_module('grao.training')", "data (floor 2) imports training"),
    (upward_imports, "data/a.py", "from grao import Example", "imports grao.Example, which is no room"),
    (upward_imports, "data/a.py", "import grao", "imports grao, which is no room"),
    (upward_imports, "attic/a.py", "", "the room 'attic' has no floor"),
    (upward_imports, "attic.py", "", "the room 'attic' has no floor"),
    (forbidden_imports, "objectives/grao.py", "import transformers", "objectives must not import transformers"),
    (forbidden_imports, "records/run.py", "from torch import Tensor", "records must not import torch"),
    (forbidden_imports, "rewards/math_answer.py", "import torch.nn", "rewards must not import torch"),
    (forbidden_imports, "rewards/text.py", "import math_verify", "math_verify belongs in rewards/math_answer.py"),
    (forbidden_imports, "policy/load.py", "from peft import LoraConfig", "peft belongs in policy/lora.py"),
    (forbidden_imports, "training/run.py", "import openai", "openai belongs in rewards/endpoint/client.py"),
    (forbidden_imports, "rollout/local_engine.py", "from vllm import LLM", "vllm belongs in rollout/vllm.py"),
    (forbidden_imports, "training/trainer.py", "import trl", "trl belongs in nowhere in src"),
    (pickling, "training/run.py", "import pickle", "run.py:1: imports pickle"),
    (pickling, "training/run.py", "import torch\ntorch.load('x')", "run.py:2: torch.load"),
    (pickling, "training/run.py", "from torch import load", "run.py:1: imports torch.load"),
    (pickling, "data/a.py", "np.load('x', allow_pickle=True)", "a.py:1: allow_pickle"),
    (private_names, "policy/a.py", "from torch._C import Graph", "imports torch._C.Graph, from inside torch"),
    (private_names, "policy/a.py", "from peft import _tuners", "imports peft._tuners"),
    (private_names, "policy/a.py", "from transformers.cache_utils import Cache", "from inside transformers"),
    (private_names, "policy/a.py", "def f(m):\n    return m.config._attn", "a.py:2: m.config._attn is"),
    (private_names, "policy/a.py", "def f(m):\n    m._grao_state = 1", "m._grao_state is private"),
    (private_names, "rollout/a.py", "torch.ops.mkldnn.pack(w)", "torch.ops is private"),
    (private_names, "rollout/a.py", "getattr(model, '_supports', False)", "getattr(model, '_supports', False) is"),
    (private_names, "training/a.py", "class A(B):\n    def f(self):\n        super()._g()", "super()._g is private"),
    (nameless_files, "data/utils.py", "", "data/utils.py"),
    (nameless_files, "helpers/a.py", "", "helpers"),
    (nameless_files, "data/_common.py", "", "data/_common.py"),
    (forbidden_imports, "report/page.py", "from research.report import x", "research belongs in nowhere in src"),
    (forbidden_imports, "cli.py", "def f():\n    import research", "cli.py:2: research belongs in nowhere in src"),
    (imports_past_rooms, "tuning.py", "from grao import train", "imports grao.train, which is no room"),
    (imports_past_rooms, "tuning.py", "from grao.report.page import _title", "imports grao.report.page._title, which"),
    (imports_past_rooms, "tuning.py", "import tests.conftest", "which research must not know"),
    (placeholder_docstrings, "data/a.py", '"""TODO."""', "the docstring of the module is 'TODO.'"),
    (placeholder_docstrings, "data/a.py", '"""fixme: say what this is."""', "the docstring of the module is 'fixme:"),
    (placeholder_docstrings, "data/a.py", 'class A:\n    """ """', "the docstring of A is ''"),
    (placeholder_docstrings, "data/a.py", 'def f():\n    """Rows."""', "the docstring of f is 'Rows.'"),
    (placeholder_docstrings, "data/a.py", 'async def f():\n    """TBD"""', "the docstring of f is 'TBD'"),
    (undocumented_modules, "data/a.py", "x = 1", "data/a.py"),
    (undocumented_modules, "data/__init__.py", "", "data/__init__.py"),
]

PERMITTED = {
    "__init__.py": "from grao.training import train\nfrom grao.version import __version__",
    "version.py": "__version__ = '1'",
    "groups/batch.py": "import torch\nfrom grao.groups.group import Group\nfrom . import group",
    "objectives/grao.py": "import torch\nfrom grao.groups import GroupBatch",
    "policy/lora.py": "import peft\nfrom grao.groups import Group",
    "rewards/model.py": "import torch\nimport transformers\nfrom ..groups import Group",
    "rewards/math_answer.py": "import math_verify",
    "rewards/endpoint/client.py": "import openai",
    "training/trainer.py": "from grao.policy import load\nfrom grao import records\nimport grao.version",
    "data/numbers.py": "np.load('x', allow_pickle=False)",
    "data/_private.py": "x = 1",
    "compat/torch_modules.py": "import torch._C\nfrom transformers.cache_utils import Cache\nmodel._hooks",
    "training/hooks.py": "class A(B):\n    def _g(self):\n        return super()._g(), self._h, point._replace(x=1)",
    "cli.py": "from grao.demo import dialogue\nfrom grao.report import page",
}


def plant(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("rule", "name", "text", "expected"), PLANTED)
def test_a_planted_violation_is_found(tmp_path: Path, rule: Rule, name: str, text: str, expected: str) -> None:
    """Oracle: a tree with this one file, which breaks this one rule."""
    plant(tmp_path, name, text)
    assert any(expected in violation for violation in rule(tmp_path)), rule(tmp_path)


def test_a_repeated_file_name_is_found(tmp_path: Path) -> None:
    """Oracle: two rooms with a file of one name."""
    plant(tmp_path, "data/config.py", "")
    plant(tmp_path, "rewards/config.py", "")
    assert repeated_names(tmp_path) == ["data/config.py and rewards/config.py"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_what_is_permitted_is_not_flagged(tmp_path: Path, rule: Rule) -> None:
    """Oracle: a tree in which every file does only what design allows it."""
    for name, text in PERMITTED.items():
        docstring = "" if Path(name).name == "_private.py" else '"""What it is."""\n'
        plant(tmp_path, name, docstring + text)
    assert rule(tmp_path) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule: Rule) -> None:
    """Oracle: the rule itself, which found its planted violations above."""
    assert any(files(SOURCE)), f"no source under {SOURCE}"
    assert rule(SOURCE) == []


@pytest.mark.parametrize("rule", RESEARCH_RULES, ids=lambda rule: rule.__name__)
def test_research_keeps_the_rule(rule: Rule) -> None:
    """Oracle: the same rules."""
    assert any(files(RESEARCH)), f"no source under {RESEARCH}"
    assert rule(RESEARCH) == []


def test_contributing_shows_the_floors_that_are_walked() -> None:
    """Oracle: `FLOORS`, row by row, from the top floor down."""
    page = (SOURCE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = {
        room: int(floor)
        for floor, rooms in re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE)
        for room in re.findall(r"`(\w+)`", rooms)
    }
    assert shown == {room: floor for room, floor in FLOORS.items() if room != "__main__"}
