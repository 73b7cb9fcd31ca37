"""Where progress and tables are shown."""

from __future__ import annotations

import os

from rich.console import Console

FILE_WIDTH = 120
"""Columns where the output goes to a file or a pipe, which have no width of their own."""


def make_console() -> Console:
    """A console as wide as its terminal, or as `COLUMNS` says; `FILE_WIDTH` where there is neither."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=FILE_WIDTH)
