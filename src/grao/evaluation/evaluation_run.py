"""An evaluation from its configuration to its figures. Read top to bottom.

models × rows ─▶ answers with keyed seeds ─▶ scores, and the KL to the base ─▶ stored items ─▶ figures, tables, JSON
                 (answering.py)                                                (items_file.py)  (conclusion.py)
"""

from __future__ import annotations

from rich.console import Console

from grao.configuration import to_mapping
from grao.evaluation.answer_generation import answer_all
from grao.evaluation.config import EvaluateConfig
from grao.evaluation.evaluation_directory import EvaluationDirectory
from grao.evaluation.evaluation_plan import EvaluationPlan, plan_evaluation
from grao.evaluation.evaluation_results import EvaluationResult, conclude
from grao.evaluation.fingerprint import Fingerprint, rows_digest
from grao.evaluation.metric_tables import evaluation_tables, print_tables
from grao.terminal import make_console


def evaluate(config: EvaluateConfig, *, overwrite: bool = False, console: Console | None = None) -> EvaluationResult:
    """Answer, score and compare; go on with what is stored in `output_dir`, draw and score only what is missing.

    Args:
        config: what to evaluate.
        overwrite: forget what is stored.
        console: where progress and tables are shown.

    Raises:
        ValueError, FileNotFoundError: bad input, before any weights are loaded, with what to do about it.
        RewardError: a scorer failed; what is stored stays, and the same call goes on from there.
    """
    console = console or make_console()
    plan = plan_evaluation(config)
    settings = {**to_mapping(config), "base": config.base_name}
    directory = EvaluationDirectory.open(config.output_dir, settings, overwrite=overwrite)
    made_from = _begin(plan, directory)
    _say_what_is_compared(plan, console)
    answer_all(plan, directory, console)
    found = conclude(plan, directory, made_from, settings)
    print_tables(console, evaluation_tables(found.summaries, found.differences))
    console.print(f"figures: {directory.figures_file}   answers: {directory.path / 'items'}", soft_wrap=True)
    return found


def _begin(plan: EvaluationPlan, directory: EvaluationDirectory) -> dict[str, Fingerprint]:
    """What every model is made from now, once it is certain that its stored answers are made from the same."""
    rows = rows_digest(plan.examples)
    base = Fingerprint.of(plan.base.config, rows, None, directory.provenance(plan.base.name))
    found = {plan.base.name: base}
    for model in plan.base_first[1:]:
        known = directory.provenance(model.name)
        found[model.name] = Fingerprint.of(model.config, rows, None if model.no_kl else base.digest, known)
    for name, now in found.items():
        directory.begin(name, now)
    return found


def _say_what_is_compared(plan: EvaluationPlan, console: Console) -> None:
    for model in plan.base_first:
        console.print(f"{model.name}: {model.encoding}", highlight=False, soft_wrap=True)
        if plan.config.kl and model.no_kl and model is not plan.base:
            console.print(f"{model.name}: no KL, as {model.no_kl}", highlight=False, soft_wrap=True)
    left_out = len(plan.examples) - len(plan.compared)
    if left_out:
        which = ", ".join(f"{name} ({len(rows)})" for name, rows in plan.unread.items())
        console.print(
            f"left out for all models, to compare them on the same rows: {left_out} of {len(plan.examples)}, too long "
            f"for {which}",
            highlight=False,
            soft_wrap=True,
        )
