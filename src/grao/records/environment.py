"""What a run ran on: versions, not places."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

from grao.version import __version__

LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "datasets",
    "peft",
    "safetensors",
    "numpy",
    "pyarrow",
    "math-verify",
    "openai",
    "vllm",
    "deepspeed",
)
"""Those whose version can change a run's numbers; the ones not installed are left out of the record."""


def environment() -> dict[str, Any]:
    """Versions of grao, Python and the libraries, and the platform. No host name, no path, no user.

    >>> sorted(environment())
    ['grao', 'libraries', 'machine', 'platform', 'python']
    """
    return {
        "grao": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name)) is not None},
    }


def _version(name: str) -> str | None:
    """Read from the installed metadata: importing torch only to ask its version would take seconds."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
