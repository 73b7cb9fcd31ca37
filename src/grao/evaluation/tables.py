"""The tables of an evaluation, for a terminal of 100 columns or more."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from grao.evaluation.figure import Figure
from grao.evaluation.summary import Summary


def evaluation_tables(
    summaries: Mapping[str, Summary], differences: Mapping[tuple[str, str], Figure] | None = None
) -> list[Table]:
    """All tables: wins and gains, rewards, accuracy, behaviour, one of categories, differences between models.

    Tables without content (no verifiable scorer, no categories, one model) are left out.

    Args:
        summaries: by the name of the model, in the order of the rows.
        differences: what `grao.evaluation.summary.differences` found.
    """
    raise NotImplementedError
