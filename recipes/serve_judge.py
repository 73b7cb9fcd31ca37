"""Serve a model of your own as a judge with vLLM, on a CPU or a GPU of this machine, and to this machine only.

    python recipes/serve_judge.py MODEL [--port 8000] [--name NAME] [--python PYTHON] [-- FLAGS OF VLLM]

It starts the server, waits until it answers a first question, prints the lines to paste into a configuration (to
stdout; all that vLLM says goes to stderr), and keeps the server until it is interrupted or terminated.

MODEL is a folder, or a name on the Hub: then the model must be in the cache, unless the environment says
`HF_HUB_OFFLINE=0`, which lets vLLM download it. It needs a chat template, as every instruct model has.

vLLM pins other versions than grao, so it has a Python of its own: `make vllm` makes one for the CPU in `.venv-vllm`;
`--python`, or GRAO_VLLM_PYTHON in the environment, names another, such as one with a GPU build.
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

HOST = "127.0.0.1"  # no option: the server asks for no key unless VLLM_API_KEY is set, so it is not for a network
PYTHON = Path(__file__).resolve().parents[1] / ".venv-vllm" / "bin" / "python"
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_HOST_IP": HOST,  # its processes talk to one another, and would choose another address of this machine
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB; this and the next are for the CPU, and mean nothing to a GPU build
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # OMP_NUM_THREADS threads on whatever core is free
}
"""What vLLM is told unless the caller's environment says otherwise."""

FLAGS = ["--generation-config=vllm", "--uvicorn-log-level=warning"]
"""A model's own generation settings, such as a repetition penalty, would bend verdicts that are to be greedy; and a
line of log for each question is too much."""
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
        *(FLAGS + CPU_FLAGS * cpu + flags),  # of flags that contradict each other the last one counts
    ]
    # A session of its own: vLLM is several processes, which are to end together.
    server = subprocess.Popen(command, env=ENVIRONMENT | os.environ, stdout=sys.stderr, start_new_session=True)
    try:
        wait_until_healthy(server, port, time.monotonic() + args.wait)
        first_question(name, port)
        print(configuration(name, port), flush=True)
        raise SystemExit(f"vLLM ended with status {server.wait()}; it says why above")
    except KeyboardInterrupt:
        return 0
    finally:
        stop(server)


def parse(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and what stands behind ``--``, which is for vLLM."""
    end = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        description="Serve a model as a judge with vLLM, to this machine only. Flags behind -- are vLLM's."
    )
    parser.add_argument("model", help="a folder, or a name on the Hub")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0 takes any that is free")
    parser.add_argument("--name", help="what the configuration is to call the model; default: MODEL")
    parser.add_argument("--python", help="a Python that has vLLM; default: GRAO_VLLM_PYTHON, else .venv-vllm")
    parser.add_argument("--wait", type=float, default=1800, help="seconds until it must answer; default: 1800")
    return parser.parse_args(words[:end]), words[end + 1 :]


def find_python(given: str | None) -> Path:
    """The Python that vLLM runs under: as given, from the environment, or of `make vllm`."""
    python = Path(given or os.environ.get("GRAO_VLLM_PYTHON") or PYTHON)
    if not python.is_file():
        raise SystemExit(
            f"there is no {python}. `make vllm` makes .venv-vllm with vLLM for the CPU; --python, or "
            "GRAO_VLLM_PYTHON, names the Python of another environment that has vLLM"
        )
    return python


def builds(python: Path) -> list[str]:
    """The distributions of vLLM that this Python has: ``vllm``, ``vllm-cpu``."""
    asked = subprocess.run([python, "-c", WHICH_BUILD], capture_output=True, text=True, check=False)
    found = asked.stdout.split()
    if not found:
        raise SystemExit(f"{python} has no vLLM. {asked.stderr.strip()}`make vllm` makes an environment that has")
    return found


def open_port(port: int) -> int:
    """The port, or any that is free for 0; the server binds to it a little later."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what a server just left is free, as for vLLM
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SystemExit(f"port {port} cannot be used: {error.strerror}. Choose another: --port 8001") from error
        return int(probe.getsockname()[1])


def wait_until_healthy(server: subprocess.Popen[bytes], port: int, deadline: float) -> None:
    """Until /health says that the model is loaded."""
    while True:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=10):
                return
        except OSError:  # nobody listens yet, or it is not ready
            if (status := server.poll()) is not None:
                raise SystemExit(f"vLLM ended with status {status} before it answered; it says why above") from None
            if time.monotonic() > deadline:
                raise SystemExit("vLLM did not answer in time; a large model may need more: --wait 3600") from None
            time.sleep(0.5)


def first_question(name: str, port: int) -> None:
    """Have it answer once: a server is healthy even where its first forward pass, or its template, will fail."""
    question = {"model": name, "messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 1}
    request = urllib.request.Request(
        f"http://{HOST}:{port}/v1/chat/completions", json.dumps(question).encode(), headers(os.environ)
    )
    try:
        with urllib.request.urlopen(request, timeout=600):
            pass
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")
        raise SystemExit(
            f"vLLM is up, but failed on a first question: {error.code} {said}. A model without chat template needs "
            "`-- --chat-template FILE`; anything else stands in what vLLM says above"
        ) from error


def headers(environment: Mapping[str, Any]) -> dict[str, str]:
    """Of a request; with the key, where the server was given one."""
    key = environment.get("VLLM_API_KEY")
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


def configuration(name: str, port: int) -> str:
    """The lines to paste; JSON's strings are YAML's as well."""
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
    """End vLLM with all its processes, and force those that do not go: forced ones leave shared memory behind."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 20
        there = signalled(server, number)
        while there and time.monotonic() < deadline:
            time.sleep(0.1)
            there = signalled(server, 0)  # which does nothing but ask
        if not there:
            return


def signalled(server: subprocess.Popen[bytes], number: int) -> bool:
    """Whether any of its processes was left to be told."""
    server.poll()  # or its zombie would count as one
    try:
        os.killpg(server.pid, number)
    except ProcessLookupError:
        return False
    return True


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
