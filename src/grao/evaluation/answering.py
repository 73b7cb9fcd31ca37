"""Every answer that is not stored yet: drawn, held against the base, scored, stored, one part after another."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from rich.console import Console
from transformers.utils import logging as transformers_logging

from grao.evaluation.config import EvaluateConfig
from grao.evaluation.directory import EvaluationDirectory
from grao.evaluation.heldout import answer_prompts
from grao.evaluation.items import Item, items_of
from grao.evaluation.items_file import join_items, write_items
from grao.evaluation.kl import kl_to, logprobs_of
from grao.evaluation.plan import Plan, PlannedModel
from grao.evaluation.progress import EvaluationProgress
from grao.policy import Policy, load_policy
from grao.rewards import RewardError, RewardReport
from grao.rollout import LocalEngine

STATISTICS = {"unscored", "seconds", "mean", "std", "q25", "q50", "q75", "reference_mean"}
"""Metrics of a reward that the items say better, or that differ from run to run: no part of the accounting."""


def answer_all(plan: Plan, directory: EvaluationDirectory, console: Console) -> None:
    """Every part of every model that is not stored yet."""
    missing = {
        model.name: [index for index in range(len(plan.parts)) if not directory.part(model.name, index).is_file()]
        for model in plan.models
    }
    total = len(plan.examples) * len(plan.models)
    to_do = sum(len(plan.parts[index]) for indices in missing.values() for index in indices)
    measured = [model for model in plan.models if missing[model.name] and model.no_kl is None]
    transformers_logging.disable_progress_bar()  # the console shows one bar, ours
    memory = _Memory(_device(plan.config), plan.base, bool(measured))
    with EvaluationProgress(console, total, total - to_do) as progress:
        for model in plan.base_first:
            if missing[model.name]:
                progress.model(model.name)
                _answer_missing(model, missing[model.name], plan, directory, memory, progress)
            parts = [directory.part(model.name, index) for index in range(len(plan.parts))]
            if missing[model.name] or not directory.items_file(model.name).is_file():
                join_items(parts, directory.items_file(model.name))


def _answer_missing(
    model: PlannedModel,
    indices: Sequence[int],
    plan: Plan,
    directory: EvaluationDirectory,
    memory: _Memory,
    progress: EvaluationProgress,
) -> None:
    """The parts of one model, each stored as soon as it is scored."""
    policy = memory.policy(model)
    engine = LocalEngine(policy.model, policy.tokenizer, max_rows=plan.config.sampling.max_rows)
    for index in indices:
        places = plan.parts[index]
        engine.progress = progress.answered
        try:
            items, accounting = _answer_part(model, places, plan, policy, engine, memory, progress)
        except RewardError as error:
            stored = directory.stored(model.name, len(plan.parts))
            raise RewardError(
                f"{error}\nThis was while scoring {model.name}, of which {stored} of {len(plan.parts)} parts are "
                f"stored in {directory.path}. The same command goes on from there; nothing stored is scored again"
            ) from error
        write_items(directory.part(model.name, index), items, accounting)
        progress.stored(len(places))
    progress.finished()


def _answer_part(
    model: PlannedModel,
    places: Sequence[int],
    plan: Plan,
    policy: Policy,
    engine: LocalEngine,
    memory: _Memory,
    progress: EvaluationProgress,
) -> tuple[list[Item], dict[str, float]]:
    """Answer these rows, measure the KL, score. Scores come last: what they cost is then stored at once."""
    sampling = plan.config.sampling
    rows = [model.rows[place] for place in places if place in model.rows]
    if not rows:
        return [], {}
    groups = answer_prompts(engine, rows, model.params, seed=sampling.seed, num_samples=sampling.num_samples)
    kl = None
    if model.no_kl is None:
        engine.progress = None
        progress.doing("KL to the base")
        base = logprobs_of(memory.base_policy())
        kl = kl_to(base, policy, engine, groups, model.params, sampling.seed)
    progress.doing("scoring")
    scored = plan.rewards.score(groups)
    items = items_of(scored.groups, category_column=plan.config.category_column, kl=kl)
    return items, accounting(scored.report)


def accounting(report: RewardReport) -> dict[str, float]:
    """What scoring took, as the rewards count it (errors, requests, tokens, cost): what can be added up."""
    return {name: value for name, value in report.metrics().items() if name.split("/")[-1] not in STATISTICS}


def _device(config: EvaluateConfig) -> torch.device:
    return torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass
class _Memory:
    """The models that are loaded: one at a time, and the base beside it where a KL is measured."""

    device: torch.device
    base: PlannedModel
    keeps_base: bool
    _held: dict[str, Policy] = field(default_factory=dict)

    def policy(self, model: PlannedModel) -> Policy:
        """Load it, and let go of what is not needed any more."""
        for name in [name for name in self._held if name != model.name]:
            if not (self.keeps_base and name == self.base.name):
                del self._held[name]
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if model.name not in self._held:
            policy = load_policy(model.config)
            policy.model.requires_grad_(False).eval().to(self.device)
            self._held[model.name] = replace(policy, tokenizer=model.tokenizer)
        return self._held[model.name]

    def base_policy(self) -> Policy:
        """The base, beside the model that was loaded last."""
        assert self.keeps_base
        if self.base.name not in self._held:
            policy = load_policy(self.base.config)
            policy.model.requires_grad_(False).eval().to(self.device)
            self._held[self.base.name] = policy
        return self._held[self.base.name]
