"""The report with experiments in it: claims with verdicts, means over seeds, tuning, maps over β and λ.

python -m research report DIR... --output FILE.html
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from grao.report.page import READERS, Written, read_sections, write_page
from research.report.experiment_section import FILE, claims_of_all, experiment_section

__all__ = ["Written", "write_report"]

EXPERIMENT = (FILE, "the record of an experiment", experiment_section)


def write_report(
    directories: Sequence[str | Path],
    output: str | Path,
    *,
    title: str | None = None,
    sensitive: bool | None = None,
    figures_folder: str | Path | None = None,
) -> Written:
    """Write a page like `grao.report.write_report`, which also reads records of experiments.

    Several experiments begin with one table of all their claims.
    """
    sections = read_sections(directories, sensitive=sensitive, readers=(EXPERIMENT, *READERS))
    records = [Path(directory) for directory in directories if (Path(directory) / FILE).is_file()]
    return write_page([*claims_of_all(records), *sections], output, title=title, figures_folder=figures_folder)
