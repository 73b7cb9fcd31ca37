"""A tiny policy, a word-level tokenizer, rows, rewards, and runs of them in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from grao.data import EncodedExample, Encoder, Example
from grao.groups import GroupBatch, Member
from grao.objectives import Objective
from grao.policy import install_scoring
from grao.rewards import RewardSet
from grao.rollout import SampleRequest, SamplingParams
from grao.training import GroupTrainer, Monitor, Rollout
from grao.training.stages import Stage, StageSequence

WORDS = [*"abcdefghijkl"]

SMALL: dict[str, Any] = {
    "vocab_size": 16,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "initializer_range": 0.1,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}

REWARDS = '''
"""Rewards for runs that are started from a configuration."""


def vowels(completions, **columns):
    """Share of the words that are vowels."""
    return [sum(w in "aei" for w in c.split()) / max(len(c.split()), 1) for c in completions]


def short(completions, **columns):
    return [v[:-1] for v in [vowels(completions)]][0]


def nan_on_row(completions, prompts, **columns):
    return [float("nan") if p == "c d" else 1.0 for p in prompts]


def inf_everywhere(completions, **columns):
    return [float("inf") for _ in completions]


def raises(completions, prompts, **columns):
    if any(p == "e f" for p in prompts):
        raise KeyError("no such answer")
    return [1.0 for _ in completions]


def needs_level(completions, level, **columns):
    return [1.0 for _ in completions]
'''


def _tokenizer(words: Sequence[str] = WORDS, **special: Any) -> PreTrainedTokenizerFast:
    tokens = ["<pad>", "<eos>", "<unk>", *words]
    level = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="<unk>"))
    level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"} | special
    return PreTrainedTokenizerFast(tokenizer_object=level, **{k: v for k, v in names.items() if v is not None})


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """One token a word; ids 0 <pad>, 1 <eos>, 2 <unk>, then the words."""
    return _tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return _tokenizer()


def _model(family: str = "llama", seed: int = 0, **changes: Any) -> PreTrainedModel:
    configs = {
        "llama": lambda: LlamaConfig(**{**SMALL, **changes}),
        "qwen3_moe": lambda: Qwen3MoeConfig(
            **{
                **SMALL,
                "head_dim": 8,
                "num_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 24,
                "output_router_logits": True,
                "router_aux_loss_coef": 0.5,
                **changes,
            }
        ),
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(configs[family](), experts_implementation="eager")


@pytest.fixture(scope="session")
def make_model() -> Callable[..., PreTrainedModel]:
    """A random model: about 17,000 weights, the same for the same seed; `changes` go to its configuration."""
    return _model


@pytest.fixture(scope="session")
def rows() -> list[dict[str, str]]:
    """Twelve rows of unlike lengths; the reference starts with a vowel more often than not."""
    prompts = ["a b", "c d", "e f", "g", "h i j", "k", "l a b", "c", "d e", "f g h i", "j k", "l"]
    references = ["a e", "i", "e a i", "b a", "a", "c d e", "a a", "i e", "e", "a i e", "b", "e e"]
    return [{"prompt": p, "reference": r} for p, r in zip(prompts, references, strict=True)]


@pytest.fixture(scope="session")
def encoded(rows: list[dict[str, str]], tokenizer: PreTrainedTokenizerFast) -> list[EncodedExample]:
    encoder = Encoder(tokenizer, context_length=32)
    return encoder.encode_all([Example(i, row["prompt"], row["reference"]) for i, row in enumerate(rows)])[0]


def vowels(completions: Sequence[str], **columns: Any) -> list[float]:
    """Share of the words that are vowels: what the policy can learn within a few steps."""
    return [sum(w in "aei" for w in c.split()) / max(len(c.split()), 1) for c in completions]


@pytest.fixture(scope="session")
def vowel_rewards() -> RewardSet:
    return RewardSet([vowels])


class FixedEngine:
    """Answers every request with the members it was given, by the prompt's ids; remembers what it was asked."""

    exact = True

    def __init__(self, answers: dict[tuple[int, ...], Sequence[Member]]) -> None:
        self._answers = answers
        self.prompts: list[list[tuple[int, ...]]] = []
        self.seeds: list[tuple[int, ...]] = []
        self.versions: list[str] = []

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[tuple[Member, ...]]:
        self.prompts.append([request.prompt_ids for request in requests])
        self.seeds += [request.seeds for request in requests]
        return [tuple(self._answers[request.prompt_ids][: len(request.seeds)]) for request in requests]

    def sync(self, model: Any, version: str) -> None:
        self.versions.append(version)

    def open(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture(scope="session")
def fixed_engine() -> type[FixedEngine]:
    return FixedEngine


@pytest.fixture(scope="session")
def answers(encoded: list[EncodedExample]) -> dict[tuple[int, ...], list[Member]]:
    """Three answers to every prompt, of unlike lengths and vowels: for a `FixedEngine`."""

    def member(place: int) -> Member:
        ids = [3 + (5 * place + 7 * t + place * t) % len(WORDS) for t in range(1 + place % 4)]
        return Member((*ids, 1), " ".join(WORDS[i - 3] for i in ids), "stop", (0.0,) * (len(ids) + 1))

    return {e.prompt_ids: [member(3 * e.example.row + j) for j in range(3)] for e in encoded}


@pytest.fixture(scope="session")
def preferences(rows: list[dict[str, str]], tokenizer: PreTrainedTokenizerFast) -> list[EncodedExample]:
    """The rows with a rejected answer each: another row's reference."""
    encoder = Encoder(tokenizer, context_length=32)
    rejected = [rows[(i + 5) % len(rows)]["reference"] for i in range(len(rows))]
    return encoder.encode_all(
        [Example(i, row["prompt"], row["reference"], rejected[i]) for i, row in enumerate(rows)]
    )[0]


@pytest.fixture
def make_trainer(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    encoded: list[EncodedExample],
    vowel_rewards: RewardSet,
) -> Callable[..., GroupTrainer]:
    """A trainer of the tiny policy: 2 samples a prompt, 4 tokens each, 2 prompts a step, unless told otherwise."""

    def make(
        objective: Objective | list[Stage], model: Any = None, *, prepared: bool = False, **given: Any
    ) -> GroupTrainer:
        model = _model() if model is None else model
        if not prepared:
            install_scoring(model)
        passed_on = ("engine", "eval_examples", "record", "callbacks", "critic", "progress")
        own = ("rows", "rewards", "rollout", "monitor", *passed_on)
        chain = isinstance(objective, list)
        draws = (StageSequence(objective) if isinstance(objective, list) else objective).needs.samples
        settings = {
            "output_dir": str(tmp_path / "run"),
            "learning_rate": 1e-2,
            "lr_scheduler_type": "constant",
            "per_device_train_batch_size": 2,
            "max_steps": -1 if chain else 4,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "seed": 7,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            **{name: value for name, value in given.items() if name not in own},
        }
        trainer = GroupTrainer(
            model,
            objective,
            tokenizer,
            given.get("rows", encoded),
            TrainingArguments(**settings),
            rewards=given.get("rewards", vowel_rewards) if draws else given.get("rewards"),
            rollout=given.get("rollout", Rollout(max_new_tokens=4, num_generations=2)),
            monitor=given.get("monitor", Monitor(kl_every=0)),
            **{name: given.get(name) for name in passed_on},
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    return make


def assert_same_weights(left: Any, right: Any, atol: float = 0.0) -> None:
    """Every weight of two models, bit for bit unless a tolerance is given; named where it differs."""
    ours, theirs = left.state_dict(), right.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=atol, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


@pytest.fixture(scope="session")
def same_weights() -> Callable[..., None]:
    return assert_same_weights


def remember_batches(trainer: GroupTrainer) -> list[GroupBatch]:
    """Lets a trainer fill a list with its micro-batches, in order."""
    seen: list[GroupBatch] = []
    plain = trainer.compute_loss

    def compute_loss(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        seen.append(inputs["groups"])
        return plain(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute_loss  # type: ignore[method-assign]
    return seen


@pytest.fixture(scope="session")
def micro_batches() -> Callable[[GroupTrainer], list[GroupBatch]]:
    return remember_batches


@pytest.fixture(scope="session")
def write_model() -> Callable[..., Path]:
    """Saves a tiny model with its tokenizer as an ordinary transformers directory."""

    def write(folder: Path, tokenizer: PreTrainedTokenizerFast | None = None, **changes: Any) -> Path:
        _model(**changes).save_pretrained(folder)
        (tokenizer or _tokenizer()).save_pretrained(folder)
        return folder

    return write


@pytest.fixture
def workplace(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[dict[str, str]],
    write_model: Callable[..., Path],
) -> Path:
    """A working directory with a model, data and a module of rewards, as a user has it."""
    write_model(tmp_path / "base")
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "tiny_rewards.py").write_text(REWARDS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def config(workplace: Path) -> dict[str, Any]:
    """A small run as a YAML mapping; a test changes what it is about."""
    return {
        "model": {"path": "base"},
        "data": {"source": "rows.jsonl"},
        "objective": {"name": "grao"},
        "rewards": [{"path": "tiny_rewards:vowels"}],
        "rollout": {"max_new_tokens": 4, "num_generations": 2},
        "monitor": {"kl_every": 0, "completions_every": 0},
        "trainer": {
            "output_dir": "run",
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 2,
            "max_steps": 3,
            "save_steps": 2,
            "use_cpu": True,
            "seed": 7,
        },
    }


@pytest.fixture
def write_config(workplace: Path) -> Callable[..., Path]:
    """Writes a mapping as YAML."""

    def write(mapping: dict[str, Any], name: str = "run.yaml") -> Path:
        path = workplace / name
        path.write_text(yaml.safe_dump(mapping), encoding="utf-8")
        return path

    return write
