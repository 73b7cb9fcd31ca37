"""How far an evaluation is: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

QUIET = 30.0
"""Seconds between lines where the output is no terminal."""


class EvaluationProgress:
    """Prompts done, over all models, and the time left by the pace so far; of use as a context."""

    def __init__(self, console: Console, prompts: int, stored: int) -> None:
        self._console, self._prompts, self._done = console, prompts, float(stored)
        self._stored, self._started, self._said = stored, time.monotonic(), time.monotonic()
        self._model = ""
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]{task.fields[model]}"),
                BarColumn(bar_width=32),
                TextColumn("{task.completed:.0f}/{task.total} prompts"),
                TimeRemainingColumn(),
                TextColumn("[dim]{task.fields[doing]}"),
                console=console,
            )
            self._task = self._bar.add_task("", total=prompts, completed=stored, model="", doing="")

    def __enter__(self) -> EvaluationProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def model(self, name: str) -> None:
        """The model that answers from now on."""
        self._model = name
        self._show("loading", over=False)

    def doing(self, what: str) -> None:
        """The work that no count is kept of."""
        self._show(what, over=False)

    def answered(self, done: int, answers: int) -> None:
        """So many of this part's answers."""
        self._show(f"answers {done}/{answers}", over=False)

    def stored(self, prompts: int) -> None:
        """A part is on the disk."""
        self._done += prompts
        self._show("", over=False)

    def finished(self) -> None:
        """A model has answered everything."""
        self._show("", over=True, line=f"{self._model}: every answer is scored and stored")

    def _show(self, doing: str, *, over: bool, line: str = "") -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, model=self._model, doing=doing)
        elif over or time.monotonic() - self._said >= QUIET:
            self._said = time.monotonic()
            self._console.print(line or self._line(doing), highlight=False, soft_wrap=True)

    def _line(self, doing: str) -> str:
        fresh = self._done - self._stored
        line = f"{self._model}: {self._done:.0f} of {self._prompts} prompts of all models"
        if fresh:
            left = (time.monotonic() - self._started) / fresh * (self._prompts - self._done)
            line += f", about {left / 60:.0f} minutes left"
        return f"{line} ({doing})" if doing else line
