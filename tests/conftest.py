"""What every test shares: no network, no telemetry, one torch thread, the way to the real data, and `grao` commands
in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

# Read once, when the libraries are imported: so before any test module is, and inherited by the processes tests start.
os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
)


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """Sums in one order on every machine, and workers that do not fight for cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository; read-only, and not part of it."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data sets (gsm8k, hh-rlhf) in ../shared/data, beside the repository")
    return folder


@pytest.fixture(scope="session")
def write_bpe_model() -> Callable[..., Path]:
    """Saves a small random model with a byte-level BPE learnt from `texts`; `changes` go to its configuration."""

    def write(folder: Path, texts: Iterable[str], vocab_size: int, **changes: Any) -> Path:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from grao.demo.base_model import bpe_tokenizer

        tokenizer = bpe_tokenizer(texts, vocab_size)
        settings = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "initializer_range": 0.1,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        with torch.random.fork_rng():
            torch.manual_seed(0)
            LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return write


@dataclass(frozen=True)
class GraoProcess:
    """A `grao` command in a process of its own; see fork_server.py."""

    pid: int
    log: Path
    ask: Callable[..., Any]

    def ended(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs. Ask no more once you were told."""
        return self.ask(poll=self.pid)

    def finish(self, seconds: float = 240) -> str:
        """Wait until it has done what it was told to; what it said."""
        status = self._wait(lambda: False, seconds)
        assert status == 0, self.log.read_text(encoding="utf-8")
        return self.log.read_text(encoding="utf-8")

    def kill_when(self, due: Callable[[], bool], seconds: float = 240) -> None:
        """SIGKILL as soon as `due`; the process must still be there then."""
        status = self._wait(due, seconds)
        assert status is None, f"it was over before it was due: {self.log.read_text(encoding='utf-8')}"
        os.kill(self.pid, signal.SIGKILL)
        assert self._wait(lambda: False, seconds) == -signal.SIGKILL

    def _wait(self, due: Callable[[], bool], seconds: float) -> int | None:
        until = time.monotonic() + seconds
        while (status := self.ended()) is None and not due():
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                pytest.fail(f"it was not over after {seconds} s: {self.log.read_text(encoding='utf-8')}")
            time.sleep(0.0005)
        return status


@pytest.fixture(scope="session")
def start_grao() -> Iterator[Callable[..., GraoProcess]]:
    """Starts a `grao` command in a folder: `start_grao(folder, "train", "run.yaml")`; or one of `research`."""
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask(**request: Any) -> Any:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    def start(folder: Path, *arguments: str, program: str = "grao") -> GraoProcess:
        log = folder / "said.txt"
        return GraoProcess(ask(run=arguments, program=program, folder=str(folder), log=str(log)), log, ask)

    yield start
    server.kill()  # it has nothing to finish, and unloading torch takes seconds
    server.wait()


class Float64Throughout(TorchFunctionMode):
    """Turns the float32 that models ask for inside (norms, softmax, routers) into float64: then 1e-12 can be asked."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.Tensor.float:
            return args[0].double()

        def widen(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        return func(*map(widen, args), **{k: widen(v) for k, v in (kwargs or {}).items()})


@pytest.fixture
def float64_throughout() -> Iterator[None]:
    """No rounding to float32 during this test."""
    with Float64Throughout():
        yield
