"""Which local files a source names."""

from __future__ import annotations

import difflib
import glob
import re
from pathlib import Path

from grao.data.files import READERS, ending_of

SPLITS = ("train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval")
"""Words in a file's name that say which split it holds."""


def local_files(source: str | Path, split: str) -> list[Path] | None:
    """The files that a source names, sorted; None where it names nothing local and may be a hub id.

    A file is itself, whatever the split. A folder is its files with a known ending: those with the split's name in
    theirs (``train.jsonl.gz``, ``train-00000-of-00002.parquet``), or all where no name says a split. A pattern
    (``data/*.jsonl``) is what it matches.

    Raises:
        FileNotFoundError: the source looks like a path or pattern, and nothing is there.
        ValueError: a folder holds no such data.
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
            raise FileNotFoundError(f"no file matches the pattern {str(source)!r}, seen from {Path.cwd()}")
        return matches
    if isinstance(source, Path) or looks_like_path(source):
        raise FileNotFoundError(f"there is no file or folder {str(source)!r}{_nearest(path)}")
    return None


def looks_like_path(source: str) -> bool:
    """Whether a string can only be meant as a path: a known ending, or a start with ``.``, ``/`` or ``~``."""
    return source.startswith((".", "/", "~")) or ending_of(source) is not None


def _nearest(path: Path) -> str:
    """What the folder holds that is spelled alike, or the folder that is missing."""
    if not path.parent.is_dir():
        return f": its folder {str(path.parent)!r} does not exist either"
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=3)
    return f": did you mean {' or '.join(map(repr, near))}?" if near else f" in {path.parent.resolve()}"


def _files_of_folder(folder: Path, split: str) -> list[Path]:
    if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
        raise ValueError(
            f"{folder} was written by `save_to_disk`: pass `datasets.load_from_disk({str(folder)!r})` as the source"
        )
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name[0] != "." and ending_of(p))
    if not files:
        inside = sorted({str(p.parent) for p in folder.rglob("*") if ending_of(p)})
        remedy = f"; give one of its folders: {', '.join(inside[:5])}" if inside else ""
        raise ValueError(f"{folder} holds no file that ends in {', '.join(READERS)}{remedy}")
    words = {p: re.split(r"[^a-z0-9]+", p.name.lower()) for p in files}
    of_split = [p for p in files if split.lower() in words[p]]
    if not of_split and any(word in SPLITS for p in files for word in words[p]):
        raise ValueError(
            f"{folder} holds no file of split {split!r}, found {', '.join(p.name for p in files[:8])}; "
            "name another split, or the file itself"
        )
    chosen = of_split or files
    endings = {ending_of(p) for p in chosen}
    if len(endings) > 1:
        raise ValueError(
            f"{folder} holds {', '.join(p.name for p in chosen[:8])}: files with several endings may be copies of one "
            "another; name a file, or a pattern such as '*.jsonl'"
        )
    return chosen
