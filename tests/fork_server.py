"""A program that tests talk to: it runs commands in processes forked from one that has imported everything.

Starting Python and importing torch and transformers takes 6 s, a run of a tiny model takes 1: a test that starts three
trainings is better off with this. A forked process has its own memory and random generators, and can be killed.

It reads one JSON request a line, and answers each with one line:

    {"run": ["train", "run.yaml"], "program": "grao", "folder": ..., "log": ...}   its process id
    {"poll": id}                                                its exit status, negative for a signal; null = it runs
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

import pandas  # noqa: F401  (what follows is imported in advance; commands would import it when they need it)
import pyarrow.parquet  # noqa: F401
import torch

import grao.demo.base_model
import grao.training  # noqa: F401
from grao.cli import main
from research.__main__ import main as research_main

PROGRAMS = {"grao": main, "research": research_main}


def run(arguments: list[str], program: str, folder: str, log: str) -> int:
    """Fork; in the child, do what the console script does, with everything it says in a file."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.chdir(folder)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(file, stream)
        torch.set_num_threads(1)
        status = PROGRAMS[program](arguments)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001  (the child must end here, never go on as a second server)
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def poll(pid: int) -> int | None:
    """The exit status of a process that has ended."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def answer(request: dict[str, Any]) -> Any:
    if "poll" in request:
        return poll(request["poll"])
    return run(request["run"], request["program"], request["folder"], request["log"])


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
