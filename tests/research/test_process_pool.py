"""Jobs in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from research.process_pool import Job, run_jobs

pytestmark = pytest.mark.slow


def note(folder: str, name: str) -> None:
    """Says who it is and with how many threads, on both streams and in a file."""
    import torch

    print(f"{name} prints")
    print(f"{name} complains", file=sys.stderr)
    Path(folder, name).write_text(f"{os.getpid()} {torch.get_num_threads()}", encoding="utf-8")


def fail(folder: str, name: str) -> None:
    raise ValueError(f"{name} cannot")


def sleep(folder: str, name: str) -> None:
    Path(folder, name).write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(600)


def test_jobs_run_apart_and_a_failing_one_stops_no_other(tmp_path: Path) -> None:
    """Oracle: process ids, all different and none of them this one's; one thread each; logs by hand."""
    calls = {"a": note, "b": fail, "c": note, "d": note}
    jobs = [Job(name, call, (str(tmp_path), name), tmp_path / "logs" / f"{name}.txt") for name, call in calls.items()]
    told: dict[str, bool] = {}
    failed = run_jobs(jobs, 2, lambda job, well: told.update({job.name: well}))
    assert [job.name for job in failed] == ["b"]
    assert told == {"a": True, "b": False, "c": True, "d": True}
    pids, threads = zip(*((tmp_path / name).read_text().split() for name in "acd"), strict=True)
    assert len({*pids, str(os.getpid())}) == 4
    assert threads == ("1", "1", "1")
    assert (tmp_path / "logs" / "a.txt").read_text() in ("a prints\na complains\n", "a complains\na prints\n")
    assert "ValueError: b cannot" in (tmp_path / "logs" / "b.txt").read_text()


SLEEPERS = """
import signal
import sys
sys.path[:0] = [{folder!r}, {root!r}]
from pathlib import Path
import test_process_pool as t

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background
    jobs = [t.Job(n, t.sleep, ({out!r}, n), Path({out!r}, n + ".txt")) for n in ("a", "b", "c")]
    t.run_jobs(jobs, 2, lambda job, well: None)
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_no_job_outlives_the_command(tmp_path: Path, sent: signal.Signals) -> None:
    """Oracle: the processes' own ids, dead within seconds of a command that is killed, or interrupted by Ctrl-C; of
    three jobs for two workers the third never began.
    """
    script, here = tmp_path / "sleepers.py", Path(__file__).parent
    script.write_text(
        SLEEPERS.format(folder=str(here), root=str(here.parents[1]), out=str(tmp_path)), encoding="utf-8"
    )
    command = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not all((tmp_path / name).is_file() and (tmp_path / name).read_text() for name in "ab"):
        assert time.monotonic() < until
        assert command.poll() is None
        time.sleep(0.05)
    pids = [int((tmp_path / name).read_text()) for name in "ab"]
    command.send_signal(sent)
    assert command.wait(60) != 0
    while any(Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text() for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not (tmp_path / "c").exists()
