"""Train a reward model on preference rows with TRL, and measure it on rows that it has not seen.

    pip install "grao[reward]"
    python recipes/train_reward_model.py recipes/hh-reward-model.yaml
    python recipes/train_reward_model.py recipes/hh-reward-model.yaml --trainer.learning_rate 3e-5

A causal model gets a head of one number r(x, y), and TRL's RewardTrainer minimises −log σ(r(x, chosen) −
r(x, rejected)) over the rows (Bradley and Terry 1952; Ouyang et al. 2022, Eq. 1). The result is a transformers
directory, which every `rewards:` section takes as `path`.

Training uses the token ids that scoring reads (`RewardModel.token_ids`), so chat template, special tokens and cuts are
the same in both.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, set_seed

from grao.configuration import apply_overrides, build, load_yaml
from grao.data import DataSource, Example
from grao.evaluation import Estimate, wilson
from grao.rewards.model import RewardModel

try:
    from trl import RewardConfig, RewardTrainer
except ImportError as missing:
    raise SystemExit(f'TRL is missing ({missing}). Install it: pip install "grao[reward]"') from missing

RECORD = "reward_model.json"
"""Written beside the weights: accuracy and how the model was made. A directory that contains it may be replaced."""


@dataclass(frozen=True)
class RewardModelBase:
    """The model that training starts from."""

    path: str
    """A causal model, or a classifier of one label: directory or hub id."""
    max_length: int = 512
    """Tokens of prompt and answer together; longer ones lose the beginning of the prompt, also in scoring."""
    trust_remote_code: bool = False


@dataclass(frozen=True)
class RewardModelConfig:
    """The configuration of a reward model."""

    output: str
    """Directory of the model: new, empty, or with a reward model made by this script."""
    model: RewardModelBase
    data: DataSource
    """Training rows: prompt, chosen (the reference) and rejected."""
    held_out: DataSource
    """Rows to evaluate on, once, at the end."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Fields of trl.RewardConfig, which extends transformers' TrainingArguments."""
    seed: int = 0


@dataclass(frozen=True)
class Pairs:
    """Preference rows; one entry per row in each list."""

    prompts: list[Any]
    chosen: list[Any]
    rejected: list[Any]

    @classmethod
    def of(cls, examples: Sequence[Example], source: str) -> Pairs:
        """Return the rows as pairs. Raises ValueError if a row lacks one of the two answers."""
        for name in ("reference", "rejected"):
            lacking = [example.row for example in examples if getattr(example, name) is None]
            if lacking:
                raise ValueError(
                    f"{source}: {len(lacking)} of {len(examples)} rows have no "
                    f"{'chosen' if name == 'reference' else name} answer (first: row {lacking[0]}). "
                    "Give rows with the columns prompt, chosen and rejected."
                )
        return cls(
            prompts=[example.prompt for example in examples],
            chosen=[_completion(example, example.reference) for example in examples],
            rejected=[_completion(example, example.rejected) for example in examples],
        )

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class PairAccuracy:
    """How often the chosen answer gets the higher reward; a tie counts as wrong."""

    accuracy: Estimate
    right: int
    ties: int
    mean_margin: float
    """Mean of r(chosen) − r(rejected)."""
    reward_std: float
    """Over all answers. Divide `weight` by it for a reward with standard deviation 1."""

    @classmethod
    def of(cls, chosen: Sequence[float], rejected: Sequence[float]) -> PairAccuracy:
        """Compare the rewards of pairs, in the same order."""
        margins = [c - r for c, r in zip(chosen, rejected, strict=True)]
        right, ties = sum(margin > 0 for margin in margins), sum(margin == 0 for margin in margins)
        return cls(wilson(right, len(margins)), right, ties, fmean(margins), pstdev([*chosen, *rejected]))

    def __str__(self) -> str:
        return f"{self.accuracy}; 50 % is {'inside' if self.accuracy.low <= 0.5 <= self.accuracy.high else 'outside'}"


