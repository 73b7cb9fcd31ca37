"""Every answer that is not stored yet: drawn, held against the base, scored, stored, one part after another."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from rich.console import Console
from transformers.utils import logging as transformers_logging

from grao.data import EncodedExample
from grao.evaluation.config import EvaluateConfig
from grao.evaluation.evaluation_directory import EvaluationDirectory
from grao.evaluation.evaluation_plan import EvaluationPlan, PlannedModel
from grao.evaluation.evaluation_progress import EvaluationProgress
from grao.evaluation.heldout import answer_prompts
from grao.evaluation.items import Item, items_of
from grao.evaluation.items_file import join_items, write_items
from grao.evaluation.kl_to_base import kl_to, logprobs_of
from grao.policy import Policy, load_policy
from grao.rewards import RewardError, RewardReport
from grao.rollout import LocalEngine


def answer_all(plan: EvaluationPlan, directory: EvaluationDirectory, console: Console) -> None:
    """Every part of every model that is not stored yet."""
    missing = {
        model.name: [index for index in range(len(plan.parts)) if not directory.part(model.name, index).is_file()]
        for model in plan.models
    }
    total = len(plan.examples) * len(plan.models)
    to_do = sum(len(plan.parts[index]) for indices in missing.values() for index in indices)
    measures = any(missing[model.name] and model.no_kl is None for model in plan.models)
    transformers_logging.disable_progress_bar()  # the console shows one bar, ours
    with EvaluationProgress(console, total, total - to_do) as progress:
        answering = _Answering(plan, directory, _Memory(_device(plan.config), plan.base, measures), progress)
        for model in plan.base_first:
            if missing[model.name]:
                answering.parts(model, missing[model.name])
            if missing[model.name] or not directory.items_file(model.name).is_file():
                parts = [directory.part(model.name, index) for index in range(len(plan.parts))]
                join_items(parts, directory.items_file(model.name))


@dataclass(frozen=True, slots=True)
class _Answering:
    """One evaluation under way."""

    plan: EvaluationPlan
    directory: EvaluationDirectory
    memory: _Memory
    progress: EvaluationProgress

    def parts(self, model: PlannedModel, indices: Sequence[int]) -> None:
        """These parts of one model, each stored as soon as it is scored."""
        self.progress.model(model.name)
        policy = self.memory.policy(model)
        engine = LocalEngine(policy.model, policy.tokenizer, max_rows=self.plan.config.sampling.max_rows)
        for index in indices:
            places = self.plan.parts[index]
            rows = [model.rows[place] for place in places if place in model.rows]
            try:
                items, took = self._part(model, rows, policy, engine) if rows else ([], {})
            except RewardError as error:
                raise RewardError(f"{error}\n{self._stored(model)}") from error
            write_items(self.directory.part(model.name, index), items, took)
            self.progress.stored(len(places))
        self.progress.finished()

    def _part(
        self, model: PlannedModel, rows: Sequence[EncodedExample], policy: Policy, engine: LocalEngine
    ) -> tuple[list[Item], dict[str, list[float]]]:
        """Answer these rows, measure the KL, score. Scores come last: what they cost is then stored at once."""
        config, sampling = self.plan.config, self.plan.config.sampling
        engine.progress = self.progress.answered
        groups = answer_prompts(engine, rows, model.params, seed=sampling.seed, num_samples=sampling.num_samples)
        kl = None
        if model.no_kl is None:
            engine.progress = None
            self.progress.doing("KL to the base")
            base = logprobs_of(self.memory.base_policy())
            kl = kl_to(base, policy, engine, groups, model.params, sampling.seed)
        self.progress.doing("scoring")
        scored = self.plan.rewards.score(groups)
        return items_of(scored.groups, category_column=config.category_column, kl=kl), accounting(scored.report)

    def _stored(self, model: PlannedModel) -> str:
        """What a failure leaves, and how to go on."""
        stored, parts = self.directory.stored(model.name, len(self.plan.parts)), len(self.plan.parts)
        return (
            f"This was while scoring {model.name}, of which {stored} of {parts} parts are stored in "
            f"{self.directory.path}. The same command goes on from there; nothing stored is scored again"
        )


def accounting(report: RewardReport) -> dict[str, list[float]]:
    """What scoring took: members that a reward failed on, and what rewards log (requests, tokens, cost), each time."""
    errors = {f"rewards/{function.name}/errors": [float(function.errors)] for function in report.functions}
    return errors | {name: list(values) for function in report.functions for name, values in function.logged.items()}


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
        needed = {model.name, self.base.name} if self.keeps_base else {model.name}
        if unneeded := self._held.keys() - needed:
            for name in unneeded:
                del self._held[name]
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return self._load(model)

    def base_policy(self) -> Policy:
        """The base, beside the model that was loaded last."""
        assert self.keeps_base
        return self._load(self.base)

    def _load(self, model: PlannedModel) -> Policy:
        if model.name not in self._held:
            policy = load_policy(model.config)
            policy.model.requires_grad_(False).eval().to(self.device)
            self._held[model.name] = replace(policy, tokenizer=model.tokenizer)
        return self._held[model.name]
