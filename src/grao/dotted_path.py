"""Import what a dotted path of a configuration names: `package.module:name` or `folder/file.py:name`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any


def import_path(path: str) -> Any:
    """Return what ``package.module:name``, ``package.module.name`` or ``file.py:name`` names; names may be dotted.

    The current working directory is importable: it is appended to `sys.path`, after everything installed.

    Raises:
        ValueError: There is no such module, file or name (the nearest ones are listed), or an import inside it fails.
    """
    module_name, _, attributes = path.rpartition(":") if ":" in path else path.rpartition(".")
    if ":" not in path and path.endswith(".py"):
        raise ValueError(f"{path!r} is a file: write {path}:name, with a name in it")
    if not module_name or not attributes:
        raise ValueError(f"{path!r} is not a dotted path: write package.module:name or folder/file.py:name")
    imported = _import_file if module_name.endswith(".py") else _import_module
    found: Any = imported(module_name, path)
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError as error:
            owner = found.__name__ if isinstance(found, ModuleType) else type(found).__name__
            kind = "module" if isinstance(found, ModuleType) else "object"
            raise ValueError(
                f"{path!r}: {kind} {owner!r} has no attribute {attribute!r}{nearest_names(attribute, dir(found))}"
            ) from error
    return found


def _import_module(name: str, path: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(missing + "."):
            raise ValueError(
                f"{path!r}: there is no module {missing!r}{nearest_names(missing, _siblings(missing))}. Looked in the "
                f"installed packages and in the current working directory, {here}"
            ) from error
        raise ValueError(f"{path!r}: module {name!r} imports {missing!r}, which is not installed") from error


def _import_file(name: str, path: str) -> ModuleType:
    """Import a file. Its key in `sys.modules` is its path, so that two files of one name are two modules."""
    file = Path(name).resolve()
    if not file.is_file():
        raise ValueError(f"{path!r}: there is no file {str(file)!r}")
    if (known := sys.modules.get(str(file))) is not None:
        return known
    spec = importlib.util.spec_from_file_location(str(file), file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[str(file)] = module
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        del sys.modules[str(file)]
        raise ValueError(f"{path!r}: the file imports {error.name!r}, which is not installed") from error
    except BaseException:
        del sys.modules[str(file)]
        raise
    return module


def _siblings(module: str) -> list[str]:
    """Return the modules in the place where this one was expected."""
    parent, _, _ = module.rpartition(".")
    where = getattr(sys.modules.get(parent), "__path__", None) if parent else [str(Path.cwd())]
    prefix = f"{parent}." if parent else ""
    return [prefix + found.name for found in pkgutil.iter_modules(where)] if where else []


def nearest_names(name: str, known: Iterable[str]) -> str:
    """Return " (nearest: …)" with up to three known names close to `name`, or nothing."""
    near = difflib.get_close_matches(name, [k for k in known if not k.startswith("__")], n=3, cutoff=0.5)
    return f" (nearest: {', '.join(near)})" if near else ""
