"""The local files that a source names."""

from __future__ import annotations

import difflib
import glob
import re
from pathlib import Path

from grao.data.files import READERS, extension_of

SPLITS = ("train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval")
"""Words in a file's name that name its split."""


def local_files(source: str | Path, split: str) -> list[Path] | None:
    """Return the files that a source names, sorted, or None if it can only be a hub id.

    A file is read for any split. A folder gives its files of the split (``train.jsonl.gz``,
    ``train-00000-of-00002.parquet``), or all files with a known extension if none names a split. A pattern
    (``data/*.jsonl``) gives what it matches.

    Raises:
        FileNotFoundError: The source looks like a path or pattern, but nothing is there.
        ValueError: A folder holds no such data.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _files_of_folder(path, split)
    if path.exists():
        return [path]
    if any(mark in str(source) for mark in "*?["):
        matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 (absolute)
        matches = [match for match in matches if match.is_file()]
        if not matches:
            raise FileNotFoundError(f"no file matches the pattern {str(source)!r} from {Path.cwd()}")
        return matches
    if isinstance(source, Path) or source.startswith((".", "/", "~")) or extension_of(source) is not None:
        raise FileNotFoundError(f"no file or folder {str(source)!r}{_nearest(path)}")
    return None


def _nearest(path: Path) -> str:
    """Return the similar names in the folder, or which folder is missing, for an error message."""
    if not path.parent.is_dir():
        return f": the folder {str(path.parent)!r} does not exist"
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=3)
    return f". Did you mean {' or '.join(map(repr, near))}?" if near else f" in {path.parent.resolve()}"


def _files_of_folder(folder: Path, split: str) -> list[Path]:
    if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
        raise ValueError(
            f"{folder} was written by `save_to_disk`. Pass `datasets.load_from_disk({str(folder)!r})` as the source"
        )
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name[0] != "." and extension_of(p))
    if not files:
        inside = sorted({str(p.parent) for p in folder.rglob("*") if extension_of(p)})
        remedy = f". Pass one of its folders: {', '.join(inside[:5])}" if inside else ""
        raise ValueError(f"{folder} has no file ending in {', '.join(READERS)}{remedy}")
    words = {p: re.split(r"[^a-z0-9]+", p.name.lower()) for p in files}
    of_split = [p for p in files if split.lower() in words[p]]
    if not of_split and any(word in SPLITS for p in files for word in words[p]):
        raise ValueError(
            f"{folder} has no file of split {split!r}, found {', '.join(p.name for p in files[:8])}. "
            "Pass another split or one of the files"
        )
    chosen = of_split or files
    if len({extension_of(p) for p in chosen}) > 1:
        raise ValueError(
            f"{folder} has {', '.join(p.name for p in chosen[:8])}, which may be copies in several formats. "
            "Pass one file, or a pattern such as '*.jsonl'"
        )
    return chosen