def main(argv: Sequence[str]) -> int:
    """Run with `CONFIG [--dotted.key value ...]`; return the exit status."""
    if not argv or argv[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        measured = train_reward_model(build(RewardModelConfig, apply_overrides(load_yaml(argv[0]), argv[1:])))
    except (ValueError, OSError) as error:
        print(f"train_reward_model: {error}", file=sys.stderr)
        return 1
    print(f"pair accuracy on held-out rows: {measured}")
    return 0


def train_reward_model(config: RewardModelConfig) -> PairAccuracy:
    """Train, save, and measure the saved model.

    Raises:
        ValueError: Rows without a pair, unknown settings of TRL, or a base model with more than one label.
        FileExistsError: The directory contains something other than a reward model made by this script.
    """
    directory = Path(config.output)
    _refuse_other_content(directory)
    examples, held_out = config.data.load(), config.held_out.load()
    pairs, unseen = Pairs.of(examples, examples.source), Pairs.of(held_out, held_out.source)
    reader = new_reward_model(config)

    dataset = tokenised(reader, pairs)
    started = time.perf_counter()
    trainer = RewardTrainer(
        model=reader.model,
        args=trl_arguments(config),
        train_dataset=dataset,
        processing_class=reader.tokenizer,
    )
    trainer.train()
    seconds = time.perf_counter() - started

    save(reader, directory)
    measured = measure(RewardModel.from_pretrained(directory), unseen)
    record = {
        "held_out": {"source": held_out.source, "pairs": len(unseen), **asdict(measured)},
        "held_out_prompts_in_training": sum(prompt in pairs.prompts for prompt in unseen.prompts),
        "training": {
            "source": examples.source,
            "pairs": len(dataset),
            "rows_dropped": examples.num_dropped,
            "pairs_alike": len(pairs) - len(dataset),
            "answers_cut": reader.num_truncated,
            "steps": trainer.state.global_step,
            "seconds": round(seconds, 1),
        },
        "config": asdict(config),
    }
    (directory / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return measured


def tokenised(reader: RewardModel, pairs: Pairs) -> Dataset:
    """Tokenise the pairs for TRL's trainer, without those whose two answers are equal (for example after a cut)."""
    chosen = reader.token_ids(pairs.prompts, pairs.chosen)
    rejected = reader.token_ids(pairs.prompts, pairs.rejected)
    rows = [
        {"chosen_ids": better, "rejected_ids": worse}
        for better, worse in zip(chosen, rejected, strict=True)
        if better != worse
    ]
    if not rows:
        raise ValueError(f"the two answers are equal in all {len(pairs)} rows. Give rows whose answers differ.")
    return Dataset.from_list(rows)


def measure(reward: RewardModel, pairs: Pairs) -> PairAccuracy:
    """Score both answers of every pair."""
    return PairAccuracy.of(reward(pairs.prompts, pairs.chosen), reward(pairs.prompts, pairs.rejected))


def _completion(example: Example, answer: str | None) -> Any:
    """Return an answer in the shape of its prompt."""
    return answer if isinstance(example.prompt, str) else [{"role": "assistant", "content": answer}]


def new_reward_model(config: RewardModelConfig) -> RewardModel:
    """Return the base model with a new head, initialised from the run's seed."""
    set_seed(config.seed)
    remote: Mapping[str, bool] = {"trust_remote_code": config.model.trust_remote_code}
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        config.model.path, num_labels=1, dtype="float32", use_safetensors=True, **remote
    )
    tokenizer = AutoTokenizer.from_pretrained(config.model.path, **remote)
    tokenizer.model_max_length = config.model.max_length  # saved with it, so that scoring cuts as training does
    return RewardModel(model, tokenizer)


def trl_arguments(config: RewardModelConfig) -> RewardConfig:
    """Return TRL's settings. Lengths are cut here (TRL would drop longer rows). Defaults: float32, no checkpoints."""
    refused = {"output_dir": "output", "seed": "seed", "max_length": "model.max_length"}
    for key, instead in refused.items():
        if key in config.trainer:
            raise ValueError(f"trainer.{key} cannot be set here. Set {instead}.")
    plain = {"bf16": False, "gradient_checkpointing": False, "save_strategy": "no", "report_to": "none"}
    try:
        return RewardConfig(
            output_dir=str(Path(config.output) / "training"),
            seed=config.seed,
            max_length=None,
            **{**plain, **config.trainer},
        )
    except TypeError as error:
        raise ValueError(f"trainer: {error}. Use the fields of trl.RewardConfig.") from error


def _refuse_other_content(directory: Path) -> None:
    if directory.is_dir() and any(directory.iterdir()) and not (directory / RECORD).exists():
        raise FileExistsError(
            f"{directory} is not empty and has no {RECORD}, so this script did not make it. Name another `output`, or "
            "empty this one."
        )


def save(reader: RewardModel, directory: Path) -> None:
    """Save model and tokenizer."""
    reader.model.save_pretrained(directory)
    reader.tokenizer.save_pretrained(directory)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
