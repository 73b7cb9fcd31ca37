"""What the policy answered to the held-out prompts before it was trained: what NAG compares with."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from grao.evaluation import Item
from grao.records import RunDirectory, read_run

logger = logging.getLogger(__name__)


class StartAnswers:
    """The answers at step 0, from memory or, in a resumed run, from its record."""

    def __init__(self, record: RunDirectory | None) -> None:
        self._record = record
        self._items: Sequence[Item] | None = None
        self._sought = False

    def compared_with(self, items: Sequence[Item], step: int) -> Sequence[Item] | None:
        """What to compare an evaluation of this step with; those of step 0 are kept for the later ones."""
        if step == 0:
            self._items, self._sought = items, True
            return None
        if not self._sought:
            self._items, self._sought = self._recorded(), True
            if self._items is None:
                logger.warning("no eval_nag: the policy was not evaluated before training (evaluation.at_start)")
        return self._items

    def _recorded(self) -> list[Item] | None:
        if self._record is None or not self._record.config_file.is_file():
            return None
        run = read_run(self._record.path)
        if 0 not in run.completion_steps(held_out=True):
            return None
        items: list[Item] = []
        for row in run.completions(0, held_out=True):
            if row["kind"] == "sample":
                sample = items[-1].sample + 1 if items and items[-1].row == row["row"] else 0
                items.append(
                    Item(
                        row=row["row"],
                        sample=sample,
                        prompt=row["prompt"],
                        answer=row["completion"],
                        reference=None,
                        category=None,
                        tokens=row["length"],
                        finish=row["finish"],
                        reward=row["reward"],
                    )
                )
        return items
