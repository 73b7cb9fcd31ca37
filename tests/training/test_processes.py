"""Two processes under DDP do what one process does with twice the micro-batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from grao.records import read_run

pytestmark = pytest.mark.slow

METRICS = ("loss", "grad_norm", "reward", "kl", "num_tokens", "rewards/length/mean", "completions/mean_length")


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path], rows: list[dict[str, str]]
) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    write_model(folder / "base")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def run(place: Path, name: str, processes: int, objective: Any, *flags: str, **trainer: Any) -> Path:
    config = {
        "model": {"path": "base"},
        "data": {"source": "rows.jsonl"},
        "objective": objective,
        "rewards": [{"path": "length", "kwargs": {"target": 0, "maximum": 6}}],
        "rollout": {"max_new_tokens": 6, "num_generations": 4},
        "monitor": {"kl_every": 1, "completions_every": 0},
        "trainer": {
            "output_dir": name,
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 4 // processes,
            "max_steps": 4,
            "save_steps": 2,
            "use_cpu": True,
            "seed": 7,
            **trainer,
        },
    }
    (place / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(several if processes > 1 else []), "-m", "grao.cli", "train", f"{name}.yaml", *flags]
    done = subprocess.run(
        command, cwd=place, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return place / name


def largest_difference(a: Path, b: Path) -> float:
    left, right = (load_file(run / "model" / "model.safetensors") for run in (a, b))
    return max(float((left[name] - right[name]).abs().max()) for name in left)


@pytest.mark.parametrize("name", ["grao", "grpo", "sft"])
def test_two_processes_are_one_with_twice_the_batch(name: str, place: Path) -> None:
    """Oracle: the run of one process. Same rows and draws; sums in another order, so round-off after four updates."""
    one, two = run(place, f"{name}-1", 1, {"name": name}), run(place, f"{name}-2", 2, {"name": name})
    for line, other in zip(read_run(one).metrics, read_run(two).metrics, strict=True):
        for metric in METRICS:
            if metric in line:
                assert other[metric] == pytest.approx(line[metric], rel=1e-3, abs=1e-5), metric
    assert largest_difference(one, two) < 1e-4


def test_ranks_of_a_critic_stay_together_and_resume(place: Path) -> None:
    """Oracle: the uninterrupted run of two processes, bit for bit; rank 0's weights and critic are what is compared.

    Were the critic's gradients not averaged, the ranks' critics, hence their policies' gradients, would drift apart,
    and the resumed run, where both take rank 0's, would differ.
    """
    settings = {"name": "ppo"}
    whole = run(place, "ppo-whole", 2, settings)
    first = run(place, "ppo", 2, settings, max_steps=2)
    assert (first / "checkpoint-2" / "critic.safetensors").is_file()
    run(place, "ppo", 2, settings, "--resume")
    assert largest_difference(whole, first) == 0.0
    critics = [load_file(run / "checkpoint-4" / "critic.safetensors") for run in (whole, first)]
    assert all(torch.equal(critics[0][name], critics[1][name]) for name in critics[0])
