"""vLLM's side of benchmarks/rollout.py. Runs under the Python of an environment of its own (`make vllm`).

    VENV/bin/python benchmarks/vllm_side.py WORK PIPE

WORK is a JSON file that `rollout.run_vllm` writes; PIPE is the number of an open pipe, over which turns come and
reports go. The engine is set up as it was found to be fastest on a CPU:

- it runs in this process (`VLLM_ENABLE_V1_MULTIPROCESSING=0`, executor `uni`). With workers of its own it was slower,
  and one of them spun while it waited, which takes a core from the side that has the turn;
- compiled by inductor, vLLM's default, where there is a C++ compiler, and eager elsewhere;
- asked for token ids alone: text, log-probs and seeds would cost it a few per cent each.

Every completion is a request, told after how many tokens to end. That is what vLLM makes of a request for n of them,
which took the same time; n of one request could not end apart.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from step_meter import StepMeter

CACHE = Path(sys.prefix) / "cache"
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # OMP_NUM_THREADS threads on whatever core is free, as the other sides
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CACHE_ROOT": str(CACHE / "vllm"),
    "TORCHINDUCTOR_CACHE_DIR": str(CACHE / "inductor"),  # so that only the first run waits for the compiler
}
BLOCK = 32
"""Tokens of a block of the cache. Completions share whole blocks of their prompt, and a short prompt has none of 128,
which is what vLLM would choose. 32 was never slower."""


def main() -> None:
    work = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    turns = Connection(int(sys.argv[2]))
    os.environ |= ENVIRONMENT
    from vllm import LLM, SamplingParams, TokensPrompt

    group = work["group"]
    engine: Any = LLM(
        model=work["model"],
        dtype=work["dtype"],
        max_model_len=work["max_tokens"],
        max_num_seqs=group * len(work["prompts"][0]),
        block_size=BLOCK,
        distributed_executor_backend="uni",
        enforce_eager=shutil.which("g++") is None,
        seed=0,
    )
    meter = StepMeter(turns)
    for prompts in work["prompts"]:
        requests = [TokensPrompt(prompt_token_ids=ids) for ids in prompts for _ in range(group)]
        engine.reset_prefix_cache()  # nothing of an earlier turn is free; within a group the prompt is shared
        meter.wait()
        told = [
            SamplingParams(temperature=1.0, max_tokens=length, ignore_eos=True, detokenize=False)
            for lengths in meter.turn["completion_tokens"]
            for length in lengths
        ]
        drawn = engine.generate(requests, told, use_tqdm=False)
        lengths = [len(request.outputs[0].token_ids) for request in drawn]
        meter.report(
            [len(request.prompt_token_ids) for request in drawn[::group]],
            [lengths[i : i + group] for i in range(0, len(lengths), group)],
        )


if __name__ == "__main__":
    main()
