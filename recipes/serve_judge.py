"""Serve a model as a judge with vLLM, on a CPU or GPU of this machine, to this machine only.

    python recipes/serve_judge.py MODEL [--port 8000] [--name NAME] [--python PYTHON] [-- VLLM FLAGS]

Start the server, wait until it answers a first question, print the configuration to paste (to stdout; vLLM logs to
stderr), and run until interrupted or terminated.

MODEL is a directory, or a name on the hub. A hub model must be in the cache, unless `HF_HUB_OFFLINE=0` lets vLLM
download it. The model needs a chat template, as every instruct model has.

vLLM pins other versions than grao, so it needs its own Python: `make vllm` makes one for the CPU in `.venv-vllm`.
`--python`, or the environment variable GRAO_VLLM_PYTHON, names another, such as one with a GPU build.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"  # not an option: without VLLM_API_KEY the server takes requests without a key
PYTHON = Path(__file__).resolve().parents[1] / ".venv-vllm" / "bin" / "python"
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_HOST_IP": HOST,  # otherwise its processes choose another address of this machine
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB; this and the next are for the CPU build only
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # OMP_NUM_THREADS threads on any free core
}
"""Defaults for vLLM's environment; the caller's environment overrides them."""

FLAGS = ["--generation-config=vllm", "--uvicorn-log-level=warning"]
"""A model's own generation settings, such as a repetition penalty, would change greedy verdicts; info would log a line
per question."""
CPU_FLAGS = ["--enforce-eager"]
"""Compiling takes minutes; `-- --no-enforce-eager` compiles."""

WHICH_BUILD = """
from importlib.metadata import distributions
print(*{found.metadata["Name"].lower() for found in distributions()} & {"vllm", "vllm-cpu"})
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted."""
    args, flags = parse(list(sys.argv[1:] if arguments is None else arguments))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    name, port = args.name or args.model, open_port(args.port)
    python = find_python(args.python)
    cpu = "vllm-cpu" in builds(python)
    command = [
        *(str(python), "-m", "vllm.entrypoints.openai.api_server"),  # the CPU build's own `vllm serve` does not start
        *(f"--model={args.model}", f"--served-model-name={name}", f"--host={HOST}", f"--port={port}"),
        *(FLAGS + CPU_FLAGS * cpu + flags),  # of contradicting flags the last one counts
    ]
    # In a new session, because vLLM is several processes that must end together.
    server = subprocess.Popen(command, env=ENVIRONMENT | os.environ, stdout=sys.stderr, start_new_session=True)
    try:
        wait_until_healthy(server, port, time.monotonic() + args.wait)
        first_question(name, port)
        print(configuration(name, port), flush=True)
        raise SystemExit(f"vLLM ended with status {server.wait()}. See its log above.")
    except KeyboardInterrupt:
        return 0
    finally:
        stop(server)


def parse(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return our options, and the flags after ``--``, which are for vLLM."""
    end = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        description="Serve a model as a judge with vLLM, to this machine only. Flags after -- go to vLLM."
    )
    parser.add_argument("model", help="a directory, or a name on the hub")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0 = any free port")
    parser.add_argument("--name", help="name of the model in the configuration; default: MODEL")
    parser.add_argument("--python", help="a Python with vLLM; default: GRAO_VLLM_PYTHON, else .venv-vllm")
    parser.add_argument("--wait", type=float, default=1800, help="seconds to wait for the server; default: 1800")
    return parser.parse_args(words[:end]), words[end + 1 :]


def find_python(given: str | None) -> Path:
    """Return the Python that vLLM runs under: as given, from the environment, or from `make vllm`."""
    python = Path(given or os.environ.get("GRAO_VLLM_PYTHON") or PYTHON)
    if not python.is_file():
        raise SystemExit(
            f"there is no {python}. `make vllm` makes .venv-vllm with vLLM for the CPU; or name the Python of another "
            "environment with vLLM by --python or GRAO_VLLM_PYTHON."
        )
    return python


def builds(python: Path) -> list[str]:
    """Return the distributions of vLLM in this Python: ``vllm``, ``vllm-cpu``."""
    asked = subprocess.run([python, "-c", WHICH_BUILD], capture_output=True, text=True, check=False)
    found = asked.stdout.split()
    if not found:
        raise SystemExit(f"{python} has no vLLM. {asked.stderr.strip()}`make vllm` makes an environment with it.")
    return found


def open_port(port: int) -> int:
    """Return the port, or a free one for 0; the server binds to it a little later."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as vLLM does: a port just left is free
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SystemExit(f"port {port} cannot be used: {error.strerror}. Choose another: --port 8001.") from error
        return int(probe.getsockname()[1])


def wait_until_healthy(server: subprocess.Popen[bytes], port: int, deadline: float) -> None:
    """Wait until /health reports that the model is loaded."""
    while True:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=10):
                return
        except OSError:  # not listening yet, or not ready
            if (status := server.poll()) is not None:
                raise SystemExit(f"vLLM ended with status {status} before it answered. See its log above.") from None
            if time.monotonic() > deadline:
                raise SystemExit("vLLM did not answer in time. Give a large model more: --wait 3600.") from None
            time.sleep(0.5)


def first_question(name: str, port: int) -> None:
    """Ask one question: a healthy server can still fail at its first forward pass or chat template."""
    question = {"model": name, "messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 1}
    request = urllib.request.Request(
        f"http://{HOST}:{port}/v1/chat/completions", json.dumps(question).encode(), headers(os.environ)
    )
    try:
        with urllib.request.urlopen(request, timeout=600):
            pass
    except urllib.error.HTTPError as error:
        detail = error.read().decode(errors="replace")
        raise SystemExit(
            f"vLLM failed on a first question: {error.code} {detail}. A model without chat template needs "
            "`-- --chat-template FILE`; for other causes see vLLM's log above."
        ) from error


def headers(environment: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers of a request; with the key, if the server has one."""
    key = environment.get("VLLM_API_KEY")
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


def configuration(name: str, port: int) -> str:
    """Return the configuration to paste. JSON strings are valid YAML."""
    return "\n".join(
        [
            "rewards:",
            "  - path: judge",
            "    kwargs:",
            f"      model: {json.dumps(name)}",
            f"      base_url: http://{HOST}:{port}/v1",
            "      rubric: helpfulness",
            "      cache: judge-replies.sqlite",
        ]
    )


def stop(server: subprocess.Popen[bytes]) -> None:
    """Stop all of vLLM's processes, and kill those that remain; killed ones leave shared memory behind."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 20
        there = signalled(server, number)
        while there and time.monotonic() < deadline:
            time.sleep(0.1)
            there = signalled(server, 0)  # only checks
        if not there:
            return


def signalled(server: subprocess.Popen[bytes], number: int) -> bool:
    """Signal its processes; return whether any was left."""
    server.poll()  # otherwise its zombie would count
    try:
        os.killpg(server.pid, number)
    except ProcessLookupError:
        return False
    return True


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
