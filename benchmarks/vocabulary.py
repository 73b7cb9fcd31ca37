"""Peak memory of a training micro-batch by vocabulary: how much of [tokens × vocabulary] ever exists.

    python benchmarks/vocabulary.py --threads 2

A small Qwen3 model with tied embeddings, 4 groups of 8 samples of 128 tokens, hence 4,096 scored tokens, float32, no
activation checkpointing. A fresh process for each vocabulary makes one optimiser step on a few tokens, after which
weights, gradients and AdamW's two moments all exist and stay; then one micro-batch as in training: the log-probs of
the groups, GRPO's loss and the backward pass. Its peak is what Linux counts: VmHWM, reset just before.

What a vocabulary costs beyond its embedding:

    growth = (peak − peak₀) − 4 (E − E₀)        E: bytes of the embedding; four of it: weight, gradient, two moments

over the smallest vocabulary's peak₀ and E₀. `all logits` is the same micro-batch scored by the plain logits of all
scored tokens at once and torch's cross-entropy, for comparison; at 152k it needs some 10 GB.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from limited_side import LimitedSide, Limits, free_memory
from speed_results import facts, print_facts
from step_meter import forget_peak, memory
from workload import SHAPES, random_model

RESULTS = Path(__file__).parent / "results" / "vocabulary.json"
VOCABULARIES = (8192, 32768, 151936)
WARM_UP_TOKENS = 2
"""A sample, of the step that makes gradients and moments."""


@dataclass(frozen=True)
class Case:
    """One micro-batch."""

    vocabulary: int
    hidden: int = 64
    all_logits: bool = False
    groups: int = 4
    samples: int = 8
    prompt_tokens: int = 32
    tokens: int = 128
    """Of each sample; all of them are scored."""

    @property
    def scored_tokens(self) -> int:
        return self.groups * self.samples * self.tokens

    @property
    def embedding_bytes(self) -> int:
        return 4 * self.vocabulary * self.hidden


@dataclass(frozen=True)
class Peak:
    """What the operating system counted, in bytes."""

    loaded: int
    """Resident before the micro-batch: libraries, weights, gradients, moments."""
    peak: int
    """Resident at most while it ran."""


def measure(case: Case, *, threads: int, seconds: float = 300) -> Peak:
    """The case's peak, in a process of its own.

    Raises:
        RuntimeError: the process failed, or this system does not count peaks; holds what it died of.
    """
    with tempfile.TemporaryDirectory() as folder:
        side = LimitedSide(run_case, case, Limits(seconds, free_memory(), threads), Path(folder) / "log")
        step = side.turn(None)
        side.close()
    if step is None:
        assert side.failure is not None
        raise RuntimeError(f"{case} failed of {side.failure.kind}: {side.failure.said}")
    if step["peak"] is None:
        raise RuntimeError("peaks are read from /proc/self/status, which only Linux has")
    return Peak(**step)


def growth(case: Case, peak: Peak, smallest: Case, smallest_peak: Peak) -> int:
    """Bytes that the vocabulary costs beyond weight, gradient and two moments of its embedding; the equation above."""
    return peak.peak - smallest_peak.peak - 4 * (case.embedding_bytes - smallest.embedding_bytes)


def run_case(turns: Any, case: Case) -> None:
    """In the new process."""
    from grao.policy import install_scoring

    shape = replace(SHAPES["tiny"], hidden=case.hidden, intermediate=2 * case.hidden, vocabulary=case.vocabulary)
    model = random_model(shape, seed=0).train()
    install_scoring(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    backward(model, replace(case, tokens=WARM_UP_TOKENS))
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)  # gradients stay, as between the micro-batches of one step
    gc.collect()
    turns.recv()
    forget_peak()
    loaded = memory("VmRSS")
    backward(model, case)
    turns.send({"loaded": loaded, "peak": memory("VmHWM")})


def backward(model: Any, case: Case) -> None:
    """One micro-batch of GRPO from the groups to the gradients, as `GroupTrainer.compute_loss` has it."""
    from grao.groups import PolicyOutput
    from grao.objectives import GRPO, Progress
    from grao.policy import group_logprobs

    objective = GRPO()
    batch = objective.with_advantages(groups_of(case))
    if case.all_logits:
        logprobs_PMT = logprobs_of_all_logits(model, batch)
        output = PolicyOutput(logprobs_PMT, torch.zeros_like(logprobs_PMT))
    else:
        output = group_logprobs(model, batch)
    objective.loss(batch, output, objective.denominator(batch), Progress(0, 1)).loss.backward()


def logprobs_of_all_logits(model: Any, batch: Any) -> torch.Tensor:
    """−cross-entropy of the logits of every scored token at once; all members of a case are equally long."""
    P, M, T = batch.ids_PMT.shape
    ids_NL = torch.cat([batch.prompt_ids_PS[:, None].expand(P, M, -1), batch.ids_PMT], -1).flatten(0, 1)
    logits_NTV = model(input_ids=ids_NL, use_cache=False, logits_to_keep=T + 1).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(logits_NTV.flatten(0, 1), batch.ids_PMT.flatten(), reduction="none")
    return -losses.view(P, M, T)


def groups_of(case: Case) -> Any:
    """Random tokens; every sample has a reward of its own, so that each has an advantage."""
    from grao.groups import Group, Member, collate

    draw = torch.Generator().manual_seed(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(2, case.vocabulary, (n,), generator=draw).tolist())

    return collate(
        [
            Group(
                row=row,
                prompt="",
                prompt_ids=ids(case.prompt_tokens),
                samples=tuple(
                    Member(ids(case.tokens), text="", finish="length", reward=float(i)) for i in range(case.samples)
                ),
            )
            for row in range(case.groups)
        ],
        pad_token_id=0,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=VOCABULARIES, help="the smallest one first")
    parser.add_argument("--hidden", type=int, nargs="+", default=(128, 512), help="hidden sizes of the model")
    parser.add_argument("--tokens", type=int, default=Case.tokens, help="of each of the 32 samples")
    parser.add_argument("--all-logits", action="store_true", help="measure that too: some 10 GB at the defaults")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    found = facts(args.threads)
    print_facts(found)
    measured = []
    for all_logits in (False, True)[: 1 + args.all_logits]:
        for hidden in args.hidden:
            cases = [Case(v, hidden, all_logits, tokens=args.tokens) for v in args.vocabularies]
            measured += show(cases, args.threads)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({**found, "measured_cases": measured}, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {args.output}")


def show(cases: Sequence[Case], threads: int) -> list[dict[str, Any]]:
    """Measure the cases of one hidden size, print a table of them, and return its rows."""
    first = cases[0]
    scored = "all logits at once" if first.all_logits else "group_logprobs"
    print(f"\n{scored}: {first.scored_tokens} scored tokens, hidden size {first.hidden}; MiB")
    print(f"  {'vocabulary':>10s}{'loaded':>10s}{'peak':>10s}{'growth beyond the embedding':>30s}")
    peaks: list[Peak] = []
    rows = []
    for case in cases:
        peak = measure(case, threads=threads)
        peaks.append(peak)
        grown = growth(case, peak, first, peaks[0])
        loaded_mib, peak_mib, grown_mib = (n / 2**20 for n in (peak.loaded, peak.peak, grown))
        print(f"  {case.vocabulary:10d}{loaded_mib:10.0f}{peak_mib:10.0f}{grown_mib:30.0f}", flush=True)
        rows.append({**asdict(case), **asdict(peak), "growth": grown})
    return rows


if __name__ == "__main__":
    main()
