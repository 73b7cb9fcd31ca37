"""Progress of an evaluation: a bar in a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 30.0
"""If the output is no terminal."""


class EvaluationProgress:
    """Show the prompts done over all models and the time left. Use as a context manager."""

    def __init__(self, console: Console, prompts: int, stored: int) -> None:
        self._console, self._prompts, self._stored, self._done = console, prompts, stored, stored
        self._started = self._printed = time.monotonic()
        self._model = self._work = ""
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
        """Name the model that answers from now on."""
        self._model = name
        self.doing("loading")

    def stored(self, prompts: int) -> None:
        """Count the prompts of a part that is stored."""
        self._done += prompts
        self.doing("")

    def doing(self, work: str) -> None:
        """Name the current work."""
        self._work = work
        self._show(work)

    def sampled(self, done: int, total: int) -> None:
        """Show how many samples of the current work are complete."""
        self._show(f"{self._work} {done}/{total}")

    def finished(self) -> None:
        """Say that the current model is done."""
        if self._bar is None:
            self._print(f"{self._model}: every answer is scored and stored")

    def _show(self, doing: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, model=self._model, doing=doing)
        elif time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES:
            self._print(self._line(doing))

    def _print(self, line: str) -> None:
        self._printed = time.monotonic()
        self._console.print(line, highlight=False, soft_wrap=True)

    def _line(self, doing: str) -> str:
        line = f"{self._model}: {self._done} of {self._prompts} prompts of all models"
        if fresh := self._done - self._stored:
            left = (time.monotonic() - self._started) / fresh * (self._prompts - self._done)
            line += f", about {left / 60:.0f} minutes left"
        return f"{line} ({doing})" if doing else line
