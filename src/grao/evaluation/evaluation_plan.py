"""Everything that can be wrong with an evaluation, found before any weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from grao.data import EncodedExample, Encoder, Example, ensure_pad_token, validate_examples
from grao.evaluation.config import VERIFIABLE, EvaluateConfig, EvaluatedModel
from grao.policy import load_tokenizer, read_context_length
from grao.rewards import RewardSet
from grao.rollout import SamplingParams
from grao.spelling import did_you_mean


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A model that has been looked at, but not loaded."""

    config: EvaluatedModel
    """With the path of the model itself, where a run directory was named."""
    tokenizer: PreTrainedTokenizerBase
    rows: Mapping[int, EncodedExample]
    """The rows that it can read, by their place among the examples."""
    params: SamplingParams
    """How it answers: with the ids that end an answer of this tokenizer."""
    encoding: str
    """What its tokenizer and chat template did to the rows, in words."""
    no_kl: str | None = None
    """Why its KL to the base cannot be measured; None where it can."""

    @property
    def name(self) -> str:
        """Of the model."""
        return self.config.name


@dataclass(frozen=True)
class EvaluationPlan:
    """An evaluation that can run."""

    config: EvaluateConfig
    rewards: RewardSet
    examples: Sequence[Example]
    models: Sequence[PlannedModel]
    verifiable: Sequence[str]
    unread: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """By model, the rows that are too long for it: they are left out for all models."""

    @property
    def base(self) -> PlannedModel:
        """The model that the others are held against."""
        return next(model for model in self.models if model.name == self.config.base_name)

    @property
    def base_first(self) -> list[PlannedModel]:
        """The models in the order of the tables."""
        return [self.base, *(model for model in self.models if model is not self.base)]

    @property
    def compared(self) -> set[int]:
        """The rows (`Example.row`) that every model can read."""
        unread = {row for rows in self.unread.values() for row in rows}
        return {example.row for example in self.examples} - unread

    @property
    def parts(self) -> list[range]:
        """Places among the examples that are answered, scored and stored together."""
        starts = range(0, len(self.examples), self.config.batch)
        return [range(start, min(start + self.config.batch, len(self.examples))) for start in starts]


def plan_evaluation(config: EvaluateConfig) -> EvaluationPlan:
    """Look at everything: rewards, rows, tokenizers, lengths.

    Raises:
        ValueError, FileNotFoundError: what is missing or does not fit, and the remedy.
    """
    rewards = RewardSet([reward.load() for reward in config.rewards])
    verifiable = _verifiable(config, rewards)
    examples = config.data.load().examples
    validate_examples(examples)
    _check_category(config.category_column, examples)
    models = [_look_at(replace(model, path=model_path(model)), config, examples) for model in config.models]
    unread = {
        model.name: rows
        for model in models
        if (rows := [example.row for place, example in enumerate(examples) if place not in model.rows])
    }
    plan = EvaluationPlan(config, rewards, examples, models, verifiable, unread)
    if not plan.compared:
        can_read = [f"{name} {len(examples) - len(rows)} of {len(examples)}" for name, rows in unread.items()]
        raise ValueError(f"no row is short enough for every model: {', '.join(can_read)} can be read")
    rewards.check([row.as_group() for row in plan.base.rows.values()])
    return replace(plan, models=[replace(model, no_kl=_no_kl(model, plan)) for model in models])


def model_path(model: EvaluatedModel) -> str:
    """Where the model itself is: of a run directory, the model that was trained in it.

    Raises:
        ValueError: the run has not left one yet.
    """
    run = Path(model.path)
    if not (run / "config.yaml").is_file() or (run / "config.json").exists():
        return model.path
    if not (run / "model").is_dir():
        checkpoints = sorted(path.name for path in run.glob("checkpoint-*"))
        remedy = f", or name a checkpoint: {run / checkpoints[-1]}" if checkpoints else ""
        raise ValueError(
            f"model {model.name!r}: {run} is a run that is not finished, so there is no {run / 'model'}; resume it"
            + remedy
        )
    return str(run / "model")


def _verifiable(config: EvaluateConfig, rewards: RewardSet) -> list[str]:
    """The names of the rewards that say right or wrong."""
    names = [function.name for function in rewards.functions]
    if config.verifiable is None:
        pairs = zip(config.rewards, names, strict=True)
        return [name for reward, name in pairs if reward.path in VERIFIABLE]
    for name in config.verifiable:
        if name not in names:
            raise ValueError(
                f"verifiable names {name!r}{did_you_mean(name, names)}; the rewards are {', '.join(names)}"
            )
    return config.verifiable


def _check_category(column: str | None, examples: Sequence[Example]) -> None:
    """A column that the user names must be there; the default one may be missing."""
    found = sorted({name for example in examples for name in example.columns})
    if column is not None and column not in found and column != EvaluateConfig.category_column:
        raise ValueError(
            f"category_column is {column!r}, which is no column of the data{did_you_mean(column, found)}; it has "
            f"{', '.join(found) or 'none beside the prompt and the answers'}"
        )


def _look_at(model: EvaluatedModel, config: EvaluateConfig, examples: Sequence[Example]) -> PlannedModel:
    """Tokenizer, lengths, and the rows as this model reads them."""
    context = None
    try:
        tokenizer, context = load_tokenizer(model), read_context_length(model)
        ensure_pad_token(tokenizer)
        encoder = _encoder(config, tokenizer, context)
        rows, report = encoder.encode_all(examples)
    except ValueError as error:
        raise ValueError(f"model {model.name!r}: {error}{_room(config, context)}") from error
    places = {example.row: place for place, example in enumerate(examples)}
    params = replace(config.sampling, stop_token_ids=(*config.sampling.stop_token_ids, *encoder.stop_ids))
    return PlannedModel(
        config=model,
        tokenizer=tokenizer,
        rows={places[row.example.row]: row for row in rows},
        params=params,
        encoding=str(report),
    )


def _encoder(config: EvaluateConfig, tokenizer: PreTrainedTokenizerBase, context: int | None) -> Encoder:
    """Leaves room for the answer in the model's context. A reference is not read by it, so may be of any length."""
    data, new = config.data, config.sampling.max_new_tokens
    limit = data.max_prompt_tokens
    if context is not None:
        if context <= new:
            raise ValueError(f"sampling.max_new_tokens={new} leaves no room for a prompt; lower it")
        limit = context - new if limit is None else min(limit, context - new)
    return replace(data.encoder(tokenizer, None), max_prompt_tokens=limit)


def _room(config: EvaluateConfig, context: int | None) -> str:
    """Where a limit on prompts may come from that no `max_prompt_tokens` was written for."""
    new = config.sampling.max_new_tokens
    if context is None:
        return ""
    return f" (its context of {context} tokens less sampling.max_new_tokens={new} is left for a prompt)"


def _no_kl(model: PlannedModel, plan: EvaluationPlan) -> str | None:
    """Why the KL of this model to the base would compare what is no distribution over the same tokens."""
    base = plan.base
    if model.name == base.name:
        return "it is the base"
    if not plan.config.kl:
        return "not asked for (kl: false)"
    if model.tokenizer.get_vocab() != base.tokenizer.get_vocab():
        return f"its tokens are not those of {base.name}"
    for place in model.rows.keys() & base.rows.keys():
        if model.rows[place].prompt_ids != base.rows[place].prompt_ids:
            row = plan.examples[place].row
            return f"it reads prompts as other tokens than {base.name} (row {row} is one)"
    return None
