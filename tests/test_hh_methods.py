"""Every method trains on real dialogues, is killed half-way, and ends bit for bit where it would have ended."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from grao.data import Encoder, load_examples
from grao.records import read_run

pytestmark = pytest.mark.slow

STEPS = 8

KL = 0.05
PPO: dict[str, Any] = {
    "objective": {"name": "ppo", "kl": KL},
    "rollout": {"max_new_tokens": 10, "num_generations": 2, "num_iterations": 2, "num_mini_batches": 2},
    "trainer": {"save_steps": 4},
}

METHODS: dict[str, dict[str, Any]] = {
    "sft": {"objective": {"name": "sft"}},
    "dpo": {"objective": {"name": "dpo"}},
    "grpo": {"objective": {"name": "grpo", "kl": KL}},
    "grao": {"objective": {"name": "grao"}},
    "grao-recommended": {"objective": {"name": "grao-recommended"}},
    "ppo": PPO,
    "ppo-separate": {**PPO, "critic": {"kind": "separate", "learning_rate": 3e-3}},
    "sft-grpo": {"objective": [{"name": "sft", "steps": 3}, {"name": "grpo", "kl": KL, "steps": 5}]},
    "sft-dpo": {"objective": [{"name": "sft", "steps": 3}, {"name": "dpo", "steps": 5}]},
}
"""What differs from the configuration below. PPO's collections serve four steps each."""

LOGGED: dict[str, tuple[str, list[int]]] = {
    "sft": ("logprobs/reference", [1, 2, 3, 4, 5, 6, 7, 8]),
    "dpo": ("rewards/margins", [1, 2, 3, 4, 5, 6, 7, 8]),
    "grpo": ("kl", [1, 2, 3, 4, 5, 6, 7, 8]),
    "grao": ("advantage/reference_mean", [1, 2, 3, 4, 5, 6, 7, 8]),
    "grao-recommended": ("advantage/reference_mean", [1, 2, 3, 4, 5, 6, 7, 8]),
    "ppo": ("value/explained_variance", [1, 2, 3, 4, 5, 6, 7, 8]),
    "ppo-separate": ("value/explained_variance", [1, 2, 3, 4, 5, 6, 7, 8]),
    "sft-grpo": ("reward", [4, 5, 6, 7, 8]),
    "sft-dpo": ("rewards/accuracies", [4, 5, 6, 7, 8]),
}
"""A metric that only this method's loss has, and the steps of it."""

FITS = {"format": "hh", "max_prompt_tokens": 128, "max_reference_tokens": 64, "overlong": "drop"}

