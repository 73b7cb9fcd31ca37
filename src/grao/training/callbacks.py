"""What a run shows and writes while it trains: a progress bar, a table of completions, records, sealed checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from transformers import TrainerCallback

from grao.groups import Group
from grao.records import RunDirectory, prune_checkpoints, seal_checkpoint
from grao.training.step_state import StepState

SHOWN = (
    "reward",
    "advantage/reference_mean",
    "rewards/accuracies",
    "rewards/margins",
    "loss",
    "kl",
    "value/explained_variance",
    "completions/mean_length",
    "step_time",
)
"""Metrics beside the progress bar, in order, as far as the method has them."""

SUMMARY = (
    "reward",
    "rewards/accuracies",
    "rewards/margins",
    "logprobs/reference",
    "kl",
    "value/explained_variance",
    "entropy",
    "eval_reward",
    "eval_win_rate",
    "eval_nag",
)
"""Metrics of the summary at the end, in order."""

QUIET = 30.0
"""Seconds between progress lines of one task, where the output is no terminal."""


class ProgressBar(TrainerCallback):
    """Shows a bar with the main metrics; plain lines where the output is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task: Any = None
        self._is_main = False
        self._last_line: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar at the step the run starts from."""
        self._is_main = state.is_world_process_zero
        if not state.is_world_process_zero or not self._console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("[bold]step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[doing]}{task.fields[metrics]}"),
            console=self._console,
        )
        self._progress.start()
        self._task = self._progress.add_task(
            "train", total=state.max_steps, completed=state.global_step, doing="", metrics=""
        )

    def working(self, what: str, finished: int, total: int) -> None:
        """Show the progress of a long part of a step, such as sampling."""
        if self._progress is not None:
            doing = "" if finished == total else f"[dim]{what} {finished}/{total}[/dim]  "
            self._progress.update(self._task, doing=doing)
        elif self._is_main:
            self._print_rarely(f"{what}: {finished}/{total}", over=finished == total)

    def _print_rarely(self, line: str, *, over: bool) -> None:
        """Print a line every `QUIET` seconds; shorter tasks print nothing."""
        now = time.monotonic()
        if over or self._last_line is None:
            self._last_line = None if over else now
        elif now - self._last_line >= QUIET:
            self._console.print(line, highlight=False, soft_wrap=True)
            self._last_line = now

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        if self._progress is not None:
            self._progress.update(self._task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Show the latest metrics."""
        if not state.is_world_process_zero or not logs:
            return
        shown = "  ".join(f"{name.split('/')[-1]} {logs[name]:.3g}" for name in SHOWN if name in logs)
        held_out = "  ".join(
            f"{name} {logs[name]:.3g}"
            for name in ("eval_reward", "eval_win_rate", "eval_nag", "eval_n")
            if name in logs
        )
        if self._progress is not None and shown:
            self._progress.update(self._task, metrics=shown)
        if self._progress is None and (shown or held_out):
            self._console.print(
                f"step {state.global_step}/{state.max_steps}  {shown or held_out}", highlight=False, soft_wrap=True
            )
        elif held_out:
            self._console.print(f"step {state.global_step}: {held_out}", highlight=False, soft_wrap=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """Release the terminal, also when training failed."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class CompletionsTable(TrainerCallback):
    """Prints a few prompts with their best and worst sample and the reference, every N steps."""

    def __init__(self, console: Console, every: int, shown: int) -> None:
        self._console, self._every, self._shown = console, every, shown
        self.trainer: Any = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Print the table if it is due."""
        due = self._every > 0 and (state.global_step % self._every == 0 or state.global_step == 1)
        if due and state.is_world_process_zero and self.trainer is not None and self.trainer.step.last_groups:
            groups = self.trainer.step.last_groups[: self._shown]
            if groups and groups[0].samples:
                self._console.print(completions_table(groups, f"step {state.global_step}"))


def completions_table(groups: Sequence[Group], title: str, width: int = 160) -> Table:
    """Return a table of prompts with best sample, worst sample and reference, each cut to `width` characters."""
    table = Table(title=title, title_justify="left")
    for name in ("prompt", "member", "answer", "reward"):
        table.add_column(name, overflow="fold", justify="right" if name == "reward" else "left")
    for group in groups:
        ranked = sorted(group.samples, key=lambda s: float("-inf") if s.reward is None else s.reward)
        members = [("best", ranked[-1]), ("worst", ranked[0])]
        if group.reference is not None:
            members.append(("reference", group.reference))
        for place, (kind, member) in enumerate(members):
            table.add_row(
                Text(_short(_prompt_text(group), width) if place == 0 else ""),
                kind,
                Text(_short(member.text, width)),
                "unscored" if member.reward is None else f"{member.reward:.2f}",
                end_section=place == len(members) - 1,
            )
    return table


def _prompt_text(group: Group) -> str:
    if isinstance(group.prompt, str):
        return group.prompt
    return group.prompt[-1]["content"]


def _short(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: width - 1]}…"


class StepHooks(TrainerCallback):
    """Measures the seconds of a step and remembers the random generators after it."""

    def __init__(self, step: StepState) -> None:
        self._step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the step."""
        self._step.meter.add_value("step_time", time.perf_counter() - self._step.started)
        self._step.last_step.remember_generators()


class Recorder(TrainerCallback):
    """Writes every log line to metrics.jsonl, seals checkpoints, and deletes those that are superseded."""

    def __init__(self, record: RunDirectory, keep: int | None) -> None:
        self._record, self._keep = record, keep

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log with every checkpoint, so that a resumed run starts with an empty meter."""
        control.should_log = control.should_log or control.should_save

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Append one line; skip transformers' summary, of which a resumed run would have several."""
        if state.is_world_process_zero and logs and "train_runtime" not in logs:
            self._record.append_metrics(state.global_step, {k: v for k, v in logs.items() if k != "total_flos"})

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seal the new checkpoint, then delete superseded ones."""
        if not state.is_world_process_zero:
            return
        self._record.sync()
        seal_checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        if self._keep is not None:
            prune_checkpoints(self._record.path, self._keep)


def summary_lines(metrics_file: Path, over: int = 5) -> list[str]:
    """Return first and last values of the main metrics, each a mean over `over` log lines."""
    lines = [json.loads(line) for line in metrics_file.read_text(encoding="utf-8").splitlines()]
    shown = []
    for name in SUMMARY:
        values = [line[name] for line in lines if line.get(name) is not None]
        n = 1 if name.startswith("eval_") or len(values) < 2 * over else over
        if values:
            shown.append(f"{name:24s} {fmean(values[:n]):8.3f} → {fmean(values[-n:]):8.3f}")
    return shown
