"""The collapse of GRAO to one weight a member, on whole runs: GRAO(β, λ) = (1 + λ) GRAO((β + λ/G)/(1 + λ), 0)."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from grao.configuration import build
from grao.training import RunConfig, train
from research.seeded_task import SeededTask, TaskConfig

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("float64_throughout")]

G, BETA, LAM, RATE, STEPS = 8, 0.5, 0.6, 1e-3, 4
EQUIVALENT = (BETA + LAM / G) / (1 + LAM)


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> SeededTask:
    made = SeededTask(tmp_path_factory.mktemp("world"), TaskConfig(eps=0.3, n_train=64, n_validation=4, n_test=4), 0)
    made.prepare()
    # Rounding is all that tells the two apart, and Adam makes full steps of gradients that are nothing but rounding.
    AutoModelForCausalLM.from_pretrained(made.base, dtype=torch.float64).save_pretrained(made.base)
    return made


def weights(seeded: SeededTask, folder: Path, beta: float, lam: float, **trainer: Any) -> dict[str, torch.Tensor]:
    """After a few steps of 4 prompts × 8 samples, without clipping."""
    mapping = {
        "model": {"path": str(seeded.base), "dtype": "auto"},
        "data": {"source": str(seeded.rows("train"))},
        "objective": {"name": "grao", "beta": beta, "lam": lam},
        "rewards": [{"path": "grao.demo.dialogue:judge"}],
        "rollout": {"num_generations": G, "max_new_tokens": 16},
        "monitor": {"kl_every": 0, "completions_every": 0},
        "trainer": {
            "output_dir": str(folder),
            "per_device_train_batch_size": 4,
            "max_steps": STEPS,
            "max_grad_norm": 1e9,
            "save_strategy": "no",
            **trainer,
        },
    }
    run = train(build(RunConfig, mapping), console=Console(file=StringIO()))
    return load_file(run.model / "model.safetensors")


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize(
    ("optimizer", "rate", "tolerance"),
    [
        # Plain gradient steps are equal once the rate makes up for 1 + λ; measured: 3e-17.
        ({"optim": "sgd"}, 1 + LAM, 1e-14),
        # Adam divides the scale out, but for its epsilon; measured with this one: 1e-10. With the usual 1e-8 gradients
        # of that size make other steps (1e-4 apart after one update), and soon a sampled token is another one.
        ({"optim": "adamw_torch", "adam_epsilon": 1e-16}, 1.0, 1e-8),
    ],
)
def test_equivalents_have_the_same_weights(
    seeded: SeededTask, tmp_path: Path, optimizer: dict[str, Any], rate: float, tolerance: float
) -> None:
    """Oracle: the identity, on the weights after steps of sampling, scoring and updating; and a setting that is no
    equivalent, GRAO(β, 0), which ends elsewhere.
    """
    step = {**optimizer, "weight_decay": 0.0}
    full = weights(seeded, tmp_path / "full", BETA, LAM, learning_rate=RATE, **step)
    collapsed = weights(seeded, tmp_path / "collapsed", EQUIVALENT, 0.0, learning_rate=rate * RATE, **step)
    other = weights(seeded, tmp_path / "other", BETA, 0.0, learning_rate=rate * RATE, **step)
    assert largest_difference(full, collapsed) < tolerance
    assert largest_difference(full, other) > 1e-5
