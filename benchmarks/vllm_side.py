"""vLLM's side of benchmarks/rollout.py. Runs under the Python of an environment of its own (`make bench-vllm`).

    VENV/bin/python benchmarks/vllm_side.py WORK PIPE

WORK is a JSON file that `rollout.run_vllm` writes; PIPE is the number of an open pipe, over which turns come and
reports go. The engine is set up as it was found to be fastest on a CPU:

- it runs in this process (`VLLM_ENABLE_V1_MULTIPROCESSING=0`, executor `uni`). With workers of its own it was slower,
  and one of them spun while it waited, which takes a core from the side that has the turn;
- compiled by inductor, vLLM's default, where there is a C++ compiler, and eager elsewhere;
- asked for token ids alone: neither text nor log-probs, and no seed, which would cost a generator a completion.
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
"""Tokens of a block of the cache. A group shares whole blocks of its prompt: of vLLM's 128 short prompts have none."""


def main() -> None:
    work = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    turns = Connection(int(sys.argv[2]))
    os.environ |= ENVIRONMENT
    from vllm import LLM, SamplingParams, TokensPrompt

    group, limit = work["group"], work["max_new_tokens"]
    engine: Any = LLM(
        model=work["model"],
        dtype=work["dtype"],
        max_model_len=work["max_prompt_tokens"] + limit,
        max_num_seqs=group * len(work["prompts"][0]),
        block_size=BLOCK,
        distributed_executor_backend="uni",
        enforce_eager=shutil.which("g++") is None,
        seed=0,
    )
    meter = StepMeter(turns)
    for prompts in work["prompts"]:
        requests = [TokensPrompt(prompt_token_ids=ids) for ids in prompts]
        engine.reset_prefix_cache()  # nothing of an earlier turn is free; within a group the prompt is shared
        meter.wait()
        if work["ends"]:  # n of a request end by one limit: so each completion is a request, as vLLM itself makes of n
            drawn = engine.generate(
                [request for request in requests for _ in range(group)],
                [_params(SamplingParams, n, 1) for lengths in meter.turn["completion_tokens"] for n in lengths],
                use_tqdm=False,
            )
        else:
            drawn = engine.generate(requests, _params(SamplingParams, limit, group), use_tqdm=False)
        lengths = [len(completion.token_ids) for request in drawn for completion in request.outputs]
        meter.report(
            [len(request.prompt_token_ids) for request in drawn[:: len(drawn) // len(prompts)]],
            [lengths[i : i + group] for i in range(0, len(lengths), group)],
        )


def _params(sampling_params: Any, length: int, n: int) -> Any:
    return sampling_params(n=n, temperature=1.0, max_tokens=length, ignore_eos=True, detokenize=False)


if __name__ == "__main__":
    main()
