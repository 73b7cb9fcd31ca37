"""The console for progress and tables."""

from __future__ import annotations

import os

from rich.console import Console

FILE_WIDTH = 120
"""Columns of output to a file or a pipe, which have no width of their own."""


def make_console() -> Console:
    """Return a console as wide as the terminal or as `COLUMNS`; otherwise `FILE_WIDTH`."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=FILE_WIDTH)