REWARD = '''
def vowels(completions, turns, **columns):
    """Share of the characters that are vowels; a column of the rows has to arrive."""
    assert all(isinstance(n, int) and n >= 1 for n in turns)
    return [sum(c in "aeiou" for c in text) / max(len(text), 1) for text in completions]
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, shared_data: Path, write_bpe_model: Callable[..., Path]) -> Path:
    """A working directory with the dialogues, a random model, a BPE of the dialogues, and a reward function."""
    folder = tmp_path_factory.mktemp("hh")
    hh = shared_data / "hh-rlhf" / "harmless-base"
    if not hh.is_dir():
        pytest.skip("needs HH-RLHF's harmless-base in ../shared/data/hh-rlhf, beside the repository")
    (folder / "hh").symlink_to(hh)
    (folder / "hh_reward.py").write_text(REWARD, encoding="utf-8")
    rows = load_examples(str(hh / "train.jsonl.gz"), "hh", limit=80)
    texts = [f"{row.prompt}{row.reference}" for row in rows]
    write_bpe_model(folder / "base", texts, 768, max_position_embeddings=224, attention_dropout=0.1)
    return folder


def described(name: str, method: dict[str, Any]) -> dict[str, Any]:
    """Nineteen dialogues, four a step: the second pass starts in step 6, and DPO tabulates them; an evaluation midway.

    A chain says itself how many steps it makes.
    """
    return {
        "model": {"path": "base"},
        "data": {"source": "hh/train.jsonl.gz", "limit": 80, **FITS},
        "rewards": [{"path": "hh_reward:vowels"}],
        "rollout": {"max_new_tokens": 10, "num_generations": 3},
        "monitor": {"kl_every": 3, "completions_every": 0},
        "evaluation": {"data": {"source": "hh/test.jsonl.gz", "limit": 30, **FITS}, "every": 4, "at_start": False},
        **method,
        "trainer": {
            "output_dir": name,
            "learning_rate": 3e-3,
            "lr_scheduler_type": "linear",
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "save_steps": 2,
            "use_cpu": True,
            "seed": 7,
            **({} if isinstance(method["objective"], list) else {"max_steps": STEPS}),
            **method.get("trainer", {}),
        },
    }


def outcome(run: Path) -> dict[str, Any]:
    """SHA-256 of the policy's weights and, where there is one, of the critic's; metrics without times; completions."""
    record = read_run(run)
    files = [run / "model" / "model.safetensors", *(run / f"checkpoint-{STEPS}").glob("critic.safetensors")]
    return {
        **{file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        "metrics": [{k: v for k, v in m.items() if "time" not in k and "seconds" not in k} for m in record.metrics],
        "completions": [*record.completions()],
        "held out": [*record.completions(held_out=True)],
    }


def steps_logged(run: Path) -> int:
    """The last step that the run has written a line about; 0 before the first."""
    if not (run / "metrics.jsonl").exists():
        return 0
    return max((line["step"] for line in read_run(run).metrics), default=0)


def test_the_rows_have_several_turns(place: Path) -> None:
    """Oracle: the turns of the first 80 rows that are short enough: 3 3 1 2 2 2 2 3 2 2 1 1 1 1 1 1 3 1 4."""
    rows = load_examples(str(place / "hh" / "train.jsonl.gz"), "hh", limit=80)
    limits = {key: value for key, value in FITS.items() if key != "format"}
    kept, _ = Encoder(AutoTokenizer.from_pretrained(place / "base"), context_length=224, **limits).encode_all(rows)
    turns = [row.example.prompt.count("Human:") for row in kept]
    assert turns == [3, 3, 1, 2, 2, 2, 2, 3, 2, 2, 1, 1, 1, 1, 1, 1, 3, 1, 4]
    assert all(row.rejected_ids for row in kept)


@pytest.mark.parametrize("name", METHODS)
def test_each_method_resumes_to_the_same_bits(name: str, place: Path, start_grao: Callable[..., Any]) -> None:
    """Oracle: SHA-256 of policy and critic, every metric and every completion of the run that nobody killed.

    Killed when step 7 is logged (with PPO 6, in the middle of a collection), so that what came after the checkpoint of
    step 6 (4) is made again; a resumed process that started over instead would not say so.
    """
    config = described(name, METHODS[name])
    every = config["trainer"]["save_steps"]
    until = {2: 7, 4: 6}[every]
    whole, killed = place / f"{name}-whole", place / f"{name}-killed"
    for run in (whole, killed):
        config["trainer"]["output_dir"] = run.name
        (place / f"{run.name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    start_grao(place, "train", f"{whole.name}.yaml").finish()
    start_grao(place, "train", f"{killed.name}.yaml").kill_when(lambda: steps_logged(killed) >= until)
    said = start_grao(place, "train", f"{killed.name}.yaml", "--resume").finish()

    assert f"resuming from {killed.name}/checkpoint-{until - until % every}" in said
    expected = outcome(whole)
    metric, steps = LOGGED[name]
    assert read_run(whole).series(metric)[0] == steps
    assert ("critic.safetensors" in expected) == name.startswith("ppo")
    assert outcome(killed) == expected


def test_a_forked_process_trains_as_one_started_anew(place: Path, start_grao: Callable[..., Any]) -> None:
    """Oracle: the command as a user starts it, in an interpreter of its own."""
    config = described("", METHODS["grao"])
    for run in ("forked", "started"):
        config["trainer"]["output_dir"] = run
        (place / f"{run}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    start_grao(place, "train", "forked.yaml").finish()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "grao.cli", "train", "started.yaml"], cwd=place, env=environment, check=True)
    assert outcome(place / "forked") == outcome(place / "started")
