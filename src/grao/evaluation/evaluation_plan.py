"""Everything that an evaluation needs except weights: all user errors are found here, before any are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from grao.data import EncodedExample, Example, ensure_pad_token, validate_examples
from grao.evaluation.evaluation_config import VERIFIABLE, EvaluateConfig, EvaluatedModel
from grao.policy import load_tokenizer, read_context_length
from grao.rewards import RewardSet
from grao.rollout import SamplingParams
from grao.spelling import did_you_mean


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A model with its tokenizer and its tokenized rows, but without weights."""

    config: EvaluatedModel
    """With the path of the model itself if a run directory was named."""
    tokenizer: PreTrainedTokenizerBase
    rows: Mapping[int, EncodedExample]
    """Rows that fit the model, by their index among the examples."""
    params: SamplingParams
    """How it answers, with the stop tokens of its tokenizer."""
    encoding: str
    """Report of tokenizing the rows."""
    no_kl: str | None = None
    """Why its KL to the base cannot be measured; None if it can."""

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.config.name


@dataclass(frozen=True)
class EvaluationPlan:
    """An evaluation that has been checked and can run."""

    config: EvaluateConfig
    rewards: RewardSet
    examples: Sequence[Example]
    models: Sequence[PlannedModel]
    verifiable: Sequence[str]
    too_long: Mapping[str, Sequence[int]]
    """By model, the rows that are too long for it: they are left out for all models."""

    @property
    def base(self) -> PlannedModel:
        """The model that the others are compared with."""
        return next(model for model in self.models if model.name == self.config.base_name)

    @property
    def base_first(self) -> list[PlannedModel]:
        """The models in the order of the tables."""
        return [self.base, *(model for model in self.models if model is not self.base)]

    @property
    def compared(self) -> set[int]:
        """The rows (`Example.row`) that every model can read."""
        return {example.row for example in self.examples}.difference(*self.too_long.values())

    @property
    def parts(self) -> list[range]:
        """Indices of examples that are answered, scored and stored together."""
        starts = range(0, len(self.examples), self.config.batch)
        return [range(start, min(start + self.config.batch, len(self.examples))) for start in starts]

    @property
    def device(self) -> torch.device:
        """Device of the models."""
        return torch.device(self.config.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def plan_evaluation(config: EvaluateConfig) -> EvaluationPlan:
    """Load rewards, rows and tokenizers, and check them.

    Raises:
        ValueError, FileNotFoundError: what is missing or does not fit, and what to do.
    """
    rewards = RewardSet([reward.load() for reward in config.rewards])
    verifiable = _verifiable(config, rewards)
    examples = config.data.load().examples
    validate_examples(examples)
    _check_category(config.category_column, examples)
    models = [_plan_model(replace(model, path=model_path(model)), config, examples) for model in config.models]
    too_long = {
        model.name: rows
        for model in models
        if (rows := [example.row for index, example in enumerate(examples) if index not in model.rows])
    }
    plan = EvaluationPlan(config, rewards, examples, models, verifiable, too_long)
    if not plan.compared:
        counts = [f"{name} can read {len(examples) - len(rows)}" for name, rows in too_long.items()]
        raise ValueError(f"none of {len(examples)} rows is short enough for every model: {', '.join(counts)}")
    rewards.check([row.as_group() for row in plan.base.rows.values()])
    return replace(plan, models=[replace(model, no_kl=_no_kl(model, plan)) for model in models])


def model_path(model: EvaluatedModel) -> str:
    """Return the path of the model itself: for a run directory, of the model trained in it.

    Raises:
        ValueError: the run is not finished.
    """
    run = Path(model.path)
    if not (run / "config.yaml").is_file() or (run / "config.json").exists():
        return model.path
    if not (run / "model").is_dir():
        checkpoints = sorted(path.name for path in run.glob("checkpoint-*"))
        remedy = f", or name a checkpoint: {run / checkpoints[-1]}" if checkpoints else ""
        raise ValueError(f"model {model.name!r}: the run {run} has no {run / 'model'} yet. Resume the run{remedy}")
    return str(run / "model")


def _verifiable(config: EvaluateConfig, rewards: RewardSet) -> list[str]:
    """Return the names of rewards whose scores are right or wrong."""
    names = [function.name for function in rewards.functions]
    if config.verifiable is None:
        return [name for reward, name in zip(config.rewards, names, strict=True) if reward.path in VERIFIABLE]
    for name in config.verifiable:
        if name not in names:
            remedy = did_you_mean(name, names)
            raise ValueError(f"verifiable names {name!r}{remedy}; the rewards are {', '.join(names)}")
    return config.verifiable


def _check_category(column: str | None, examples: Sequence[Example]) -> None:
    """Require a column that the user names; the default one may be missing."""
    found = sorted({name for example in examples for name in example.columns})
    if column is not None and column not in found and column != EvaluateConfig.category_column:
        raise ValueError(
            f"category_column is {column!r}, which is no column of the data{did_you_mean(column, found)}; it has "
            f"{', '.join(found) or 'none besides the prompt and the answers'}"
        )


def _plan_model(model: EvaluatedModel, config: EvaluateConfig, examples: Sequence[Example]) -> PlannedModel:
    """Load the tokenizer and tokenize the rows, with room for the answer in the model's context.

    A reference may have any length: the model does not read it.
    """
    data, sampling, context = config.data, config.sampling, None
    limit, new = data.max_prompt_tokens, config.sampling.max_new_tokens
    try:
        tokenizer, context = load_tokenizer(model), read_context_length(model)
        ensure_pad_token(tokenizer)
        if context is not None:
            if context <= new:
                raise ValueError(f"sampling.max_new_tokens={new} leaves no room for a prompt; lower it")
            limit = context - new if limit is None else min(limit, context - new)
        encoder = replace(data.encoder(tokenizer, None), max_prompt_tokens=limit)
        rows, report = encoder.encode_all(examples)
    except ValueError as error:
        room = f" (context of {context} tokens minus sampling.max_new_tokens={new})" if context is not None else ""
        raise ValueError(f"model {model.name!r}: {error}{room}") from error
    indices = {example.row: index for index, example in enumerate(examples)}
    return PlannedModel(
        config=model,
        tokenizer=tokenizer,
        rows={indices[row.example.row]: row for row in rows},
        params=replace(sampling, stop_token_ids=(*sampling.stop_token_ids, *encoder.stop_ids)),
        encoding=str(report),
    )


def _no_kl(model: PlannedModel, plan: EvaluationPlan) -> str | None:
    """Say why the KL of this model to the base is undefined, or not wanted."""
    base = plan.base
    if model.name == base.name:
        return "it is the base"
    if not plan.config.kl:
        return "not asked for (kl: false)"
    if model.tokenizer.get_vocab() != base.tokenizer.get_vocab():
        return f"its vocabulary differs from that of {base.name}"
    for index in model.rows.keys() & base.rows.keys():
        if model.rows[index].prompt_ids != base.rows[index].prompt_ids:
            return f"it tokenizes prompts differently from {base.name} (such as row {plan.examples[index].row})"
    return None
