"""Two sides of a comparison, each in a process of its own. They take turns, A B A B, so both meet the same load."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from speed_results import Step
from workload import Workload

OURS = "grao"


def take_turns(
    sides: Mapping[str, Callable[[Any, Workload], None]], workload: Workload, *, threads: int, logs: Path
) -> dict[str, list[Step]]:
    """Every step of the workload on each side in turn; the first is the warm-up, and is left out.

    Args:
        sides: what each process runs, given its end of a pipe: for each turn it receives, one step, then its report.
            Ours comes first, and the number of tokens it drew is part of the other's turn.
        workload: what they work on.
        threads: of each process; only one of them works at a time.
        logs: folder for what the processes print.

    Raises:
        RuntimeError: a side ended early; holds the end of what it printed.
        ValueError: the sides did not process the same numbers of tokens.
    """
    assert next(iter(sides)) == OURS, "our draws decide how long the other side's are"
    pipes, processes = {}, []
    for name, run in sides.items():
        pipes[name], process = start_side(run, workload, threads=threads, log=logs / f"{workload.name}-{name}.log")
        processes.append(process)
    steps: dict[str, list[Step]] = {name: [] for name in sides}
    for _ in workload.prompts:
        turn: dict[str, Any] = {"completion_tokens": None}
        for name, pipe in pipes.items():
            steps[name].append(_step(pipe, turn, logs / f"{workload.name}-{name}.log"))
            turn = {"completion_tokens": steps[name][-1]["completion_tokens"]}
        check_same_tokens({name: done[-1] for name, done in steps.items()})
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.close()
        process.join(30)
        process.kill()
    return {name: done[1:] for name, done in steps.items()}


def start_side(run: Callable[[Any, Any], None], work: Any, *, threads: int, log: Path) -> tuple[Any, Any]:
    """A process that runs `run` on its end of a pipe and on `work`, and prints into `log`; our end and the process."""
    os.environ |= {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    spawn = get_context("spawn")  # a forked torch keeps locks of threads that it no longer has
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_run, args=(run, theirs, work, threads, log), daemon=True)
    process.start()
    theirs.close()
    return ours, process


def check_same_tokens(steps: Mapping[str, Step]) -> None:
    """A side that processed other tokens than the other did other work."""
    ours = steps[OURS]
    for name, step in steps.items():
        for counted in ("prompt_tokens", "completion_tokens"):
            if step[counted] != ours[counted]:
                raise ValueError(
                    f"{name} and {OURS} did different work: {counted} {step[counted]} against {ours[counted]}"
                )


def _step(pipe: Any, turn: dict[str, Any], log: Path) -> Step:
    try:
        pipe.send(turn)
        step: Step = pipe.recv()
    except (EOFError, OSError):
        raise RuntimeError(f"{log.stem} ended early:\n" + "\n".join(log.read_text().splitlines()[-30:])) from None
    return step


def _run(run: Callable[[Any, Any], None], turns: Any, work: Any, threads: int, log: Path) -> None:
    """In the new process: all it prints into its log, and its threads."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    import torch

    torch.set_num_threads(threads)
    run(turns, work)
