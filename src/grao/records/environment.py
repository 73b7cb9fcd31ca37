"""The software that a run used: versions, without names or paths of the machine."""

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
"""Libraries whose version can change a run's numbers."""


def environment() -> dict[str, Any]:
    """Return the versions of grao, Python and the installed libraries, and the platform.

    >>> sorted(environment())
    ['grao', 'libraries', 'machine', 'platform', 'python']
    """
    libraries = {}
    for name in LIBRARIES:
        try:
            libraries[name] = metadata.version(name)  # importing torch for its version would take seconds
        except metadata.PackageNotFoundError:
            continue
    return {
        "grao": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "libraries": libraries,
    }
