"""Generate the answers that are not stored yet: sample, measure the KL, score, store, one part after another."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from rich.console import Console
from transformers.utils import logging as transformers_logging

from grao.data import EncodedExample
from grao.evaluation.evaluation_directory import EvaluationDirectory
from grao.evaluation.evaluation_plan import EvaluationPlan, PlannedModel
from grao.evaluation.evaluation_progress import EvaluationProgress
from grao.evaluation.items import Item, items_of
from grao.evaluation.items_file import join_items, write_items
from grao.evaluation.kl_to_base import kl_to, model_logprobs
from grao.policy import LoadedPolicy, load_policy
from grao.rewards import RewardError, RewardReport
from grao.rollout import Engine, make_engine, sample_groups


def answer_all(plan: EvaluationPlan, directory: EvaluationDirectory, console: Console) -> None:
    """Generate and store every missing part of every model.

    One model is in memory at a time, and the base beside it if a KL is measured.

    Raises:
        RewardError: a scorer failed; stored parts stay.
    """
    parts = range(len(plan.parts))
    missing = {
        model.name: [index for index in parts if not directory.part(model.name, index).is_file()]
        for model in plan.models
    }
    total = len(plan.examples) * len(plan.models)
    to_do = sum(len(plan.parts[index]) for indices in missing.values() for index in indices)
    measures_kl = any(missing[model.name] and model.no_kl is None for model in plan.models)
    transformers_logging.disable_progress_bar()  # the console shows ours
    with EvaluationProgress(console, total, total - to_do) as progress:
        base = _load(plan.base, plan.device) if measures_kl else None
        for model in plan.base_first:
            if missing[model.name]:
                progress.model(model.name)
                policy = base if base is not None and model is plan.base else _load(model, plan.device)
                _Answering(plan, model, policy, base, directory, progress).store_parts(missing[model.name])
                del policy
                _free_memory(plan.device)
            if missing[model.name] or not directory.items_file(model.name).is_file():
                join_items([directory.part(model.name, index) for index in parts], directory.items_file(model.name))


@dataclass(frozen=True, slots=True)
class _Answering:
    """One model, loaded, answering its missing parts."""

    plan: EvaluationPlan
    model: PlannedModel
    policy: LoadedPolicy
    base: LoadedPolicy | None
    directory: EvaluationDirectory
    progress: EvaluationProgress

    def store_parts(self, indices: Sequence[int]) -> None:
        """Store each part as soon as it is scored."""
        model, tokenizer = self.policy.model, self.policy.tokenizer
        engine = make_engine(self.plan.config.engine, model, tokenizer, self.progress.sampled)
        engine.open()
        try:
            engine.sync(model, version=self.model.name)
            for index in indices:
                part = self.plan.parts[index]
                rows = [self.model.rows[place] for place in part if place in self.model.rows]
                items, accounting = self._answer(rows, engine) if rows else ([], {})
                write_items(self.directory.part(self.model.name, index), items, accounting)
                self.progress.stored(len(part))
        finally:
            engine.close()
        self.progress.finished()

    def _answer(self, rows: Sequence[EncodedExample], engine: Engine) -> tuple[list[Item], dict[str, list[float]]]:
        """Answer these rows, measure the KL, score. Scoring is last, so that what it cost is stored at once."""
        sampling, params = self.plan.config.sampling, self.model.params
        self.progress.doing("answers")
        groups = [row.as_group() for row in rows]
        groups = sample_groups(engine, groups, params, seed=sampling.seed, step=0, num_samples=sampling.num_samples)
        kl = None
        if self.model.no_kl is None and self.base is not None:
            self.progress.doing("KL to the base")
            kl = kl_to(partial(model_logprobs, self.base), self.policy, engine, groups, params, sampling.seed)
        self.progress.doing("scoring")
        try:
            scored = self.plan.rewards.score(groups)
        except RewardError as error:
            raise RewardError(f"{error}\n{self._resume_hint()}") from error
        items = items_of(scored.groups, category_column=self.plan.config.category_column, kl=kl)
        return items, scoring_costs(scored.report)

    def _resume_hint(self) -> str:
        parts = len(self.plan.parts)
        stored = sum(self.directory.part(self.model.name, index).is_file() for index in range(parts))
        return (
            f"Scoring {self.model.name} failed with {stored} of {parts} parts stored in {self.directory.path}. Run "
            "the same command again to continue: stored answers are not scored again"
        )


def scoring_costs(report: RewardReport) -> dict[str, list[float]]:
    """Return the number of errors per reward, and what rewards log (requests, tokens, cost), per call."""
    errors = {f"rewards/{function.name}/errors": [float(function.errors)] for function in report.functions}
    return errors | {name: list(values) for function in report.functions for name, values in function.logged.items()}


def _load(model: PlannedModel, device: torch.device) -> LoadedPolicy:
    policy = load_policy(model.config)
    policy.model.requires_grad_(False).eval().to(device)
    return replace(policy, tokenizer=model.tokenizer)


def _free_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
